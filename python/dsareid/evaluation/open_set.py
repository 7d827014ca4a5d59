"""Open-set identification: is this person in the gallery at all, and if so, who is it?

Every query is searched for twice: as it is, and as somebody nobody knows, with all images of the query's
person left out of the gallery. With a threshold on the distance of the nearest image,

    FPIR   false-positive identification rate: the share of searches for unknown people that find somebody
    TPIR   true-positive identification rate: the share of searches for known people that find them first

as in NIST's evaluations of face recognition (FRVT 1:N, at rank 1).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsareid.evaluation.bootstrap import Figure

FPIR = 0.1, 0.01
"""The false-positive identification rates of a table."""
_PART = 1 << 21  # distances that are copied at once


@dataclass(frozen=True)
class OpenSet:
    """The distances that decide for each query; float64 [Q] on the CPU, comparable between queries."""

    mate: Tensor
    """The distance of the nearest match; infinity without a match in the gallery."""
    other: Tensor
    """The distance of the nearest image of anybody else; infinity if the gallery shows nobody else."""

    def tpir(self, rate: float) -> Figure:
        """TPIR at a false-positive identification rate, as a figure for `interval`.

        The threshold is the highest one at which at most that share of the searches for unknown people find
        somebody; each sample has a threshold of its own. NaN if there are too few queries to allow a single
        false positive, or none has a match.

        Args:
            rate: between 0 and 1.
        """
        mate, other = self.mate.numpy(), self.other.numpy()
        mated = np.isfinite(mate)
        order = other.argsort(kind="stable")
        nearest, found = other[order], np.where(mate < other, mate, np.inf)
        enough = rate * len(other) >= 1

        def share(weights: np.ndarray) -> np.ndarray:
            if not enough:
                return np.full(len(weights), np.nan)
            below = weights[:, order].cumsum(1)
            # The first query too many: what is nearer than its nearest image is accepted.
            limit = nearest[(below <= rate * below[:, -1:]).sum(1)]
            with np.errstate(invalid="ignore"):  # a sample may have no match
                return (weights * (found < limit[:, None])).sum(1) / (weights * mated).sum(1)

        return share


class Nearest:
    """Collects the nearest match and the nearest other image of each query, tile by tile."""

    def __init__(self) -> None:
        self._mates: list[Tensor] = []
        self._others: list[Tensor] = []

    def add(self, distances: Tensor, same: Tensor, junk: Tensor) -> None:
        """Take a tile of distances.

        Args:
            distances: floating [T, G], comparable between queries; only read.
            same, junk: int64 [n, 2], row and column of matches, and of images that do not count.
        """
        rows, step = len(distances), max(1, _PART // distances.shape[1])
        mates = distances.new_full((rows,), torch.inf)
        mates.scatter_reduce_(0, same[:, 0], distances[same[:, 0], same[:, 1]], "amin")
        mine = torch.cat([same, junk])
        for start in range(0, rows, step):
            part = distances[start : start + step].clone()
            here = mine[(mine[:, 0] >= start) & (mine[:, 0] < start + step)]
            part[here[:, 0] - start, here[:, 1]] = torch.inf
            self._others.append(part.amin(1).double().cpu())
        self._mates.append(mates.double().cpu())

    def result(self) -> OpenSet:
        """What was collected."""
        return OpenSet(torch.cat(self._mates), torch.cat(self._others))
