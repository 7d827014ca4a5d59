"""Ranking a gallery for each query: mAP, CMC and rank lists, by counting instead of sorting.

A positive is a gallery image of the query's identity from another camera; an image of the query's
identity AND camera is removed from that query's gallery. The rank of a positive (from 0) is the
number of kept gallery images nearer than it, plus those equally near that come earlier in the
gallery. `dsa_ext.count_ranks` finds all ranks of a query by placing each gallery distance once among
the query's few sorted positives, so nothing as long as the gallery is sorted, and only one tile of
the distance matrix is in memory at a time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import dsa_ext
from dsareid.evaluation.arguments import check_positive
from dsareid.evaluation.distances import Distances, FeatureDistances, MatrixDistances, tile_of
from dsareid.evaluation.nearest import smallest
from dsareid.evaluation.open_set import Nearest, OpenSet
from dsareid.evaluation.positives import Labels, Positives
from dsareid.evaluation.verification import PairCounts

_NO_MATCH = (
    "no query has a match: no gallery image shows a query's identity from another camera, and the "
    "same-camera rule removes those from the query's own"
)


@dataclass(frozen=True)
class RankResult:
    """What `rank`, `Ranking` and `chance` return; fractions of 1, float64 tensors on the CPU.

    Attributes:
        mAP: mean of `ap`.
        cmc: [max_rank]; cmc[k - 1] is the share of counted queries with a match in the first k.
        ap: [counted queries], average precision of each counted query.
        inp: [counted queries], the inverse negative penalty of each (Ye et al., TPAMI 2021): the number of
            its matches, divided by the place of the last one.
        first: int64 [counted queries], the place of its first match, from 1; empty for `chance`.
        queries: int64 [counted queries], the index of each counted query, ascending.
        skipped: number of queries that have no match in the gallery and are not counted.
        tpr: for each false-positive rate in `rates`, the true-positive rate over all pairs (see
            verification).
        open_set: if it was asked for, the images by which each query, counted or not, would be accepted.
    """

    mAP: float
    cmc: Tensor
    ap: Tensor
    inp: Tensor
    first: Tensor
    queries: Tensor
    skipped: int
    tpr: dict[float, float] = field(default_factory=dict)
    open_set: OpenSet | None = None

    @property
    def mINP(self) -> float:
        """Mean of `inp`."""
        return float(self.inp.mean())


def rank(
    query_features: Tensor | np.ndarray,
    gallery_features: Tensor | np.ndarray,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor,
    gallery_cams: Tensor,
    max_rank: int = 50,
) -> RankResult:
    """Rank the gallery for every query by Euclidean distance.

    Gallery images with the query's identity and camera are removed; queries left without a match
    are skipped and not counted; CMC is averaged over the rest and stays flat if the gallery is
    shorter than `max_rank`; ties keep the gallery's order; AP is the mean of the precision at each
    hit. Every id >= 0 is treated alike.

    Distances are float32. They are float64 for float64 features, for small problems, and for features
    so close together, and so far from 0, that float32 would lose their differences. Features of whole
    numbers whose products and sums stay below 2**24 are ranked exactly, ties included, and equal
    gallery features always tie.

    Features may be larger than memory: arrays that numpy maps from a file are read in place, once for
    each tile of queries and three or four times before. Memory holds a tile of the distances, at most 512
    MiB, and some 100 bytes for each image; float16 features are converted in parts of a few MB.

    Args:
        query_features: floating [Q, D], a tensor or an array; they are not normalised
            here.
        gallery_features: the same dtype and device, [G, D].
        query_ids, query_cams: integer [Q].
        gallery_ids, gallery_cams: integer [G].
        max_rank: length of the CMC.

    Raises:
        ValueError: an argument has a wrong type, shape, dtype, device or value (it is named), or
            no query has a match in the gallery.
    """
    labels = Labels(query_ids, gallery_ids, query_cams, gallery_cams)
    return Ranking(FeatureDistances(query_features, gallery_features), labels).result(max_rank)


class Ranking:
    """The gallery ranked for each query by distances and the rules of `rank`: as figures, or as rank lists.

    The result is exact for the distances given: only their order within a row matters, so squared distances,
    or the negative of a similarity, give the same.

    Args:
        distances: `FeatureDistances`, the result of `k_reciprocal`, or a matrix, floating [Q, G], as for
            `MatrixDistances`.
        labels: identities and cameras of queries and gallery; those of removed images do not matter.

    Raises:
        ValueError: distances or labels have a wrong type, shape, dtype or value (it is named).
    """

    def __init__(self, distances: Distances | Tensor, labels: Labels):
        checked = distances if isinstance(distances, Distances) else MatrixDistances(distances)
        self.distances: Distances = checked
        self._positives = Positives(labels, checked.shape, checked.device, checked.removed)

    @torch.no_grad()
    def result(self, max_rank: int = 50, rates: Sequence[float] = (), open_set: bool = False) -> RankResult:
        """mAP, mINP, CMC up to `max_rank`, TPR at the false-positive rates `rates`, and the open set.

        Raises:
            ValueError: max_rank is below 1, no query has a match, or distances hold a NaN.
        """
        check_positive("max_rank", max_rank)
        distances, positives = self.distances, self._positives
        queries, tile = distances.shape[0], self._tile()
        first_hits, precisions, penalties, counted = [], [], [], []
        pairs = PairCounts(positives.device) if rates else None
        nearest = Nearest() if open_set else None
        # The bar appears only if the ranking takes seconds.
        with tqdm(total=queries, desc="ranking", unit="query", leave=False, delay=2, disable=None) as bar:
            for start in range(0, queries, tile):
                stop = min(start + tile, queries)
                rows = distances.rows(start, stop).to(positives.device)
                ranks, found = dsa_ext.count_ranks(rows, *positives.tile(start, stop))
                ranks, found = ranks.cpu(), found.cpu()  # small from here on
                has_match = found > 0
                counted.append(start + has_match.nonzero().squeeze(1))
                ranks, found = ranks[has_match], found[has_match]
                first_hits.append(ranks[:, 0].clone())  # a copy, so that the other ranks are freed
                precisions.append(_average_precision(ranks, found))
                penalties.append(_inverse_negative_penalty(ranks, found))
                if pairs or nearest:
                    self._comparable(rows, start, stop)
                if pairs:
                    self._count_pairs(pairs, rows, start, stop)
                if nearest:
                    nearest.add(rows, *positives.pairs(start, stop))
                bar.update(stop - start)
        return _result(
            torch.cat(precisions),
            torch.cat(penalties),
            torch.cat(first_hits),
            torch.cat(counted),
            queries - sum(map(len, counted)),
            max_rank,
            dict(zip(rates, pairs.shares(rates))) if pairs else {},
            nearest.result() if nearest else None,
        )

    @torch.no_grad()
    def pair_counts(self) -> PairCounts:
        """How many pairs lie at which distance: of one person, and of two.

        Raises:
            ValueError: distances hold a NaN.
        """
        pairs, (queries, tile) = PairCounts(self._positives.device), (self.distances.shape[0], self._tile())
        with tqdm(total=queries, desc="pairs", unit="image", leave=False, delay=2, disable=None) as bar:
            for start in range(0, queries, tile):
                stop = min(start + tile, queries)
                rows = self.distances.rows(start, stop).to(self._positives.device)
                self._comparable(rows, start, stop)
                self._count_pairs(pairs, rows, start, stop)
                bar.update(stop - start)
        return pairs

    def _comparable(self, rows: Tensor, start: int, stop: int) -> None:
        """Add their queries' squares to the rows of a tile, in place, if they lack them."""
        square = self.distances.query_square
        if square is not None:
            rows += square[start:stop, None].to(rows.device)

    def _count_pairs(self, pairs: PairCounts, rows: Tensor, start: int, stop: int) -> None:
        """Count the pairs of a tile, whose distances can be compared between queries."""
        removed = self.distances.removed
        pairs.add(rows, *self._positives.pairs(start, stop), 0 if removed is None else len(removed))

    def chance(self, max_rank: int = 50) -> RankResult:
        """The expected result for a random order of the gallery, in closed form: see `chance`.

        Raises:
            ValueError: max_rank is below 1, or no query has a match.
        """
        check_positive("max_rank", max_rank)
        return _expected(self._positives, max_rank)

    @torch.no_grad()
    def top(self, queries: Tensor | Sequence[int], count: int = 10) -> list[tuple[Tensor, Tensor]]:
        """The tops of the rank lists of some queries, junk removed.

        Args:
            queries: integer [N], which queries.
            count: how many gallery images; a list is shorter if the gallery is.

        Returns:
            For each of these queries at most `count` gallery indices, int64, nearest first, and their
            distances: Euclidean for `FeatureDistances`, otherwise as given.

        Raises:
            ValueError: count is below 1, or there is no such query.
        """
        check_positive("count", count)
        lists = []
        for query in torch.as_tensor(queries).tolist():
            if not 0 <= query < self.distances.shape[0]:
                raise ValueError(f"queries must be 0..{self.distances.shape[0] - 1}, found {query}")
            junk = self._positives.junk(query).cpu()
            found = smallest(self.distances.rows(query, query + 1), count + len(junk))
            near, images = (part[0].cpu() for part in found)
            kept = ~torch.isin(images, junk)
            if self.distances.removed is not None:  # they come after all others
                kept &= ~torch.isin(images, self.distances.removed.cpu())
            near, images = near[kept][:count], images[kept][:count]
            if isinstance(self.distances, FeatureDistances):  # whose rows lack the query's own square
                near = self.distances.euclidean(query, images).cpu()
            lists.append((images, near))
        return lists

    def _tile(self) -> int:
        """How many queries to rank at once: all if nothing is copied, else a tile, to bound the copies."""
        matrix = isinstance(self.distances, MatrixDistances) and self.distances.as_it_lies
        if matrix and self.distances.device == self._positives.device:
            return self.distances.shape[0]
        return tile_of(self.distances, int(self._positives.count.max()))


def chance(labels: Labels, max_rank: int = 50) -> RankResult:
    """The expected result of `rank` for a random order of the gallery, in closed form; it needs only labels.

    For a query with n matches among N kept gallery images, every order equally likely:

    - a match in the first k: 1 - (N-n)/N * (N-n-1)/(N-1) * ... (k factors);
    - place k holds a match with probability n / N, and then (n-1)/(N-1) of the k-1 places before
      it do, so AP is on average (1/N) * sum over k of (1 + (k-1) (n-1)/(N-1)) / k
      = (H + (n-1)/(N-1) * (N - H)) / N with the harmonic number H = 1 + 1/2 + ... + 1/N;
    - the last match is at place N with probability n / N, and at place k - 1 (k - n) / (k - 1) times as
      likely as at k; INP is n divided by that place.

    Raises:
        ValueError: as `rank`.
    """
    check_positive("max_rank", max_rank)
    for name, ids in (("query_ids", labels.query_ids), ("gallery_ids", labels.gallery_ids)):
        if not isinstance(ids, Tensor) or ids.ndim != 1 or not len(ids):
            raise ValueError(f"{name} must be a tensor [images], at least 1")
    shape = len(labels.query_ids), len(labels.gallery_ids)
    return _expected(Positives(labels, shape, labels.query_ids.device), max_rank)


def _expected(positives: "Positives", max_rank: int) -> RankResult:
    """The result by the formulas of `chance`."""
    junk = positives.junk_count()
    n, size = (positives.count - junk).cpu(), (positives.size - junk).cpu()
    queries = (n > 0).nonzero().squeeze(1)
    if not len(queries):
        raise ValueError(_NO_MATCH)
    n, size = n[queries].double(), size[queries].double()

    harmonic = (1 / torch.arange(1, positives.size + 1, dtype=torch.float64)).cumsum(0)
    h = harmonic[size.long() - 1]
    ap = (h + (n - 1) / (size - 1).clamp(min=1) * (size - h)) / size  # [queries]
    place = torch.arange(max_rank, dtype=torch.float64)  # [max_rank]
    misses = (size - n)[:, None] - place  # [queries, max_rank], wrong images left at each place
    miss = (misses.clamp(min=0) / (size[:, None] - place).clamp(min=1)).cumprod(1)
    inp = _expected_inp(n, size)
    none, skipped = torch.empty(0, dtype=torch.int64), len(junk) - len(queries)
    return RankResult(float(ap.mean()), (1 - miss).mean(0), ap, inp, none, queries, skipped)


def _expected_inp(n: Tensor, size: Tensor) -> Tensor:
    """Mean INP by the formula of `chance`, float64 [queries], for n and size, both [queries]."""
    kinds, kind = torch.stack([n, size], 1).unique(dim=0, return_inverse=True)
    found = []
    for matches, images in kinds.tolist():
        place = torch.arange(images, matches, -1, dtype=torch.float64)  # images, ..., matches + 1
        likely = torch.cat([place.new_ones(1), ((place - matches) / (place - 1)).cumprod(0)])
        places = torch.arange(images, matches - 1, -1, dtype=torch.float64)
        found.append(matches / images * (likely * matches / places).sum())
    return torch.stack(found)[kind]


def _average_precision(ranks: Tensor, found: Tensor) -> Tensor:
    """Average precision, float64 [T], of ranks [T, P] whose first found [T] entries are valid."""
    hit = torch.arange(1, ranks.shape[1] + 1)  # [P]
    precision = hit.double() / (ranks + 1)
    precision = precision.masked_fill(hit > found[:, None], 0.0)
    return precision.cumsum(1)[:, -1] / found  # added one by one: padding changes no rounding


def _inverse_negative_penalty(ranks: Tensor, found: Tensor) -> Tensor:
    """float64 [T], of ranks [T, P] whose first found [T] entries are valid."""
    last = ranks.gather(1, found[:, None] - 1).squeeze(1)
    return found.double() / (last + 1)


def _result(
    ap: Tensor,
    inp: Tensor,
    first_hits: Tensor,
    queries: Tensor,
    skipped: int,
    max_rank: int,
    tpr: dict[float, float],
    open_set: OpenSet | None,
) -> RankResult:
    if not len(queries):
        raise ValueError(_NO_MATCH)
    hits = torch.bincount(first_hits.clamp(max=max_rank), minlength=max_rank + 1)[:max_rank]
    cmc = hits.cumsum(0).double() / len(queries)
    return RankResult(float(ap.mean()), cmc, ap, inp, first_hits + 1, queries, skipped, tpr, open_set)
