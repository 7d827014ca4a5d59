"""Which images an epoch shows, and in which batches."""

import numpy as np

from dsareid.ground import _core
from dsareid.ground.errors import DSAError


class PKSampler:
    """P identities x K images a batch, as batch-hard triplet loss wants them.

    Every image is drawn at least once an epoch. If an identity's images do not fill
    groups of K, some of them are drawn again; if the last batches are not full, some identities are.
    Epochs depend on (seed, epoch) alone; csrc/core/sampler.h has the rules.

    Several processes share an epoch: each takes P/world identities of every batch. Side by side in
    the order of their ranks, these are the batches of a single process.

    Args:
        ids: int64 [N], the identity of each image.
        identities: P, over all processes.
        images: K.
        seed: 0..2**63 - 1.
        rank, world: the rank of this process and the number of processes; world divides P.

    Raises:
        DSAError: fewer than P identities, an identity with a single image, or a world that does not
            divide P.
    """

    def __init__(
        self, ids: np.ndarray, identities: int, images: int, seed: int, rank: int = 0, world: int = 1
    ):
        unique, label, counts = np.unique(ids, return_inverse=True, return_counts=True)
        check_identities(len(unique), identities)
        if counts.min() < 2:
            raise DSAError(
                f"identity {unique[counts.argmin()]} of the training set has one image, but the "
                "triplet loss needs at least two: remove it or add images"
            )
        if identities % world:
            raise DSAError(
                f"a batch of {identities} identities cannot be split evenly over {world} processes: "
                f"give `identities` a multiple of {world}, or another number of processes"
            )
        self.identities, self.images, self.seed = identities, images, seed
        self.rank, self.world = rank, world
        self._label, self._count = label.astype(np.int64, copy=False), len(unique)

    def epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The batches of an epoch, in order.

        Returns:
            index, int64 [batches, P/world*K]: which image; the K of an identity follow each other.
            repeat, int64, of the same shape: how often that image was drawn before in this epoch, by
            any process.
        """
        drawn = _core.sample_epoch(
            self._label,
            self._count,
            identities=self.identities,
            images=self.images,
            seed=self.seed,
            epoch=epoch,
        )
        index, repeat = (x.reshape(len(x), self.world, -1)[:, self.rank] for x in drawn)
        return index, repeat


def check_identities(found: int, needed: int) -> None:
    """Raise DSAError if a training set has fewer identities than a batch."""
    if found < needed:
        raise DSAError(
            f"the training set has {found} identities, but a batch needs {needed}: give `identities={found}` "
            "or fewer"
        )
