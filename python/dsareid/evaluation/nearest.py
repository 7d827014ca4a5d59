"""Nearest neighbours: the smallest distances of each row, and an exact search of features in a file.

Rank lists, re-ranking and searching select by one rule, `smallest`. They differ in the distances: rank lists
and re-ranking take the ranking's; a search has no ranking to agree with, so it reads the gallery once, in
blocks, and orders by float64 distances.
"""

import numpy as np
import torch
from torch import Tensor

from dsareid.ground.errors import DSAError

_BLOCK_BYTES = 64 << 20  # of gallery features in memory at a time


def smallest(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The smallest values of each row, ascending, ties in the order of the columns.

    Args:
        rows: floating [T, G], without NaN; only read.
        count: at least 1.

    Returns:
        Values in the dtype of rows and their columns, int64, both [T, min(count, G)].
    """
    near, columns = rows.topk(min(count + 1, rows.shape[1]), largest=False)
    if near.shape[1] > count:
        columns = columns[:, :count].clone()
        cut = near[:, count - 1] == near[:, count]
        for row in cut.nonzero().squeeze(1).tolist():  # topk does not say which of equal values it takes
            last = near[row, count - 1]
            before, equal = (rows[row] < last).nonzero(), (rows[row] == last).nonzero()
            columns[row] = torch.cat([before, equal])[:count, 0]
    columns = columns.sort(1).values
    near, order = rows.gather(1, columns).sort(dim=1, stable=True)
    return near, columns.gather(1, order)


def nearest(query: Tensor, gallery: np.ndarray, count: int) -> tuple[Tensor, Tensor]:
    """The nearest rows of a gallery that need not fit into memory, by Euclidean distance.

    The result is exact: float64 distances decide, and ties are in the order of the gallery. They are computed
    only for rows that float32 distances, with a bound on their error, cannot rule out.

    Args:
        query: float32 [Q, D].
        gallery: float32 [G, D], which may be memory-mapped.
        count: at least 1.

    Returns:
        Distances float64 and rows of the gallery int64, both [Q, min(count, G)], nearest first.

    Raises:
        DSAError: a feature that is not finite.
    """
    best = torch.empty(len(query), 0, dtype=torch.float64)  # squared
    places = torch.empty(len(query), 0, dtype=torch.int64)
    step = max(1, _BLOCK_BYTES // (4 * gallery.shape[1]))
    for start in range(0, len(gallery), step):
        block = torch.from_numpy(np.array(gallery[start : start + step]))  # [n, D]
        found = _candidates(query, block, count, best)
        if found.isnan().any():
            row = start + int(found.isnan().any(0).nonzero()[0])
            raise DSAError(f"the features of row {row} of the gallery, or of a query, are not finite")
        here = torch.arange(start, start + len(block)).expand(len(query), -1)
        # Earlier rows stand before later ones, so ties keep the gallery's order.
        best, order = smallest(torch.cat([best, found], 1), count)
        places = torch.cat([places, here], 1).gather(1, order)
    return best.sqrt(), places


def _candidates(query: Tensor, block: Tensor, count: int, best: Tensor) -> Tensor:
    """Squared distances, float64 [Q, n], of rows that may be among the nearest; infinity for the others."""
    squares = [x.square().sum(1) for x in (query, block)]
    near = torch.addmm(squares[1], query, block.T, alpha=-2) + squares[0][:, None]  # [Q, n]
    # Sums of D products, each rounded: the norms bound the error, whatever the order of the sum.
    margin = 2 * query.shape[1] * 2**-24 * (squares[0].max().sqrt() + squares[1].max().sqrt()) ** 2
    limit = near.kthvalue(min(count, len(block)), dim=1).values.double() + margin
    if best.shape[1] == count:
        limit = torch.minimum(limit, best[:, -1])
    possible = ~(near.double() > limit[:, None] + margin)  # or NaN, which `nearest` reports
    found = torch.full(near.shape, torch.inf, dtype=torch.float64)
    for pairs in possible.nonzero().split(max(1, _BLOCK_BYTES // (8 * query.shape[1]))):
        one, other = pairs.unbind(1)
        found[one, other] = (query[one].double() - block[other].double()).square().sum(1)
    return found
