"""The size of the images that DensePose saw, and the signs that it was not that of ours.

Boxes and whole maps are in pixels of what DensePose saw. Where that was a copy of another size they lie
beside the bodies, and nothing later would notice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsareid.data.images import MOST_PIXELS
from dsareid.densepose.charts import Box
from dsareid.ground.errors import DSAError, logger

Size = tuple[int, int]  # width, height

MOST_SCALE = 64.0  # and its inverse is the least
FEWEST_IMAGES = 3  # with people, before their boxes say something of the scale
SHORT_REACH = 0.6  # of width and height: where no box of a source reaches further, the scale is another
DOUBTED_REACH, DOUBTED_IMAGES = 0.9, 20  # further than that some box should reach in so many images
MOST_LEAVING = 0.1  # of the images with people: detectron2 clips its boxes to what it saw

_COMMON = (0.125, 0.2, 0.25, 0.4, 0.5, 0.6, 0.75, 0.8, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 16)


class Scale(NamedTuple):
    """What DensePose saw: our images `factor` times, or all of them made to one size."""

    factor: float = 1.0
    size: Size | None = None

    def seen(self, size: Size) -> Size:
        """The size that DensePose saw, of an image of ours.

        Raises:
            DSAError: it has more than images.MOST_PIXELS.
        """
        if self.size is not None:
            return self.size
        width, height = (max(1, round(self.factor * side)) for side in size)
        if width * height > MOST_PIXELS:
            raise DSAError(
                f"`scale={self}`: an image of {_text(size)} would have been seen as {width}x{height}, more "
                f"than {MOST_PIXELS:,} pixels"
            )
        return width, height

    def fits(self, seen: Size, size: Size) -> bool:
        """Whether an image of ours of a size may have been this large; other programs round otherwise."""
        if self.size is not None or self.factor == 1:
            return seen == self.seen(size)
        return all(abs(there - self.factor * here) <= 1 for there, here in zip(seen, size))

    def __str__(self) -> str:
        return f"{self.factor:g}" if self.size is None else _text(self.size)


def parse_scale(scale: float | str) -> Scale:
    """A number, or WIDTHxHEIGHT.

    Raises:
        DSAError: it is neither, or beyond the bounds.
    """
    wrong = DSAError(
        f"`scale={scale}`: expected a number from 1/{MOST_SCALE:g} to {MOST_SCALE:g}, as 0.5 where DensePose "
        "saw the images at half their size, or WIDTHxHEIGHT, as 128x256 where it saw all at this size, of at "
        f"most {MOST_PIXELS:,} pixels"
    )
    sides = scale.lower().split("x") if isinstance(scale, str) else []
    if len(sides) == 2 and all(side.isascii() and side.isdecimal() and len(side) < 10 for side in sides):
        width, height = map(int, sides)
        if not 0 < width * height <= MOST_PIXELS:
            raise wrong
        return Scale(size=(width, height))
    try:
        factor = math.nan if isinstance(scale, bool) else float(scale)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if not 1 / MOST_SCALE <= factor <= MOST_SCALE:  # NaN is not
        raise wrong
    return Scale(factor)


@dataclass(frozen=True)
class SeenImage:
    """An image of ours, and what a source says of it in pixels."""

    name: str
    size: Size  # upright
    turned: int  # by EXIF's number; 1: it is upright as stored
    boxes: list[Box]
    told: Size | None  # the size of what DensePose saw, where the source has it

    @property
    def stored(self) -> Size:
        """Before it is turned upright."""
        return self.size[::-1] if self.turned in (5, 6, 7, 8) else self.size


def leaves(box: Box, size: Size) -> bool:
    """Whether a box is outside of an image by more than a pixel."""
    return min(box[:2]) < -1 or box[2] > size[0] + 1 or box[3] > size[1] + 1


def check_sizes(source: Path, images: Sequence[SeenImage]) -> None:
    """Refuse a source whose boxes were made on images of another size; log where that may be.

    Raises:
        DSAError: as said, with the scale that may fit.
    """
    _check_told(source, images)
    people = [image for image in images if image.boxes]
    _check_leaving(source, people)
    _check_reach(source, [image for image in people if image.told is None])


def _check_leaving(source: Path, people: Sequence[SeenImage]) -> None:
    """Raise DSAError where boxes are outside of their images."""
    leaving = [image for image in people if any(leaves(box, image.size) for box in image.boxes)]
    for image in leaving:
        if not any(leaves(box, image.stored) for box in image.boxes):
            raise DSAError(f"{source}: the boxes of {image.name} fit {_unturned(image)}")
    if len(leaving) > MOST_LEAVING * len(people):
        hint = _hint(people) if max(max(_reach(image)) for image in people) > 1.05 else ""
        raise DSAError(
            f"{source}: boxes leave {len(leaving):,} of {len(people):,} images with people, as that of "
            f"{leaving[0].name}, {_text(leaving[0].size)}: was DensePose run on images of another size? "
            f"{hint}`scale=1` takes the boxes as they are and cuts them off"
        )


def _check_reach(source: Path, people: Sequence[SeenImage]) -> None:
    """Raise DSAError, or log, where no box reaches far into its image."""
    reach = max((max(_reach(image)) for image in people), default=1.0)
    said = (
        f"{source}: no box reaches beyond {reach:.0%} of the width or height of its image, in "
        f"{len(people):,} images with people: was DensePose run on smaller images? {_hint(people)}"
    )
    if reach <= SHORT_REACH and len(people) >= FEWEST_IMAGES:
        raise DSAError(f"{said}`scale=1` takes the boxes as they are")
    if reach <= (DOUBTED_REACH if len(people) >= DOUBTED_IMAGES else SHORT_REACH):
        logger.warning(f"{said}look at the contact sheet")


def warn_of_told_sizes(source: Path, images: Sequence[SeenImage], scale: Scale) -> None:
    """Log where a source tells other sizes than a scale that was given."""
    other = [x for x in images if x.told is not None and not scale.fits(x.told, x.size)]
    if other:
        first = other[0]
        logger.warning(
            f"{source}: it tells other sizes than `scale={scale}` gives, of {len(other):,} images, as of "
            f"{first.name}: {first.told and _text(first.told)}, not {_text(scale.seen(first.size))}"
        )


def wrong_map_size(image: SeenImage, path: Path, found: Size, scale: Scale | None) -> str:
    """The words about a whole map that is not of the size it should be."""
    wrong = f"the map of {image.name} is {_text(found)}, but its image {path}"
    if scale is not None and scale != Scale():
        return f"{wrong}, {_text(image.size)}, was seen as {_text(scale.seen(image.size))} by `scale={scale}`"
    expected = f"{wrong} is {_text(image.size)}"
    if found == image.stored:
        return f"{expected}: the map fits {_unturned(image)}"
    fitting = _fitting([(found, image.size)]) or Scale(size=found)
    return f"{expected}: was DensePose run on images of another size? `scale={fitting}` may fit"


def _check_told(source: Path, images: Sequence[SeenImage]) -> None:
    """Raise DSAError where a source tells the sizes of other images than ours."""
    other = [image for image in images if image.told is not None and image.told != image.size]
    if not other:
        return
    first = other[0]
    if first.told == first.stored:
        raise DSAError(f"{source}: its size of {first.name} is {_unturned(first)}")
    fitting = _fitting([(image.told, image.size) for image in images if image.told is not None])
    hint = f"`scale={fitting}` fits" if fitting else "no one scale fits"
    raise DSAError(
        f"{source}: its sizes are not those of {len(other):,} images: by it {first.name} is "
        f"{_text(first.told or first.size)}, but it is {_text(first.size)}; {hint}; `scale=1` takes the "
        "boxes as they are"
    )


def _unturned(image: SeenImage) -> str:
    return (
        f"{_text(image.stored)}, the file's size before it is turned upright, as its EXIF data asks "
        f"(orientation {image.turned}); run DensePose on upright images: here it is {_text(image.size)}"
    )


def _fitting(pairs: Sequence[tuple[Size, Size]]) -> Scale | None:
    """The scale by which each first size may be what was seen of the second; None where there is none."""
    seen, size = pairs[0]
    factors = [Scale(float(f"{seen[side] / size[side]:.4g}")) for side in (0, 1)]
    common = [Scale(factor) for factor in _COMMON]
    for scale in (*common, *factors, Scale(size=seen)):
        bounded = 1 / MOST_SCALE <= scale.factor <= MOST_SCALE
        if bounded and all(scale.fits(*pair) for pair in pairs):
            return scale
    return None


def _hint(images: Sequence[SeenImage]) -> str:
    """The scale that boxes speak for, as a sentence; empty where there are too few.

    Boxes are clipped to what was seen, so the furthest of many ends at its edge.
    """
    if len(images) < FEWEST_IMAGES:
        return ""
    boxes = np.array([np.max(image.boxes, axis=0)[2:] for image in images])  # [N, 2]
    ratios = boxes / np.array([image.size for image in images])
    furthest, reach = boxes.max(0), ratios.max(0)  # [2]
    if min(furthest) < 1 or not 1 / MOST_SCALE <= reach.max() <= MOST_SCALE:
        return ""
    # If all were made to one size, boxes end at its edge, wherever that is in an image.
    one_size = (boxes / furthest).mean() > (ratios / reach).mean() + 0.02
    one_factor = abs(reach[0] - reach[1]) <= 0.15 * reach.max()
    scale = Scale(_common(reach.max()))
    if one_size or not one_factor:
        scale = Scale(size=(math.ceil(furthest[0] - 0.5), math.ceil(furthest[1] - 0.5)))
    return f"`scale={scale}` may fit; "


def _common(reach: float) -> float:
    """The common scale at whose edge something of this reach may end, or the reach itself."""
    fitting = (scale for scale in _COMMON if 0.98 * reach <= scale <= 1.15 * reach)
    return next(fitting, float(f"{reach:.3g}"))


def _reach(image: SeenImage) -> tuple[float, float]:
    """How far the boxes reach, in widths and heights of the image."""
    return max(b[2] for b in image.boxes) / image.size[0], max(b[3] for b in image.boxes) / image.size[1]


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
