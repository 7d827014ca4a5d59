"""Pairs of images that show one person or two: the share of the former that a threshold accepts.

A pair is a query and a gallery image, without what the same-camera rule removes. All thresholds are looked at
together, by two histograms of the distances, so that no pair is kept in memory. A threshold is the edge of
one of BINS cells: so TPR is at most what the best threshold gives, and the false-positive rate never above
the one that is asked for.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RATES = 1e-2, 1e-3, 1e-4
"""False-positive rates that are asked for."""
BINS = 1 << 16


_PART = 1 << 21  # distances that are put into cells at once


class PairCounts:
    """Histograms of the distances of pairs, of one person and of two.

    Args:
        most: the largest finite distance; larger ones are in the last cell.
        device: where distances are.
    """

    def __init__(self, most: float, device: torch.device):
        self._scale = BINS / most if most > 0 else 1.0
        self.same, self.other = (torch.zeros(BINS, dtype=torch.int64, device=device) for _ in range(2))

    def add(self, distances: Tensor, same: Tensor, junk: Tensor, removed: int) -> None:
        """Count a tile of pairs.

        Args:
            distances: floating [T, G], comparable between queries.
            same, junk: int64 [n, 2], row and column of pairs that show one person, and of those that do not
                count, none of which is in `same`.
            removed: how many columns do not count, all of them infinite, none of them in `same` or `junk`.
        """
        for part in distances.split(max(1, _PART // distances.shape[1])):
            self.other += self._histogram(part.flatten())
        own, left_out = (self._histogram(distances[at[:, 0], at[:, 1]]) for at in (same, junk))
        self.same += own
        self.other -= own + left_out
        self.other[-1] -= removed * len(distances)

    def shares(self, rates: Sequence[float]) -> list[float]:
        """TPR: the share of pairs of one person below a threshold below which lie at most these shares of the
        pairs of two. NaN where there are none of either."""
        below = [torch.cat([x.new_zeros(1), x.cumsum(0)]).cpu() for x in (self.same, self.other)]
        same, other = (int(x[-1]) for x in below)
        if not same or not other:
            return [float("nan")] * len(rates)
        allowed = torch.tensor([int(rate * other) for rate in rates])
        edges = torch.searchsorted(below[1], allowed, right=True) - 1  # the last edge with so few below
        return (below[0][edges].double() / same).tolist()

    def _histogram(self, distances: Tensor) -> Tensor:
        cells = (distances * self._scale).clamp_(0, BINS - 1).int()
        return torch.bincount(cells, minlength=BINS)
