"""Ranking a gallery for each query: mAP, CMC and rank lists, by counting instead of sorting.

A positive is a gallery image of the query's identity from
another camera; an image of the query's identity AND camera is removed from that query's gallery.
The rank of a positive (from 0) is the number of kept gallery images nearer than it, plus those
equally near that come earlier in the gallery. All ranks of a query follow from placing each gallery
distance once among the query's few sorted positives, so nothing as long as the gallery is sorted,
and only one tile of the distance matrix is in memory at a time.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dsareid.evaluation.arguments import check_features, check_labels, check_positive

AveragePrecision = Literal["hits", "trapezoidal"]

# Distances held at once. A CPU tile of this size stays near its caches; a GPU wants more work.
_TILE_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 25}

# Multiply-adds of a matrix product so short that float64 costs nothing worth saving.
SMALL_PRODUCT = 1 << 29


@dataclass(frozen=True)
class RankResult:
    """What `rank` and `chance` return; fractions of 1, float64 tensors on the CPU.

    Attributes:
        mAP: mean of `ap`.
        cmc: [max_rank]; cmc[k - 1] is the share of counted queries with a match in the first k.
        ap: [counted queries], average precision of each counted query.
        queries: int64 [counted queries], the index of each counted query, ascending.
        skipped: number of queries that have no match in the gallery and are not counted.
    """

    mAP: float
    cmc: Tensor
    ap: Tensor
    queries: Tensor
    skipped: int


@torch.no_grad()
def rank(
    query_features: Tensor,
    gallery_features: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor,
    gallery_cams: Tensor,
    max_rank: int = 50,
    *,
    average_precision: AveragePrecision = "hits",
    tile: int | None = None,
) -> RankResult:
    """Rank the gallery for every query by Euclidean distance.

    Gallery images with the query's identity and camera are removed; queries left without a match
    are skipped and not counted; CMC is averaged over the rest and stays flat where the gallery is
    shorter than `max_rank`; ties keep the gallery's order. Every id >= 0 is treated alike.

    The order is that of float32 distances; of float64 ones for float64 features, for small
    problems, and where features lie so close together, far from 0, that float32 would lose their
    differences. Features of whole numbers whose products and sums stay below 2**24 are ranked
    exactly, ties included, and equal gallery features always tie.

    Args:
        query_features: floating [Q, D], used as they are: normalising is the caller's.
        gallery_features: the same dtype and device, [G, D].
        query_ids, query_cams: integer [Q].
        gallery_ids, gallery_cams: integer [G].
        max_rank: length of the CMC.
        average_precision: "hits" is the mean of the precision at each hit. "trapezoidal" is what
            some toolkits report: the mean of the precisions just before and at each hit.
        tile: queries handled at once; chosen by the size of the gallery where None. It changes
            memory and speed.

    Raises:
        ValueError: an argument has a wrong type, shape, dtype, device or value (it is named), or
            no query has a match in the gallery.
    """
    query_features, gallery_features = check_features(query_features, gallery_features)
    matches = Matches(
        query_ids, gallery_ids, query_cams, gallery_cams,
        len(query_features), len(gallery_features), query_features.device,
    )
    check_positive("max_rank", max_rank)
    if average_precision not in ("hits", "trapezoidal"):
        raise ValueError(
            f'average_precision must be "hits" or "trapezoidal", not {average_precision!r}'
        )
    if tile is None:
        elements = _TILE_ELEMENTS.get(query_features.device.type, _TILE_ELEMENTS["cpu"])
        # Below 32 rows the product would only re-read the gallery.
        tile = max(32, min(256, elements // len(gallery_features)))
    check_positive("tile", tile)

    distances = Distances(query_features, gallery_features)
    first_hits, precisions, counted = [], [], []
    for start in range(0, len(query_features), tile):
        stop = min(start + tile, len(query_features))
        candidates, positive, junk = matches.tile(start, stop)
        if not positive.any():
            continue
        ranks, found = count_ranks(distances.tile(start, stop), candidates, positive, junk)
        ranks, found = ranks.cpu(), found.cpu()  # little from here on
        has_match = found > 0
        counted.append(start + has_match.nonzero().squeeze(1))
        ranks, found = ranks[has_match], found[has_match]
        first_hits.append(ranks[:, 0])
        precisions.append(_average_precision(ranks, found, average_precision))
    if not counted:
        raise ValueError(
            "no query has a match: no image in the gallery has the identity of a query "
            "and another camera"
        )
    return _result(
        torch.cat(precisions), torch.cat(first_hits), torch.cat(counted),
        len(query_features), max_rank,
    )


def count_ranks(
    distances: Tensor, candidates: Tensor, positive: Tensor, junk: Tensor
) -> tuple[Tensor, Tensor]:
    """The counting core: the rank of every positive of a tile of queries.

    Args:
        distances: float [T, G], any increasing function of the distance, finite; overwritten.
        candidates: int64 [T, M], for each query the gallery indices of its identity, ascending.
        positive: bool [T, M], the candidate is of another camera.
        junk: bool [T, M], the candidate is of the query's own camera. Where neither is set the
            entry is padding.

    Returns:
        ranks: int64 [T, P], each query's positives in the order of the rank list: how many kept
            gallery images stand before it. P is the largest number of positives; rows with fewer
            end in padding of arbitrary value.
        found: int64 [T], the number of positives.
    """
    rows, columns = distances.shape
    infinity = float("inf")
    own = distances.gather(1, candidates)  # [T, M]
    # Infinitely far, junk stands behind every positive and counts for none. A padded candidate
    # is index 0 of the gallery: it must be left as it is, so junk is set through a list.
    row, place = junk.nonzero(as_tuple=True)
    distances[row, candidates[row, place]] = infinity

    found = positive.sum(1)
    most = max(int(found.max()), 1)
    # Stable, and candidates ascend: equal positives stay in the gallery's order.
    near, order = own.masked_fill(~positive, infinity).sort(dim=1, stable=True)
    near = near[:, :most].contiguous()  # [T, P]
    index = candidates.gather(1, order[:, :most])  # [T, P]

    # How many positives are strictly nearer than each gallery image: it stands before the rest.
    ahead = torch.searchsorted(near, distances)  # [T, G]
    # Those as near as some positive, itself among them, are placed among it by gallery index.
    tied = near.gather(1, ahead.clamp(max=most - 1)) == distances
    tied &= distances < infinity
    row, image = tied.nonzero(as_tuple=True)
    level = torch.searchsorted(near, near)  # [T, P]: one number for equal positives
    line = torch.arange(rows, device=distances.device)
    # (query, distance, gallery index) as one ascending number; padding sorts last in its row.
    padding = torch.arange(most, device=distances.device) >= found[:, None]
    key = (line[:, None] * (most + 1) + level.masked_fill(padding, most)) * columns
    key += index.masked_fill(padding, columns - 1)
    tied_key = (row * (most + 1) + ahead[row, image]) * columns + image
    ahead[row, image] = torch.searchsorted(key.flatten(), tied_key, right=True) - row * most

    histogram = torch.zeros(rows, most + 1, dtype=torch.int64, device=distances.device)
    one = torch.ones(1, dtype=torch.int64, device=distances.device)
    histogram.scatter_add_(1, ahead, one.expand(rows, columns))
    # A gallery image with a positives ahead of it stands before positives a, a + 1, ...
    return histogram.cumsum(1)[:, :most], found


@torch.no_grad()
def top_matches(
    query_features: Tensor,
    gallery_features: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor,
    gallery_cams: Tensor,
    queries: Tensor,
    count: int = 10,
) -> list[Tensor]:
    """Rank lists: the nearest gallery images of the chosen queries, junk removed, as `rank` orders.

    Args:
        queries: integer [N], which queries.
        count: how many gallery images; a list is shorter where the gallery is.
        The rest as for `rank`.

    Returns:
        For each chosen query an int64 tensor of at most `count` gallery indices, nearest first.

    Raises:
        ValueError: as `rank`, and where a chosen query does not exist.
    """
    query_features, gallery_features = check_features(query_features, gallery_features)
    matches = Matches(
        query_ids, gallery_ids, query_cams, gallery_cams,
        len(query_features), len(gallery_features), query_features.device,
    )
    check_positive("count", count)
    distances = Distances(query_features, gallery_features)
    lists = []
    for query in torch.as_tensor(queries).tolist():
        if not 0 <= query < len(query_features):
            raise ValueError(f"queries must be 0..{len(query_features) - 1}, found {query}")
        candidates, _, junk = matches.tile(query, query + 1)
        order = distances.tile(query, query + 1)[0].sort(stable=True).indices
        order = order[~torch.isin(order, candidates[junk])]
        lists.append(order[:count].cpu())
    return lists


class Distances:
    """Distances of queries to the gallery, a tile of rows at a time, in a form that keeps order.

    A row holds |g|^2 - 2 q.g: the squared Euclidean distance without |q|^2, which is the same for
    the whole row. Leaving it out saves a rounding; the value may be negative.
    """

    def __init__(self, query: Tensor, gallery: Tensor):
        small = len(query) * gallery.numel() <= SMALL_PRODUCT
        if query.dtype == torch.float32 and (small or _needs_double(query, gallery)):
            query, gallery = query.double(), gallery.double()
        self.query, self.gallery = query, gallery
        self.square = _per_row(gallery, lambda rows: rows.square().sum(1))  # [G]
        self.copies, self.originals = _copies(gallery)

    def tile(self, start: int, stop: int) -> Tensor:
        """Rows start..stop, [stop - start, G], a new tensor that the caller may overwrite."""
        with _full_precision(self.query.device.type):
            rows = torch.addmm(self.square, self.query[start:stop], self.gallery.T, alpha=-2)
        if len(self.copies):
            rows[:, self.copies] = rows[:, self.originals]
        return rows


class Matches:
    """Which gallery images share a query's identity, by one grouping of the gallery by identity."""

    def __init__(
        self,
        query_ids: Tensor,
        gallery_ids: Tensor,
        query_cams: Tensor,
        gallery_cams: Tensor,
        queries: int,
        gallery: int,
        device: torch.device,
    ):
        self.query_ids = check_labels("query_ids", query_ids, queries, device)
        gallery_ids = check_labels("gallery_ids", gallery_ids, gallery, device)
        self.query_cams = check_labels("query_cams", query_cams, queries, device)
        self.gallery_cams = check_labels("gallery_cams", gallery_cams, gallery, device)
        for name, ids in (("query_ids", self.query_ids), ("gallery_ids", gallery_ids)):
            if ids.min() < 0:
                raise ValueError(
                    f"{name} must be >= 0, found {int(ids.min())} "
                    "(-1 marks junk, which is dropped when a data set is loaded)"
                )
        grouped, self.order = gallery_ids.sort(stable=True)
        self.start = torch.searchsorted(grouped, self.query_ids)  # [Q]
        self.count = torch.searchsorted(grouped, self.query_ids, right=True) - self.start  # [Q]

    def tile(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates, positive and junk of queries start..stop, as `count_ranks` takes them."""
        count = self.count[start:stop, None]  # [T, 1]
        most = max(int(count.max()), 1)
        step = torch.arange(most, device=self.order.device)
        same_id = step < count  # [T, M]
        place = (self.start[start:stop, None] + step).clamp(max=len(self.order) - 1)
        candidates = self.order[place].masked_fill(~same_id, 0)
        same_cam = self.gallery_cams[candidates] == self.query_cams[start:stop, None]
        return candidates, same_id & ~same_cam, same_id & same_cam


def _average_precision(ranks: Tensor, found: Tensor, rule: AveragePrecision) -> Tensor:
    """Average precision, float64 [T], of ranks [T, P] whose first found [T] entries are valid."""
    hit = torch.arange(1, ranks.shape[1] + 1)  # [P]
    precision = hit.double() / (ranks + 1)
    if rule == "trapezoidal":
        before = torch.where(ranks > 0, (hit - 1).double() / ranks.clamp(min=1), 1.0)
        precision = (precision + before) / 2
    precision = precision.masked_fill(hit > found[:, None], 0.0)
    return precision.cumsum(1)[:, -1] / found  # added one by one: padding changes no rounding


def _result(
    ap: Tensor, first_hits: Tensor, queries: Tensor, asked: int, max_rank: int
) -> RankResult:
    hits = torch.bincount(first_hits.clamp(max=max_rank), minlength=max_rank + 1)[:max_rank]
    cmc = hits.cumsum(0).double() / len(queries)
    return RankResult(float(ap.mean()), cmc, ap, queries, asked - len(queries))


def _needs_double(query: Tensor, gallery: Tensor) -> bool:
    """Whether the features differ by so little, against their size, that float32 loses the order.

    |g|^2 - 2 q.g is rounded by about 2**-24 of the squared norms; the differences that decide the
    order are of the size of the features' variance.
    """
    gallery_size, query_size = (
        torch.linalg.vector_norm(features, dim=1).double().square().mean()
        for features in (gallery, query)
    )
    variance = gallery_size - gallery.mean(0).double().square().sum()
    return bool(variance < 0.01 * (gallery_size + query_size))


def _copies(gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Gallery rows equal to another one, and that other one, both int64 [copies].

    Where a matrix product is split, equal rows may get sums rounded differently. Equal features
    must tie all the same, so a copy takes the distance of its original.
    """
    # Most rows differ from every other in a few columns already; only the rest is read whole.
    suspects = _hash_rows(gallery[:, :64])
    _, which, count = suspects.unique(return_inverse=True, return_counts=True)
    suspects = (count[which] > 1).nonzero().squeeze(1)
    if not len(suspects):
        return suspects, suspects
    hashes, order = _hash_rows(gallery[suspects]).sort(stable=True)
    order = suspects[order]
    starts = torch.ones(len(order), dtype=torch.bool, device=order.device)
    starts[1:] = hashes[1:] != hashes[:-1]
    originals = order[starts.nonzero().squeeze(1)[starts.cumsum(0) - 1]]  # of each of `order`
    copies, originals = order[~starts], originals[~starts]
    equal = (gallery[copies] == gallery[originals]).all(1)  # not mere equals in hash
    return copies[equal], originals[equal]


def _hash_rows(features: Tensor) -> Tensor:
    """int64 [N] of floating [N, D]: the same for equal rows, and nearly surely for no others."""
    bits = torch.int32 if features.dtype == torch.float32 else torch.int64
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (features.shape[1],), generator=generator)
    factors = factors.to(features.device)
    # Adding 0 makes -0 the 0 it equals. Integer sums wrap: exact in any order.
    return _per_row(features, lambda rows: ((rows + 0.0).view(bits).long() * factors).sum(1))


def _per_row(features: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """function(rows) over all rows [N, D] -> [N], in pieces, so that no copy of all is made."""
    rows = max(1, (1 << 20) // features.shape[1])
    return torch.cat([function(part) for part in features.split(rows)])


@contextlib.contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    """A matrix product in the features' own precision: no TF32, no bfloat16, no autocast."""
    settings = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    chosen = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, chosen):
            setting.fp32_precision = precision
