"""k-reciprocal re-ranking (Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR
2017) without a matrix of all pairs of images.

The paper's steps, over the N = Q + G images of query and gallery:
1. N(p, k): p itself and its k nearest others. R(p, k): those g of N(p, k) with p in N(g, k).
2. R*(p): R(p, k1) joined by R(q, k1/2) of each q in R(p, k1) that shares at least two thirds of it.
3. V_p: exp(-d(p, g)) for g in R*(p), 0 elsewhere; scaled to a sum of 1.
4. Local query expansion: V_p becomes the mean of the V of p and its k2 - 1 nearest others.
5. Jaccard distance: 1 - sum min(V_p, V_g) / sum max(V_p, V_g).
6. The final distance: (1 - lambda) Jaccard + lambda d(p, g).

What the paper leaves open is as in its authors' code: d(p, g) is the squared Euclidean distance divided by
the largest from p to any image; k1/2 is rounded, to the even number if it lies between two; V has a sum of 1.
"At least two thirds" is the paper's; their code asks for more. Equally near images are in the order of query,
then gallery; an image stands before its copies.

Memory holds, for each image, k1 + 1 neighbours and the nonzero weights, some hundred: it grows with N, not
with N^2.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from tqdm import tqdm

from dsareid.evaluation.arguments import check_positive
from dsareid.evaluation.distances import FeatureDistances, tile_of
from dsareid.evaluation.nearest import smallest

_BLOCK = 2048  # images whose sets are made at once
_PAIRS = 1 << 12  # pairs whose distances are computed at once
_TOGETHER = 1 << 18  # weights that are compared at once


@torch.no_grad()
def k_reciprocal(
    query: Tensor | np.ndarray, gallery: Tensor | np.ndarray, k1: int = 20, k2: int = 6, lambda_: float = 0.3
) -> "Reranked":
    """Re-ranked distances, for `Ranking`; the number of feature products grows with (Q + G)^2.

    Args:
        query, gallery: floating [Q, D] and [G, D] as for `rank`; one copy of both is made.
        k1: how many neighbours are compared; all images if there are fewer.
        k2: how many neighbours, including the image itself, weights are averaged over.
        lambda_: share of the feature distance in the final distance.

    Raises:
        ValueError: an argument has a wrong type, shape or value (it is named).
    """
    check_positive("k1", k1)
    check_positive("k2", k2)
    if not isinstance(lambda_, int | float) or not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ must be a number from 0 to 1, not {lambda_!r}")
    distances = FeatureDistances(query, gallery)
    images = torch.cat([distances.query, distances.gallery])  # [N, D]
    neighbours, largest = _neighbours(FeatureDistances(images, images), max(k1 + 1, k2))
    weights = _encode(images, neighbours, largest, k1)
    nearest = _indicator(neighbours[:, :k2])
    weights = nearest.astype(np.float64) @ weights / min(k2, len(images))
    return Reranked(distances, largest[: distances.shape[0]], weights, lambda_)


class Reranked:
    """The result of k_reciprocal: final distances to the gallery, float64 on the CPU, a few rows at a time.

    Args:
        distances: the feature distances.
        largest: float64 [Q], the largest squared distance of each query to any image.
        weights: V, [N, N].
        lambda_: share of the feature distance in the final distance.
    """

    removed: Tensor | None = None
    query_square: Tensor | None = None

    def __init__(
        self, distances: FeatureDistances, largest: Tensor, weights: sparse.csr_array, lambda_: float
    ):
        self.distances, self.largest, self.lambda_ = distances, largest, lambda_
        self.shape, self.dtype, self.device = distances.shape, torch.float64, torch.device("cpu")
        self.memory = np.empty((0, self.shape[1]))
        queries = self.shape[0]
        self.weights = weights[:queries]  # [Q, N]
        # [G, N], by column: for each image, the gallery images that have it in V.
        self.inverted = weights[queries:].tocsc()

    def rows(self, start: int, stop: int) -> Tensor:
        """Distances of queries start..stop, [stop - start, G], in memory that the next call overwrites."""
        if stop - start > len(self.memory):
            self.memory = np.empty((stop - start, self.shape[1]))
        near = self.distances.rows(start, stop).add_(self.distances.query_square[start:stop, None])
        near = near.clamp_(min=0).div_(self.largest[start:stop, None])
        # A row at a time: large arrays, allocated and freed for every tile, would fragment the memory.
        for query, plain, final in zip(range(start, stop), near.cpu().numpy(), self.memory):
            shared = self._shared(query)
            jaccard = 1 - shared / (2 - shared)  # both sum to 1: min and max together to 2
            final[:] = (1 - self.lambda_) * jaccard + self.lambda_ * plain
        return torch.from_numpy(self.memory[: stop - start])

    def _shared(self, query: int) -> np.ndarray:
        """sum min(V_query, V_g) for all gallery images g, float64 [G]."""
        nonzero = slice(*self.weights.indptr[query : query + 2])
        images, weights = self.weights.indices[nonzero], self.weights.data[nonzero]
        first = self.inverted.indptr[images]
        length = self.inverted.indptr[images + 1] - first
        shared = np.zeros(self.shape[1])
        for part in _groups(length):
            places = _ranges(first[part], length[part])
            smaller = np.minimum(self.inverted.data[places], np.repeat(weights[part], length[part]))
            shared += np.bincount(self.inverted.indices[places], smaller, self.shape[1])
        return shared


def _groups(length: np.ndarray) -> Iterator[slice]:
    """Cut lists of these lengths into groups of about _TOGETHER items."""
    cuts = np.flatnonzero(np.diff(length.cumsum(dtype=np.int64) // _TOGETHER)) + 1
    edges = [0, *cuts.tolist(), len(length)]
    return (slice(*pair) for pair in zip(edges, edges[1:]))


def _ranges(first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, ..., `length[0]` of them, then those of first[1]."""
    end = length.cumsum(dtype=np.int64)
    return np.arange(end[-1]) + np.repeat(first - (end - length), length)


# ---- neighbours ----


def _neighbours(distances: FeatureDistances, count: int) -> tuple[np.ndarray, Tensor]:
    """Each image with its nearest others, int64 [N, min(count, N)], nearest first, and its largest squared
    distance, float64 [N]; 1 if all images are equal."""
    images = distances.shape[0]
    neighbours = np.empty((images, min(count, images)), np.int64)
    largest = torch.ones(images, dtype=torch.float64, device=distances.device)
    tile = tile_of(distances)
    with tqdm(total=images, desc="neighbours", unit="image", leave=False, delay=2, disable=None) as bar:
        for start in range(0, images, tile):
            stop = min(start + tile, images)
            rows = distances.rows(start, stop)
            far = rows.amax(1).double() + distances.query_square[start:stop]
            largest[start:stop] = torch.where(far > 0, far, 1.0)
            here = torch.arange(stop - start, device=rows.device)
            rows[here, start + here] = -float("inf")  # itself first, whatever the rounding
            neighbours[start:stop] = smallest(rows, neighbours.shape[1])[1].cpu()
            bar.update(stop - start)
    return neighbours, largest


# ---- sets and weights ----


def _indicator(neighbours: np.ndarray) -> sparse.csr_array:
    """int32 [N, N], of neighbours [N, K]: 1 if the column's image is a neighbour of the row's."""
    images, count = neighbours.shape
    ones = np.ones(neighbours.size, np.int32)
    begin = np.arange(0, neighbours.size + 1, count)
    return sparse.csr_array((ones, neighbours.ravel(), begin), shape=(images, images))


def _reciprocal(neighbours: np.ndarray) -> sparse.csr_array:
    """R of all images, int32 [N, N]."""
    whom = _indicator(neighbours)
    return whom.multiply(whom.T).tocsr()


def _encode(images: Tensor, neighbours: np.ndarray, largest: Tensor, k1: int) -> sparse.csr_array:
    """V before the query expansion, float64 [N, N]."""
    close = _reciprocal(neighbours[:, : k1 + 1])
    closer = _reciprocal(neighbours[:, : round(k1 / 2) + 1])
    transposed, size = closer.T.tocsr(), closer.sum(1)
    parts = []
    for first in range(0, len(images), _BLOCK):
        reciprocal = close[first : first + _BLOCK]  # R
        shared = (reciprocal @ transposed).multiply(reciprocal).tocoo()  # how many of R(q, k1/2) are in R
        kept = 3 * shared.data >= 2 * size[shared.col]
        joined = sparse.csr_array(
            (shared.data[kept], (shared.row[kept], shared.col[kept])), shape=reciprocal.shape
        )
        members = (reciprocal + joined @ closer).tocsr()  # R*
        members.sort_indices()
        row = np.repeat(np.arange(len(reciprocal.indptr) - 1), np.diff(members.indptr))
        weights = np.exp(-_pair_distances(images, first + row, members.indices, largest))
        weights /= np.bincount(row, weights)[row]
        parts.append(sparse.csr_array((weights, members.indices, members.indptr), shape=reciprocal.shape))
    return sparse.vstack(parts, format="csr")


def _pair_distances(images: Tensor, one: np.ndarray, other: np.ndarray, largest: Tensor) -> np.ndarray:
    """d(one, other) of pairs of images, float64 [P]."""
    found = torch.empty(len(one), dtype=torch.float64, device=images.device)
    pairs = torch.from_numpy(np.stack([one, other.astype(np.int64)])).to(images.device)
    for a, b, part in zip(pairs[0].split(_PAIRS), pairs[1].split(_PAIRS), found.split(_PAIRS)):
        part[:] = (images[a].double() - images[b].double()).square_().sum(1) / largest[a]
    return found.cpu().numpy()
