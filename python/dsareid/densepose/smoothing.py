"""Steadier maps of a video, and how much maps flicker where the picture does not change.

A network sees each frame by itself, so that its maps flicker. In a pixel whose colour is the same in frames
before and after, the part is what most of them say, and U and V are the mean of those that agree. A person
who walks takes the pixels along, so these frames are looked at where the person is in them. Where no colour
is the same, the map stays as it is. studies/estimator tells what this does to maps whose truth is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy import ndimage

RADIUS = 2  # frames before and after
LEAST_STEP = 2  # pixels: the middle of somebody who stands still moves by one
TOLERANCE = 6  # of 255, in each channel of blurred pictures: noise and compression change more than nothing


class MappedFrame(NamedTuple):
    """A frame and its map."""

    blurred: np.ndarray  # int16 [H, W, 3], the mean of 3 x 3 pixels
    iuv: np.ndarray  # uint8 [H, W, 3]
    middle: tuple[int, int] | None  # medians of the rows and columns of the person's pixels; None: nobody


def mapped_frame(pixels: np.ndarray, iuv: np.ndarray) -> MappedFrame:
    """A frame, uint8 [H, W, 3] RGB, and its map, uint8 [H, W, 3] in the order I, U, V."""
    rows, columns = np.nonzero(iuv[..., 0])
    middle = (int(np.median(rows)), int(np.median(columns))) if len(rows) else None
    return MappedFrame(ndimage.uniform_filter(pixels.astype(np.int16), size=(3, 3, 1)), iuv, middle)


def smooth(frame: MappedFrame, others: Sequence[MappedFrame]) -> np.ndarray:
    """The steadier map of a frame, uint8 [H, W, 3] in the order I, U, V.

    Args:
        frame: the frame.
        others: those before and after it, RADIUS each or fewer, in any order.
    """
    every = [frame, *(_brought(other, frame) for other in others)]
    parts = np.stack([each.iuv[..., 0] for each in every])  # [N, H, W]
    valid = np.stack([_same(frame, each) for each in every])
    agreeing = np.stack([((parts == part) & valid).sum(0) for part in parts]) * valid
    best = agreeing.argmax(0)[None]  # of equals the first: its own
    part = np.take_along_axis(parts, best, 0)[0]
    taken = valid & (parts == part)
    count = taken.sum(0)
    means = [
        (2 * sum(each.iuv[..., k] * mask.astype(np.int32) for each, mask in zip(every, taken)) + count)
        // (2 * count)
        for k in (1, 2)
    ]
    return (np.stack([part, *means], 2) * (part > 0)[..., None]).astype(np.uint8)


def _brought(other: MappedFrame, frame: MappedFrame) -> MappedFrame:
    """Another frame with its person moved to where the person of a frame is, where the colours are equal."""
    if frame.middle is None or other.middle is None:
        return other
    down, right = (there - here for here, there in zip(frame.middle, other.middle))
    if max(abs(down), abs(right)) < LEAST_STEP:
        return other
    moved = MappedFrame(_moved(other.blurred, down, right), _moved(other.iuv, down, right), frame.middle)
    person = (frame.iuv[..., 0] > 0) | (moved.iuv[..., 0] > 0)
    taken = (person & _same(frame, moved))[..., None]
    blurred, iuv = (np.where(taken, new, old) for new, old in zip(moved[:2], other[:2]))
    return MappedFrame(blurred, iuv, frame.middle)


def _moved(plane: np.ndarray, down: int, right: int) -> np.ndarray:
    """What is `down` and `right` of each pixel of [H, W, C]; beyond the edge the edge goes on."""
    rows, columns = (np.arange(n) + step for n, step in zip(plane.shape, (down, right)))
    return plane[rows.clip(0, len(rows) - 1)][:, columns.clip(0, len(columns) - 1)]


def _same(one: MappedFrame, other: MappedFrame) -> np.ndarray:
    """Where two frames have the same colour, bool [H, W]."""
    return (np.abs(one.blurred - other.blurred) <= TOLERANCE).all(2)


@dataclass
class Flicker:
    """How much maps change from frame to frame in pixels that do not, where either map shows a person."""

    pixels: int = 0
    changed: int = 0  # of them: pixels whose part is another one
    both: int = 0  # of them: pixels with the same part in both, for U and V
    steps: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))  # sums of |dU| and |dV|, of 255

    def add(self, before: MappedFrame, after: MappedFrame) -> None:
        """Count two frames that follow each other."""
        one, two = before.iuv, after.iuv
        still = _same(before, after) & ((one[..., 0] > 0) | (two[..., 0] > 0))
        equal = still & (one[..., 0] == two[..., 0])
        self.pixels += int(still.sum())
        self.both += int(equal.sum())
        self.changed += int(still.sum() - equal.sum())
        self.steps += np.abs(one[equal][:, 1:].astype(np.int64) - two[equal][:, 1:]).sum(0)

    def share(self) -> float:
        """The share of pixels whose part changes."""
        return self.changed / self.pixels if self.pixels else 0.0

    def mean_steps(self) -> tuple[float, float]:
        """The means of |dU| and |dV|, in units of the chart, where the part stays."""
        u, v = self.steps / (255 * max(self.both, 1))
        return float(u), float(v)
