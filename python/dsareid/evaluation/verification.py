"""Pairs of images that show one person or two: the share of the former that a threshold accepts.

A pair is a query and a gallery image, without what the same-camera rule removes. All thresholds are looked at
together, by two histograms of the distances, so that no pair is kept in memory. Cells are as fine as a
4,096th of the distance, whatever its size, and a threshold is the edge of one: so TPR is at most what the
best threshold gives, and the false-positive rate never above the one that is asked for.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

RATES = 1e-2, 1e-3, 1e-4
"""False-positive rates that are asked for."""
_DROPPED = 11  # bits of a float32; 12 of its fraction stay
_CELLS = 1 << (32 - _DROPPED)
_PART = 1 << 21  # distances that are put into cells at once


class PairCounts:
    """Histograms of the distances of pairs, of one person and of two.

    Args:
        device: where distances are.
    """

    def __init__(self, device: torch.device):
        self.same, self.other = (torch.zeros(_CELLS, dtype=torch.int64, device=device) for _ in range(2))

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
        infinite = _cells(distances.new_tensor([torch.inf]))
        self.other[infinite] -= removed * len(distances)

    def shares(self, rates: Sequence[float]) -> list[float]:
        """TPR: the share of pairs of one person below a threshold below which lie at most these shares of the
        pairs of two. NaN where there are none of the former, or too few of the latter to allow one."""
        below = [torch.cat([x.new_zeros(1), x.cumsum(0)]).cpu() for x in (self.same, self.other)]
        same, other = (int(x[-1]) for x in below)
        allowed = torch.tensor([int(rate * other) for rate in rates])
        edges = torch.searchsorted(below[1], allowed, right=True) - 1  # the last edge with so few below
        shares = below[0][edges].double() / same  # NaN where there are none
        return shares.masked_fill(allowed == 0, torch.nan).tolist()

    def _histogram(self, distances: Tensor) -> Tensor:
        return torch.bincount(_cells(distances), minlength=_CELLS)


def _cells(distances: Tensor) -> Tensor:
    """The cells of distances [n], int32, in their order: the bits of a float32, made to ascend, without the
    last."""
    bits = distances.float().view(torch.int32)
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ascending >> _DROPPED) + _CELLS // 2
