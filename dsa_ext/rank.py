"""Ranking by counting: where a query's positives stand in its rank list, without sorting it."""

import torch
from torch import Tensor

from dsa_ext._arrays import Array, as_tensor
from dsa_ext._library import check_served, operation

_FLOATING = (torch.float32, torch.float64)
_NAMES = ("distances", "members", "first", "count", "query_cams", "gallery_cams")


def count_ranks(
    distances: Array,
    members: Array,
    first: Array,
    count: Array,
    query_cams: Array,
    gallery_cams: Array,
) -> tuple[Tensor, Tensor]:
    """The rank of every positive of each query of a tile.

    A gallery image of the query's identity is junk if it is of the query's camera, else a positive.
    Junk is removed. The rank of a positive (from 0) is the number of kept images that stand before
    it: the nearer ones, and those equally near that come earlier in the gallery. Exact, and the
    same on every device, for any tile and any number of threads. On CUDA the host waits for `count`,
    which the result's shape depends on; so CUDA graphs cannot capture it.

    Args:
        distances: float32 or float64 [T, G], from each query to the whole gallery; only read. Any
            increasing function of the distance will do; it may be infinite. NaN must not occur: the
            ranks of its row would be arbitrary. Rows may lie at any stride; a tensor whose columns
            do not lie side by side is copied first.
        members: int64 [G], the gallery indices grouped by identity, ascending within each.
        first, count: int64 [T]. members[first : first + count] are the gallery images of a query's
            identity; count may be 0.
        query_cams: int64 [T].
        gallery_cams: int64 [G]. All arrays are on one device.

    Returns:
        The ranks of each query's positives, ascending, then G, which is no image's rank: int64 [T, M], M the
        largest count rounded up to a multiple of 4, at least 4. And the number of positives, int64 [T].

    Raises:
        TypeError: an argument is not an array, or of another dtype.
        ValueError: a shape or device that is not as above.
        RuntimeError: an index in members, first or count that is out of range, or members that do
            not ascend (CUDA does not check members: its ranks are then wrong, or skip some);
            a gallery of 2**30 images or more; a CUDA tensor if the CUDA kernels are missing.
    """
    given = (distances, members, first, count, query_cams, gallery_cams)
    distances, *integers = (as_tensor(name, value) for name, value in zip(_NAMES, given))
    _check_inputs(distances, *integers)
    check_served(distances)
    if distances.shape[1] > 1 and distances.stride(1) != 1:
        distances = distances.contiguous()
    return torch.ops.dsa_ext.count_ranks(distances, *(x.contiguous() for x in integers))


def _check_inputs(distances, members, first, count, query_cams, gallery_cams) -> None:
    if distances.dtype not in _FLOATING:
        raise TypeError(f"distances must be float32 or float64, not {distances.dtype}")
    if distances.dim() != 2:
        raise ValueError(f"distances must be (T, G), not {tuple(distances.shape)}")
    queries, gallery = distances.shape
    for name, value, length in (
        ("members", members, gallery),
        ("first", first, queries),
        ("count", count, queries),
        ("query_cams", query_cams, queries),
        ("gallery_cams", gallery_cams, gallery),
    ):
        if value.dtype != torch.int64:
            raise TypeError(f"{name} must be int64, not {value.dtype}")
        if tuple(value.shape) != (length,):
            raise ValueError(f"{name} must be ({length},) to go with distances, not {tuple(value.shape)}")
        if value.device != distances.device:
            raise ValueError(f"{name} is on {value.device}, but distances is on {distances.device}")


def columns(count: Tensor) -> int:
    """M, the columns of ranks for these counts: rows fill whole sectors of memory."""
    return -(-max([1, *count.tolist()]) // 4) * 4


def _count_ranks(
    distances: Tensor,
    members: Tensor,
    first: Tensor,
    count: Tensor,
    query_cams: Tensor,
    gallery_cams: Tensor,
) -> tuple[Tensor, Tensor]:
    queries, gallery = distances.shape
    ranks = members.new_full((queries, columns(count)), gallery)  # [T, M]
    found = count.new_zeros(queries)  # [T]
    for query in range(queries):
        same_id = members[first[query] : first[query] + count[query]]  # [count]
        same_cam = gallery_cams[same_id] == query_cams[query]
        kept = torch.ones(gallery, dtype=torch.bool, device=distances.device)  # [G]
        kept[same_id[same_cam]] = False
        order = distances[query].sort(stable=True).indices  # [G]
        order = order[kept[order]]  # [kept]
        hits = torch.isin(order, same_id).nonzero().squeeze(1)  # [found]
        ranks[query, : len(hits)] = hits
        found[query] = len(hits)
    return ranks, found


# ---- the operation ----


# ranks [T, M], M = the largest count rounded up to a multiple of 4; found [T].
@operation(
    "count_ranks(Tensor distances, Tensor members, Tensor first, Tensor count, Tensor query_cams, "
    "Tensor gallery_cams) -> (Tensor ranks, Tensor found)"
)
def _rank(distances, members, first, count, query_cams, gallery_cams):
    gallery = len(members)
    for query, (begin, length) in enumerate(zip(first.tolist(), count.tolist())):
        if not (0 <= length <= gallery and 0 <= begin <= gallery - length):
            raise RuntimeError(
                f"first and count must stay within the {gallery} members, but query {query} has first = "
                f"{begin} and count = {length}"
            )
    for image in members[(members < 0) | (members >= gallery)].tolist():
        raise RuntimeError(f"members must be 0..{gallery - 1}, found {image}")
    for begin, length in zip(first.tolist(), count.tolist()):
        own = members[begin : begin + length]
        for at in (own[1:] <= own[:-1]).nonzero().flatten().tolist():
            raise RuntimeError(
                f"members must ascend inside an identity, found {own[at]} before {own[at + 1]}"
            )
    return _count_ranks(distances, members, first, count, query_cams, gallery_cams)


@torch.library.register_fake("dsa_ext::count_ranks")
def _(distances, members, first, count, query_cams, gallery_cams):
    queries = distances.shape[0]
    most = torch.library.get_ctx().new_dynamic_size(min=4)  # the largest count is in the data
    return members.new_empty((queries, most)), count.new_empty((queries,))
