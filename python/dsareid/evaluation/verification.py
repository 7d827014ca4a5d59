"""Verification of pairs of images: the share of same-person pairs that a distance threshold accepts.

A pair is a query and a gallery image that the same-camera rule keeps. Two histograms of the distances cover
all thresholds at once, so no pair is kept in memory. A cell is at most 1/4,096 of its distance wide, and
thresholds are edges of cells: TPR is at most that of the best threshold, and the false-positive rate is never
above the requested one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

RATES = 1e-2, 1e-3, 1e-4
"""The false-positive rates of evaluations."""
_DROPPED = 11  # low bits of a float32; 12 of its fraction stay
_CELLS = 1 << (32 - _DROPPED)
_PART = 1 << 21  # distances that are counted at once


class PairCounts:
    """Histograms of the distances of pairs that show the same person, and of pairs that show two.

    Args:
        device: the distances' device.
    """

    def __init__(self, device: torch.device):
        self.same, self.other = (torch.zeros(_CELLS, dtype=torch.int64, device=device) for _ in range(2))

    def add(self, distances: Tensor, same: Tensor, junk: Tensor, removed: int) -> None:
        """Count a tile of pairs.

        Args:
            distances: floating [T, G], comparable between queries.
            same, junk: int64 [n, 2], row and column of pairs that show one person, and of those that do not
                count, none of which is in `same`.
            removed: how many columns do not count; they are infinite, and not in `same` or `junk`.
        """
        for part in distances.split(max(1, _PART // distances.shape[1])):
            self.other += self._histogram(part.flatten())
        same_cells, junk_cells = (self._histogram(distances[at[:, 0], at[:, 1]]) for at in (same, junk))
        self.same += same_cells
        self.other -= same_cells + junk_cells
        infinite = _cells(distances.new_tensor([torch.inf]))
        self.other[infinite] -= removed * len(distances)

    def shares(self, rates: Sequence[float]) -> list[float]:
        """TPR at each false-positive rate: the share of same-person pairs below the highest threshold with at
        most that share of the other pairs below it. NaN without same-person pairs, or with too few others
        to allow a single false positive."""
        below = [torch.cat([x.new_zeros(1), x.cumsum(0)]).cpu() for x in (self.same, self.other)]
        same, other = (int(x[-1]) for x in below)
        allowed = torch.tensor([int(rate * other) for rate in rates])
        # The last edge with at most so many below.
        edges = torch.searchsorted(below[1], allowed, right=True) - 1
        shares = below[0][edges].double() / same  # NaN without pairs
        return shares.masked_fill(allowed == 0, torch.nan).tolist()

    def below(self, distance: float) -> tuple[int, int]:
        """How many pairs of one person, and of two, lie in cells below that of a distance."""
        cell = int(_cells(torch.tensor([distance])))
        return int(self.same[:cell].sum()), int(self.other[:cell].sum())

    def _histogram(self, distances: Tensor) -> Tensor:
        return torch.bincount(_cells(distances), minlength=_CELLS)


def _cells(distances: Tensor) -> Tensor:
    """The cell of each distance [n], int32, ascending with the distance: the bits of a float32, reordered so
    that they ascend, without the lowest."""
    bits = distances.float().view(torch.int32)
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ascending >> _DROPPED) + _CELLS // 2


def cell_starts(cells: np.ndarray) -> np.ndarray:
    """The least distance of each cell, float64 [n]: what lies below it, lies in a cell before it."""
    ascending = ((cells - _CELLS // 2) << _DROPPED).astype(np.int32)
    bits = ascending ^ ((ascending >> 31) & 0x7FFFFFFF)
    return bits.view(np.float32).astype(np.float64)
