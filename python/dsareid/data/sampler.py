"""Which images an epoch shows, and in which batches."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from dsareid.errors import DSAError


@dataclass(frozen=True)
class Draw:
    """One batch of P identities with K images each."""

    index: np.ndarray  # int64 [P*K] into the training set
    repeat: np.ndarray  # int64 [P*K]: how often that image was drawn before in this epoch


class PKSampler:
    """P identities x K images a batch, as batch-hard triplet loss wants them.

    Every image is drawn at least once an epoch. An identity whose images do not fill groups of K is
    topped up with some of them again, and so is the last batch with further identities. Epochs
    depend on (seed, epoch) alone.

    Args:
        ids: int64 [N], the identity of each image.
        identities: P, images: K.

    Raises:
        DSAError: fewer than P identities, or an identity with a single image.
    """

    def __init__(self, ids: np.ndarray, identities: int, images: int, seed: int):
        self.identities, self.images, self.seed = identities, images, seed
        unique, counts = np.unique(ids, return_counts=True)
        if len(unique) < identities:
            raise DSAError(
                f"the training set has {len(unique)} identities, but a batch needs "
                f"{identities}: give --identities {len(unique)} or fewer"
            )
        if counts.min() < 2:
            raise DSAError(
                f"identity {unique[counts.argmin()]} of the training set has one image, but the "
                "triplet loss needs at least two: remove it or add images"
            )
        self.members = [np.flatnonzero(ids == identity) for identity in unique]

    def epoch(self, epoch: int) -> list[Draw]:
        """The batches of an epoch, in order."""
        rng = np.random.default_rng([self.seed, epoch])
        waiting = [self._groups(members, rng) for members in self.members]
        drawn: Counter[int] = Counter()
        batches = []
        while True:
            left = np.array([len(groups) for groups in waiting])
            if not left.any():
                return batches
            index = np.concatenate([
                waiting[who].pop() if waiting[who] else self._groups(self.members[who], rng)[0]
                for who in self._choose(left, rng)
            ])  # fmt: skip
            batches.append(Draw(index, np.array([_count(drawn, i) for i in index])))

    def _choose(self, left: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """P identities: those with much left more often, so that few remain for the last batches."""
        have = np.flatnonzero(left)
        if len(have) >= self.identities:
            share = left[have] / left[have].sum()
            return rng.choice(have, self.identities, replace=False, p=share)
        others = np.setdiff1d(np.arange(len(left)), have)
        return np.concatenate([have, rng.choice(others, self.identities - len(have), replace=False)])

    def _groups(self, members: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """The identity's images, shuffled, in groups of K; the last group is topped up."""
        order = rng.permutation(members)
        short = -len(order) % self.images
        order = np.concatenate([order, rng.choice(members, short, replace=short > len(members))])
        return list(order.reshape(-1, self.images))


def _count(drawn: Counter[int], index: int) -> int:
    drawn[int(index)] += 1
    return drawn[int(index)] - 1
