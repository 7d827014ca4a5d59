"""Following one person through a video: the one whose box overlaps most with that of the frame before."""

from typing import NamedTuple

import numpy as np

from dsareid.densepose.estimators.base import EstimatedMap
from dsareid.ground.errors import DSAError

LEAST_OVERLAP = 0.3  # IoU of the boxes; who has less is somebody else
PATIENCE = 25  # frames in a row without the person, after which somebody is chosen anew


class Extent(NamedTuple):
    """The box around a person's pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    def overlap(self, other: "Extent") -> float:
        """Intersection over union."""
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        width = min(self.right, other.right) - max(self.left, other.left)
        shared = max(height, 0) * max(width, 0)
        return shared / (self.area() + other.area() - shared)

    def area(self) -> int:
        """Pixels in the box."""
        return (self.bottom - self.top) * (self.right - self.left)


def extent_of(mask: np.ndarray) -> Extent | None:
    """The box around what is not 0 in [H, W]; None: nothing is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return Extent(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


class Follower:
    """The person of a video, frame after frame.

    The first one is whoever has most pixels in the first frame that shows somebody. A frame in which nobody
    overlaps enough with the last box shows nobody; after PATIENCE of them somebody is chosen anew.

    Args:
        start: where the person is in the first frame, if it is somebody else.

    Raises:
        DSAError: by pick, if nobody is there in the first frame.
    """

    def __init__(self, start: Extent | None = None) -> None:
        self.box = start  # where the person was last
        self.begins: list[int] = []  # frames in which somebody was chosen
        self._missed = 0
        self._frame = 0

    def pick(self, found: EstimatedMap) -> EstimatedMap:
        """The map of a frame with nobody but the person; frames come in order."""
        if found.instances is None:  # of one person already
            self.see(found.iuv[..., 0])
            return found
        number = self._number(found.instances)
        if not number and not self._frame and self.box is not None:
            where = self.box
            raise DSAError(
                f"`box={where.left},{where.top},{where.right},{where.bottom}`: in the first frame nobody "
                f"overlaps with it by {LEAST_OVERLAP} (IoU)"
            )
        mine = (found.instances == number) & (number > 0)
        everybody = np.count_nonzero(found.instances)
        others = 1 - float(np.count_nonzero(mine)) / everybody if everybody else 0.0
        uv = None if found.uv is None else found.uv * mine
        self.see(mine)
        return found._replace(iuv=found.iuv * mine[..., None], uv=uv, others=others, instances=None)

    def see(self, mask: np.ndarray) -> None:
        """Take note of where the person is in the next frame, as the mask [H, W] of a map says."""
        box = extent_of(mask)
        if box is None:
            self._missed += 1
            if self._missed >= PATIENCE:
                self.box = None
        else:
            if self.box is None or not self.begins:
                self.begins.append(self._frame)
            self.box, self._missed = box, 0
        self._frame += 1

    def _number(self, instances: np.ndarray) -> int:
        """Who is the person; 0: nobody is."""
        counts = np.bincount(instances.ravel())[1:]
        if not counts.any():
            return 0
        if self.box is None:
            return int(counts.argmax()) + 1
        boxes = {k + 1: extent_of(instances == k + 1) for k in np.flatnonzero(counts)}
        overlaps = {k: box.overlap(self.box) for k, box in boxes.items() if box is not None}
        best = max(overlaps, key=lambda k: overlaps[k])
        return int(best) if overlaps[best] >= LEAST_OVERLAP else 0
