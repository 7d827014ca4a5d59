"""Ranking a gallery for each query: mAP, CMC and rank lists, by counting instead of sorting.

A positive is a gallery image of the query's identity from another camera; an image of the query's
identity AND camera is removed from that query's gallery. The rank of a positive (from 0) is the
number of kept gallery images nearer than it, plus those equally near that come earlier in the
gallery. `dsa_ext.count_ranks` finds all ranks of a query by placing each gallery distance once among
the query's few sorted positives, so nothing as long as the gallery is sorted, and only one tile of
the distance matrix is in memory at a time.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import dsa_ext
from dsareid.evaluation.arguments import (
    check_distances,
    check_features,
    check_finite,
    check_labels,
    check_positive,
    check_rule,
)

AveragePrecision = Literal["hits", "trapezoidal"]

# Distances held at once. A CPU tile of this size stays near its caches; a GPU wants more work.
_TILE_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 25}
# Of fewer queries a matrix product would only re-read the gallery; what a large gallery may cost at most.
_TILE_QUERIES, _TILE_BYTES = 128, 1 << 29
_PART = 1 << 21  # elements of the features that are converted, or copied, at once: 8 MiB of float32

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


class Distances(Protocol):
    """Distances of queries to a gallery, made a few rows at a time: what `rank_distances` can rank."""

    shape: tuple[int, int]  # queries, gallery
    dtype: torch.dtype  # float32 or float64
    device: torch.device

    def rows(self, start: int, stop: int) -> Tensor:
        """Distances of queries start..stop, [stop - start, G], which the next call may overwrite."""


@torch.no_grad()
def rank(
    query_features: Tensor | np.ndarray,
    gallery_features: Tensor | np.ndarray,
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

    Features may be larger than memory: arrays that numpy maps from a file are read as they lie, once for
    each tile of queries and three or four times before. Beyond them a tile of the distances is in memory, at
    most 512 MiB, and some 100 bytes for each image; float16 features are converted in parts of a few MB.

    Args:
        query_features: floating [Q, D], a tensor or an array, used as they are: normalising is the
            caller's.
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
    features = check_features(query_features, gallery_features)
    labels = query_ids, gallery_ids, query_cams, gallery_cams
    matches = Matches(*labels, *map(len, features), features[0].device)
    check_positive("max_rank", max_rank)
    check_rule(average_precision)
    if tile is not None:
        check_positive("tile", tile)
    return _rank_tiles(FeatureDistances(*features), matches, tile, max_rank, average_precision)


@torch.no_grad()
def rank_distances(
    distances: Tensor | Distances,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor,
    gallery_cams: Tensor,
    max_rank: int = 50,
    *,
    average_precision: AveragePrecision = "hits",
) -> RankResult:
    """Rank the gallery for every query by distances that are there already, re-ranked ones say.

    The rules are those of `rank`, and the result is exact for the distances given: only their order
    within a row matters, so squared distances, or the negative of a similarity, give the same.

    Args:
        distances: floating [Q, G], only read. Infinity is a distance like any other, behind all
            finite ones; infinite distances tie among each other. NaN is not. Or what makes them a few
            rows at a time, as `FeatureDistances` and `k_reciprocal` do.
        query_ids, query_cams: integer [Q].
        gallery_ids, gallery_cams: integer [G].
        max_rank: length of the CMC.
        average_precision: as for `rank`.

    Raises:
        ValueError: an argument has a wrong type, shape, dtype or value (it is named), distances
            hold a NaN, or no query has a match in the gallery.
    """
    if not hasattr(distances, "rows"):
        check_distances(distances)
        distances = _Ready(distances)
    labels = query_ids, gallery_ids, query_cams, gallery_cams
    matches = Matches(*labels, *distances.shape, distances.device)
    check_positive("max_rank", max_rank)
    check_rule(average_precision)
    # Tiles bound the memory of copies; what is counted as it lies is counted in one go.
    whole = isinstance(distances, _Ready) and distances.as_it_lies and distances.device == matches.device
    tile = distances.shape[0] if whole else None
    return _rank_tiles(distances, matches, tile, max_rank, average_precision)


class _Ready:
    """Distances that are there already."""

    def __init__(self, distances: Tensor):
        self.distances, self.shape, self.device = distances, tuple(distances.shape), distances.device
        self.dtype = torch.float64 if distances.dtype == torch.float64 else torch.float32

    @property
    def as_it_lies(self) -> bool:
        """Whether rows are counted where they are; others are copied."""
        return self.distances.dtype in (torch.float32, torch.float64) and self.distances.stride(1) == 1

    def rows(self, start: int, stop: int) -> Tensor:
        part = self.distances[start:stop]
        if part.amax().isnan():
            query = start + int(part.isnan().any(1).nonzero()[0])
            raise ValueError(f"distances must not be NaN, found one of query {query}")
        return part.to(self.dtype)  # float16 fits in exactly


def tile_of(distances: Distances, positives: int = 0) -> int:
    """How many queries to handle at once, with a distance to each image and so many ranks each."""
    gallery = distances.shape[1]
    elements = _TILE_ELEMENTS.get(distances.device.type, _TILE_ELEMENTS["cpu"])
    most = _TILE_BYTES // (distances.dtype.itemsize * gallery + 48 * positives)
    return max(1, min(256, max(_TILE_QUERIES, elements // gallery), most))


def _rank_tiles(
    distances: Distances, matches: "Matches", tile: int | None, max_rank: int, rule: AveragePrecision
) -> RankResult:
    queries = len(matches.query_ids)
    tile = tile_of(distances, int(matches.count.max())) if tile is None else tile
    first_hits, precisions, counted = [], [], []
    # The bar comes for rankings that take seconds, and goes away when they are done.
    with tqdm(total=queries, desc="ranking", unit="query", leave=False, delay=2, disable=None) as bar:
        for start in range(0, queries, tile):
            stop = min(start + tile, queries)
            rows = distances.rows(start, stop).to(matches.device)
            ranks, found = dsa_ext.count_ranks(rows, *matches.tile(start, stop))
            ranks, found = ranks.cpu(), found.cpu()  # little from here on
            has_match = found > 0
            counted.append(start + has_match.nonzero().squeeze(1))
            ranks, found = ranks[has_match], found[has_match]
            first_hits.append(ranks[:, 0].clone())  # and no more of them stays in memory
            precisions.append(_average_precision(ranks, found, rule))
            bar.update(stop - start)
    counted = torch.cat(counted)
    if not len(counted):
        raise ValueError(
            "no query has a match: no image in the gallery has the identity of a query and another camera"
        )
    return _result(torch.cat(precisions), torch.cat(first_hits), counted, queries, max_rank)


@torch.no_grad()
def top_matches(
    query_features: Tensor | np.ndarray,
    gallery_features: Tensor | np.ndarray,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor,
    gallery_cams: Tensor,
    queries: Tensor,
    count: int = 10,
) -> list[Tensor]:
    """Rank lists: the nearest gallery images of the chosen queries, junk removed, as `rank` orders.

    The arguments that are not listed are those of `rank`.

    Args:
        queries: integer [N], which queries.
        count: how many gallery images; a list is shorter where the gallery is.

    Returns:
        For each chosen query an int64 tensor of at most `count` gallery indices, nearest first.

    Raises:
        ValueError: as `rank`, and where a chosen query does not exist.
    """
    distances = FeatureDistances(query_features, gallery_features)
    labels = query_ids, gallery_ids, query_cams, gallery_cams
    return [places for places, _ in top_by_distances(distances, *labels, queries, count)]


@torch.no_grad()
def top_by_distances(
    distances: Distances,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor,
    gallery_cams: Tensor,
    queries: Tensor,
    count: int = 10,
) -> list[tuple[Tensor, Tensor]]:
    """As `top_matches`, in the order of `rank_distances`: gallery indices and their distances."""
    labels = query_ids, gallery_ids, query_cams, gallery_cams
    matches = Matches(*labels, *distances.shape, distances.device)
    check_positive("count", count)
    lists = []
    for query in torch.as_tensor(queries).tolist():
        if not 0 <= query < distances.shape[0]:
            raise ValueError(f"queries must be 0..{distances.shape[0] - 1}, found {query}")
        near, order = (part.cpu() for part in distances.rows(query, query + 1)[0].sort(stable=True))
        kept = ~torch.isin(order, matches.junk(query).cpu())
        lists.append((order[kept][:count], near[kept][:count]))
    return lists


class FeatureDistances:
    """Euclidean distances of queries to the gallery by their features, in a form that keeps the order.

    A row holds |g|^2 - 2 q.g: the squared distance without |q|^2, which is the same for the whole row.
    Leaving it out saves a rounding; the value may be negative. Nothing of the size of the gallery is made but
    a row for each query of a tile: features that need converting are converted in parts.

    Args:
        query, gallery: floating [Q, D] and [G, D], tensors or arrays, as for `rank`.
        removed: int64, on the same device, gallery images that stand behind all others, infinitely far.

    Raises:
        ValueError: a wrong type, shape, dtype or device, or features that are not finite.
    """

    def __init__(
        self, query: Tensor | np.ndarray, gallery: Tensor | np.ndarray, removed: Tensor | None = None
    ):
        query, gallery = check_features(query, gallery)
        self.query, self.gallery, self.removed = query, gallery, removed
        self.shape, self.device = (len(query), len(gallery)), query.device
        self.dtype = query.dtype if query.dtype == torch.float64 else torch.float32
        squares = [_squares(features, self.dtype) for features in (query, gallery)]
        for name, found in zip(("query_features", "gallery_features"), squares):
            check_finite(name, found)
        small = len(query) * gallery.numel() <= SMALL_PRODUCT
        if self.dtype == torch.float32 and (small or _needs_double(*squares, gallery)):
            self.dtype = torch.float64
            squares = [_squares(features, self.dtype) for features in (query, gallery)]
        self.query_square, self.square = squares  # [Q], [G]
        self.copies, self.originals = _copies(gallery)
        self.memory = torch.empty(0, len(gallery), dtype=self.dtype, device=self.device)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop, [stop - start, G], in memory that the next call overwrites."""
        if stop - start > len(self.memory):  # fresh pages cost a tenth of the product
            self.memory = self.memory.new_empty(stop - start, len(self.gallery))
        rows = self.memory[: stop - start]
        self.product(start, stop, rows)
        # In parts, as most of the gallery may be copies.
        step = _rows_of(len(rows))
        for copies, originals in zip(self.copies.split(step), self.originals.split(step)):
            rows[:, copies] = rows[:, originals]
        if self.removed is not None:
            rows.index_fill_(1, self.removed, float("inf"))
        return rows

    def product(self, start: int, stop: int, out: Tensor) -> None:
        """Fill out [stop - start, G] with what the matrix product gives, where copies may not tie."""
        query = self.query[start:stop].to(self.dtype)
        as_it_lies = self.gallery.dtype == self.dtype
        step = len(self.gallery) if as_it_lies else _rows_of(self.gallery.shape[1])
        with _full_precision(self.device.type):
            for first in range(0, len(self.gallery), step):
                part = slice(first, first + step)
                gallery = self.gallery[part].to(self.dtype)
                torch.addmm(self.square[part], query, gallery.T, alpha=-2, out=out[:, part])


class Matches:
    """Which gallery images share a query's identity, by one grouping of the gallery by identity.

    It lives on the features' device where dsa_ext counts there, else on the CPU.
    """

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
        served = device.type == "cuda" and dsa_ext.CUDA_ERROR is None
        self.device = device if served else torch.device("cpu")
        self.query_ids = check_labels("query_ids", query_ids, queries, self.device)
        self.gallery_ids = check_labels("gallery_ids", gallery_ids, gallery, self.device)
        self.query_cams = check_labels("query_cams", query_cams, queries, self.device)
        self.gallery_cams = check_labels("gallery_cams", gallery_cams, gallery, self.device)
        for name, ids in (("query_ids", self.query_ids), ("gallery_ids", self.gallery_ids)):
            if ids.min() < 0:
                raise ValueError(
                    f"{name} must be >= 0, found {int(ids.min())} "
                    "(-1 marks junk, which is dropped when a data set is loaded)"
                )
        grouped, self.members = self.gallery_ids.sort(stable=True)
        self.first = torch.searchsorted(grouped, self.query_ids)  # [Q]
        self.count = torch.searchsorted(grouped, self.query_ids, right=True) - self.first  # [Q]

    def tile(self, start: int, stop: int) -> tuple[Tensor, ...]:
        """What `dsa_ext.count_ranks` takes after the distances of queries start..stop."""
        rows = slice(start, stop)
        return self.members, self.first[rows], self.count[rows], self.query_cams[rows], self.gallery_cams

    def junk(self, query: int) -> Tensor:
        """Gallery indices of the query's identity and camera, int64 [junk]."""
        same_id = self.members[self.first[query] :][: self.count[query]]
        return same_id[self.gallery_cams[same_id] == self.query_cams[query]]

    def junk_count(self) -> Tensor:
        """How many gallery images are junk to each query, int64 [Q]."""
        ids = torch.cat([self.query_ids, self.gallery_ids])
        cams = torch.cat([self.query_cams, self.gallery_cams])
        pairs, pair = torch.stack([ids, cams], 1).unique(dim=0, return_inverse=True)
        queries = len(self.query_ids)
        return pair[queries:].bincount(minlength=len(pairs))[pair[:queries]]


def _average_precision(ranks: Tensor, found: Tensor, rule: AveragePrecision) -> Tensor:
    """Average precision, float64 [T], of ranks [T, P] whose first found [T] entries are valid."""
    hit = torch.arange(1, ranks.shape[1] + 1)  # [P]
    precision = hit.double() / (ranks + 1)
    if rule == "trapezoidal":
        before = torch.where(ranks > 0, (hit - 1).double() / ranks.clamp(min=1), 1.0)
        precision = (precision + before) / 2
    precision = precision.masked_fill(hit > found[:, None], 0.0)
    return precision.cumsum(1)[:, -1] / found  # added one by one: padding changes no rounding


def _result(ap: Tensor, first_hits: Tensor, queries: Tensor, asked: int, max_rank: int) -> RankResult:
    hits = torch.bincount(first_hits.clamp(max=max_rank), minlength=max_rank + 1)[:max_rank]
    cmc = hits.cumsum(0).double() / len(queries)
    return RankResult(float(ap.mean()), cmc, ap, queries, asked - len(queries))


def _squares(features: Tensor, dtype: torch.dtype) -> Tensor:
    """The squared norm of each row [N, D], in `dtype`, [N]."""
    return _in_parts(lambda rows: rows.to(dtype).square().sum(1), features, features.shape[1], dtype)


def _needs_double(query_squares: Tensor, gallery_squares: Tensor, gallery: Tensor) -> bool:
    """Whether the features differ by so little, against their size, that float32 loses the order.

    |g|^2 - 2 q.g is rounded by about 2**-24 of the squared norms; the differences that decide the
    order are of the size of the features' variance.
    """
    gallery_size, query_size = (squares.double().mean() for squares in (gallery_squares, query_squares))
    mean = sum(part.float().sum(0).double() for part in gallery.split(_rows_of(gallery.shape[1])))
    mean = mean / len(gallery)  # [D]
    variance = gallery_size - mean.square().sum()
    return bool(variance < 0.01 * (gallery_size + query_size))


def _copies(gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Gallery rows equal to another one, and that other one, both int64 [copies].

    Where a matrix product is split, equal rows may get sums rounded differently. Equal features
    must tie all the same, so a copy takes the distance of its original.
    """
    # Most rows differ from every other in a few columns already; only the rest is read whole.
    width = gallery.shape[1]
    hashes = _in_parts(_hash_rows, gallery[:, :64], min(width, 64), torch.int64)
    _, which, count = hashes.unique(return_inverse=True, return_counts=True)
    suspects = (count[which] > 1).nonzero().squeeze(1)
    if not len(suspects):
        return suspects, suspects
    hashes = _in_parts(lambda some: _hash_rows(gallery[some]), suspects, width, torch.int64)
    hashes, order = hashes.sort(stable=True)
    order = suspects[order]
    starts = torch.ones(len(order), dtype=torch.bool, device=order.device)
    starts[1:] = hashes[1:] != hashes[:-1]
    originals = order[starts.nonzero().squeeze(1)[starts.cumsum(0) - 1]]  # of each of `order`
    pairs = torch.stack([order[~starts], originals[~starts]], 1)  # [copies, 2]

    def equal(pairs: Tensor) -> Tensor:  # not mere equals in hash
        return (gallery[pairs[:, 0]] == gallery[pairs[:, 1]]).all(1)

    pairs = pairs[_in_parts(equal, pairs, width, torch.bool)]
    copies, originals = pairs.unbind(1)
    return copies.contiguous(), originals.contiguous()


def _hash_rows(features: Tensor) -> Tensor:
    """int64 [N] of floating [N, D]: the same for equal rows, and nearly surely for no others."""
    features = features if features.dtype == torch.float64 else features.float()
    bits = torch.int32 if features.dtype == torch.float32 else torch.int64
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (features.shape[1],), generator=generator)
    factors = factors.to(features.device)
    # Adding 0 makes -0 the 0 it equals. Integer sums wrap: exact in any order.
    return ((features + 0.0).view(bits).long() * factors).sum(1)


def _in_parts(function: Callable[[Tensor], Tensor], rows: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """function(rows) -> [N] for rows [N, ...], in parts, so that no copy of all is made; it handles `width`
    elements a row."""
    # Not joined at the end: malloc does not use the memory of a part again for the next, if the small result
    # lies behind it, and would need as much as a copy of all.
    found = torch.empty(len(rows), dtype=dtype, device=rows.device)
    step = _rows_of(width)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = function(rows[part])
    return found


def _rows_of(width: int) -> int:
    """How many rows of so many elements make a part."""
    return max(1, _PART // width)


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
