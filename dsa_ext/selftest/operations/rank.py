"""The ranking."""

import itertools

import torch
from torch import Tensor

from dsa_ext.rank import _count_ranks, columns, count_ranks
from dsa_ext.selftest import cuda
from dsa_ext.selftest.operation import Case, Operation, Typical, difference

Arguments = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
"""distances, members, first, count, query_cams, gallery_cams"""

INFINITY = float("inf")

GALLERY, IDENTITIES = 15_913, 750
"""Market-1501's gallery."""


def rank_bytes(queries: int, gallery: int, most: int, *, distance_bytes: int = 4) -> int:
    """count_ranks, queries x gallery, ranks [queries, most]."""
    distances = queries * gallery * distance_bytes
    labels = 8 * (2 * gallery + 3 * queries)  # members, gallery_cams; first, count, query_cams
    written = 8 * queries * (most + 1)  # ranks and found
    return distances + labels + written


def rank_labels(
    queries: int, gallery: int, identities: int, cameras: int = 6, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Random arguments of count_ranks, without the distances."""
    draw = torch.Generator().manual_seed(seed)

    def labels(high: int, count: int) -> Tensor:
        return torch.randint(0, high, (count,), generator=draw)

    query_ids, gallery_ids = labels(identities, queries), labels(identities, gallery)
    grouped, members = gallery_ids.sort(stable=True)
    first = torch.searchsorted(grouped, query_ids)
    count = torch.searchsorted(grouped, query_ids, right=True) - first
    return members, first, count, labels(cameras, queries), labels(cameras, gallery)


def ranking(
    queries: int,
    gallery: int,
    identities: int,
    cameras: int = 6,
    *,
    values: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Arguments:
    """Random arguments of count_ranks. `values` > 0 draws distances from only so many: ties everywhere."""
    draw = torch.Generator().manual_seed(seed)
    shape = (queries, gallery)
    if values:
        distances = torch.randint(0, values, shape, generator=draw).to(dtype)
    else:
        distances = torch.randn(shape, generator=draw, dtype=dtype)
    labels = rank_labels(queries, gallery, identities, cameras, seed)
    members, first, count, query_cams, gallery_cams = labels
    return distances, members, first, count, query_cams, gallery_cams


def rank_arguments(
    queries: int,
    gallery: int,
    ids: int = 5,
    cams: int = 3,
    values: str = "float",
    dtype: torch.dtype = torch.float32,
) -> Arguments:
    """Random arguments. Query i is of identity i; queries beyond `ids` have no match.

    values: "float" ties rarely, "few" everywhere, "equal" is one number, "infinite" is 0 and both
    infinities.
    """
    draw = torch.Generator().manual_seed(0)

    def integers(high, *shape):
        return torch.randint(0, high, shape, generator=draw)

    shape = (queries, gallery)
    distances = {
        "float": lambda: torch.randn(shape, generator=draw, dtype=dtype),
        "few": lambda: integers(3, *shape).to(dtype),
        "equal": lambda: torch.full(shape, -1.5, dtype=dtype),
        "infinite": lambda: torch.tensor([-INFINITY, 0, INFINITY], dtype=dtype)[integers(3, *shape)],
    }[values]()
    grouped, members = integers(ids, gallery).sort(stable=True)
    query_ids = torch.arange(queries)
    first = torch.searchsorted(grouped, query_ids)
    count = torch.searchsorted(grouped, query_ids, right=True) - first
    return distances, members, first, count, integers(cams, queries), integers(cams, gallery)


def strided(case: Arguments, step: int, offset: int) -> Arguments:
    """The same distances with longer rows, which begin at an odd address."""
    distances, members, first, count, query_cams, gallery_cams = case
    queries, gallery = distances.shape
    room = torch.full((queries, gallery + step), 7.0, dtype=distances.dtype)
    room[:, offset : offset + gallery] = distances
    return room[:, offset : offset + gallery], members, first, count, query_cams, gallery_cams


def expanded(case: Arguments) -> Arguments:
    """Every row of the distances is the first one, at stride 0."""
    distances, members, first, count, query_cams, gallery_cams = case
    return distances[:1].expand(distances.shape), members, first, count, query_cams, gallery_cams


ODD: dict[str, Arguments] = {
    "plain": rank_arguments(7, 100),
    "one query": rank_arguments(1, 100),
    "one image": rank_arguments(2, 1, ids=1),
    "one image, junk": rank_arguments(1, 1, ids=1, cams=1),
    "no query": rank_arguments(0, 20),
    "no gallery": rank_arguments(3, 0),
    "no positives": rank_arguments(9, 40, ids=2),
    "all junk": rank_arguments(5, 60, cams=1),
    "one identity": rank_arguments(2, 90, ids=1),
    "all equal": rank_arguments(7, 100, values="equal"),
    "ties": rank_arguments(7, 100, values="few"),
    "ties, many positives": rank_arguments(3, 3000, ids=2, values="few"),
    "infinities": rank_arguments(7, 100, values="infinite"),
    "infinities, many positives": rank_arguments(2, 2000, ids=1, values="infinite"),
    "powers of two": rank_arguments(64, 1300, ids=64, cams=50),
    "255 members": rank_arguments(1, 255, ids=1),
    "256 members": rank_arguments(1, 256, ids=1, cams=1000),
    "257 members, ties": rank_arguments(1, 257, ids=1, cams=1000, values="few"),
    "5,000 positives": rank_arguments(2, 6200, ids=1, cams=6),
    "5,000 positives, ties": rank_arguments(1, 6200, ids=1, cams=6, values="few"),
    "float64": rank_arguments(7, 101, dtype=torch.float64),
    "float64, ties": rank_arguments(7, 101, dtype=torch.float64, values="few"),
    "row stride": strided(rank_arguments(7, 101), 3, 1),
    "row stride, float64": strided(rank_arguments(7, 101, dtype=torch.float64), 2, 1),
    "row stride 0": expanded(rank_arguments(7, 101)),
    "rows of 3 at odd addresses": strided(rank_arguments(5, 3, ids=2), 2, 1),
}


def arguments_on(device: str, case: Arguments) -> Arguments:
    """The case on a device, the distances with their strides."""
    distances, members, first, count, query_cams, gallery_cams = case
    bytes_ = torch.empty(0, dtype=torch.uint8).set_(distances.untyped_storage()).to(device)
    shape = (distances.shape, distances.stride(), distances.storage_offset())
    moved = bytes_.view(distances.dtype).as_strided(*shape)
    members, first, count = (x.to(device) for x in (members, first, count))
    return moved, members, first, count, query_cams.to(device), gallery_cams.to(device)


def rank_case(label: str, case: Arguments) -> Case:
    return Case(
        label,
        lambda device: list(count_ranks(*arguments_on(device, case))),
        lambda: list(_count_ranks(*case)),
    )


def cases() -> dict[str, list[Case]]:
    return {
        "ranks: sizes, ties, types": [
            rank_case(
                f"{sizes}, {values or 'no'} values, {dtype}", ranking(*sizes, values=values, dtype=dtype)
            )
            for sizes, values, dtype in itertools.product(
                # queries, gallery, identities, cameras: one of each, no query, all junk, rare matches, ...
                (
                    (1, 1, 1, 2),
                    (0, 5, 2, 2),
                    (3, 7, 1, 1),
                    (5, 33, 2, 3),
                    (17, 257, 40, 2),
                    (9, 1000, 3000, 6),
                    (4, 2500, 2, 6),
                    (64, 4099, 200, 6),
                ),
                (0, 1, 5),
                (torch.float32, torch.float64),
            )
        ],
        "ranks: odd rows, infinities, many members": [rank_case(name, case) for name, case in ODD.items()],
    }


def check_stream(device: str) -> str | None:
    """count_ranks copies counts to the host; this copy, too, must be on the caller's stream."""
    arguments = arguments_on(device, ranking(8, 500, 20))
    right = arguments[0].clone()
    arguments[0].zero_()
    with cuda.busy_side_stream():
        arguments[0].copy_(right)
        result = count_ranks(*arguments)
    return difference(result, count_ranks(*ranking(8, 500, 20)))


def check_large_ranks(device: str, beyond: int) -> str | None:
    gallery = min(1 << 15, beyond // 32)
    queries = beyond // gallery + 2
    cuda.need(3 * 4 * queries * gallery)  # room for working memory of its own
    distances = torch.rand((queries, gallery), device=device)
    members, first, count, query_cams, gallery_cams = labels = rank_labels(queries, gallery, gallery // 16)
    on_device = [x.to(device) for x in labels]
    ranks, found = count_ranks(distances, *on_device)
    for at in (slice(0, 4), slice(queries - 4, queries)):
        few = (members, first[at], count[at], query_cams[at], gallery_cams)
        wanted, wanted_found = count_ranks(distances[at].cpu(), *few)
        here = ranks[at, : wanted.shape[1]]  # the rest of the row is padding: the gallery's length
        wrong = difference([found[at], here], [wanted_found, wanted])
        wrong = wrong or (None if (ranks[at, wanted.shape[1] :] == gallery).all() else "wrong padding")
        if wrong:
            return f"queries from {at.start}: {wrong}"
    return None


def typical(batch: int) -> list[Typical]:
    """A tile of four queries for each image of the batch against the gallery of Market-1501."""
    case = ranking(4 * batch, GALLERY, IDENTITIES)
    moved = rank_bytes(4 * batch, GALLERY, columns(case[3]))

    def prepare(device: str):
        arguments = arguments_on(device, case)
        return lambda: count_ranks(*arguments)

    # The host needs the largest count for the shape of the result, so there is a wait in between.
    return [Typical("count_ranks, float32, waits for the host", moved, prepare)]


OPERATION = Operation(
    name="rank",
    function=count_ranks,
    twin=_count_ranks,
    cases=cases,
    typical=typical,
    kernels=("dsa::rank_kernel<float>", "dsa::rank_kernel<double>"),
    large={"distances": check_large_ranks},
    checks={"another stream": check_stream},
)
