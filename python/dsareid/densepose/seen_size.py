"""The size of the images that DensePose saw, and the signs that it was not the size of ours.

Boxes and whole maps are in pixels of the images that DensePose saw. If those were copies of another size, the
maps do not lie on the bodies, and nothing later would notice.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsareid.data.images import MOST_PIXELS, SIDEWAYS
from dsareid.densepose.charts import Box
from dsareid.ground.errors import DSAError, logger

Size = tuple[int, int]  # width, height

MOST_SCALE = 64.0  # and its inverse is the least
FEWEST_IMAGES = 3  # with people; the boxes of fewer say nothing about the scale
SHORT_REACH = 0.6  # of width and height; if no box of a source reaches further, the scale is wrong
DOUBTED_REACH, DOUBTED_IMAGES = 0.9, 20  # so many images should have a box that reaches further
AT_EDGE = 0.2  # share of images; if so many boxes end at the furthest place, they were clipped there
MOST_LEAVING = 0.1  # share of images with people whose boxes leave them: detectron2 clips its boxes

_COMMON = (0.125, 0.2, 0.25, 0.4, 0.5, 0.6, 0.75, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 16)


class Scale(NamedTuple):
    """The size of what DensePose saw: that of our images times `factor`, or one `size` for all."""

    factor: float = 1.0
    size: Size | None = None

    def seen(self, size: Size) -> Size:
        """The size at which DensePose saw an image of ours, whose own size is given.

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
        """Whether DensePose may have seen an image of `size` as `seen`; programs round differently."""
        if self.size is not None or self.factor == 1:
            return seen == self.seen(size)
        return all(abs(there - self.factor * here) <= 1 for there, here in zip(seen, size))

    def __str__(self) -> str:
        return f"{self.factor:g}" if self.size is None else _text(self.size)


def parse_scale(scale: float | str) -> Scale:
    """Parse a number, or WIDTHxHEIGHT.

    Raises:
        DSAError: it is neither, or beyond the bounds.
    """
    wrong = DSAError(
        f"`scale={scale}`: expected a number from 1/{MOST_SCALE:g} to {MOST_SCALE:g}, such as 0.5 if "
        "DensePose saw the images at half their size, or WIDTHxHEIGHT, such as 128x256 if it saw all at this "
        f"size, with at most {MOST_PIXELS:,} pixels"
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
    turned: int  # EXIF's orientation; 1: it is upright as stored
    boxes: list[Box]
    told: Size | None  # the size that DensePose saw, if the source has it

    @property
    def stored(self) -> Size:
        """Its size before it is turned upright."""
        return self.size[::-1] if self.turned in SIDEWAYS else self.size


def leaves(box: Box, size: Size) -> bool:
    """Whether a box leaves an image by more than a pixel."""
    return min(box[:2]) < -1 or box[2] > size[0] + 1 or box[3] > size[1] + 1


def check_sizes(source: Path, images: Sequence[SeenImage], scale: Scale | None) -> None:
    """Refuse a source whose sizes or boxes show images of another size than `scale` says; warn if they may.

    A scale of 1 that was given is believed; None is 1, and is checked like any other.

    Raises:
        DSAError: the source is refused; the message names a scale that may fit. Or `scale` makes an image too
            large.
    """
    if scale == Scale():
        _note_told(source, images, scale)
        return
    scale = scale or Scale()
    for image in images:
        scale.seen(image.size)  # none is too large
    _check_told(source, images, scale)
    people = [image for image in images if image.boxes]
    _check_leaving(source, people, scale)
    _check_reach(source, [image for image in people if image.told is None], scale)


def _check_leaving(source: Path, people: Sequence[SeenImage], scale: Scale) -> None:
    """Raise DSAError if the boxes of too many images leave them."""
    leaving = _leaving(people, scale)
    for image in leaving:
        if not any(leaves(box, scale.seen(image.stored)) for box in image.boxes):
            raise DSAError(f"{source}: the boxes of {image.name} fit {_unturned(image)}")
    if len(leaving) > MOST_LEAVING * len(people):
        first = leaving[0]
        raise DSAError(
            f"{source}: boxes leave {len(leaving):,} of {_count(people)} with people, as that of "
            f"{first.name}, {_text(scale.seen(first.size))}{_by(scale)}: was DensePose run on images of "
            f"another size? {_hint(people, scale)}`scale=1` takes the boxes as they are and cuts them off"
        )


def _check_reach(source: Path, people: Sequence[SeenImage], scale: Scale) -> None:
    """Raise DSAError or warn if no box reaches far into its image, or all end as in images of one size."""
    if not people:
        return
    across, down = _reach(people, scale)
    places = [("width or height", max(across, down), "on smaller images")]
    many = len(people) >= DOUBTED_IMAGES
    if many:  # in fewer images, boxes may end early along one side by chance
        places += [
            (side, reach, "on images of another size")
            for side, reach in (("width", across), ("height", down))
        ]
    short = [place for place in places if place[1] <= SHORT_REACH]
    doubted = [place for place in places if many and place[1] <= DOUBTED_REACH]
    one_size = many and scale.size is None and _is_one_size(people)
    if not (short or doubted or one_size):
        return
    where = f"in {_count(people)} with people"
    if one_size and not short:
        said = f"{where} boxes end as if all had been of one size: was DensePose run on copies of one size?"
    else:
        side, reach, other = (short or doubted)[0]
        said = (
            f"no box reaches beyond {reach:.0%} of the {side} of its image{_by(scale)}, {where}: "
            f"was DensePose run {other}?"
        )
    said = f"{source}: {said} {_hint(people, scale)}"
    if (short and len(people) >= FEWEST_IMAGES) or (one_size and _leaving(people, scale)):
        raise DSAError(f"{said}`scale=1` takes the boxes as they are")
    logger.warning(f"{said}look at the contact sheet")


def _note_told(source: Path, images: Sequence[SeenImage], scale: Scale) -> None:
    """Warn if a source tells other sizes than a scale that is believed."""
    other = [x for x in images if x.told is not None and not scale.fits(x.told, x.size)]
    if other:
        first = other[0]
        logger.warning(
            f"{source}: its sizes of {_count(other)} are not those of `scale={scale}`: "
            f"{first.name} is {first.told and _text(first.told)}, not {_text(scale.seen(first.size))}"
        )


def wrong_map_size(image: SeenImage, path: Path, found: Size, scale: Scale | None) -> str:
    """A message about a whole map of the wrong size."""
    wrong = f"the map of {image.name} is {_text(found)}, but its image {path}"
    fitting = _fitting([(found, image.size)]) or Scale(size=found)
    if scale is not None and scale != Scale():
        seen = _text(scale.seen(image.size))
        hint = f"`scale={fitting}` may fit"
        return f"{wrong}, {_text(image.size)}, was seen as {seen} by `scale={scale}`; {hint}"
    expected = f"{wrong} is {_text(image.size)}"
    if found == image.stored:
        return f"{expected}: the map fits {_unturned(image)}"
    return f"{expected}: was DensePose run on images of another size? `scale={fitting}` may fit"


def _check_told(source: Path, images: Sequence[SeenImage], scale: Scale) -> None:
    """Raise DSAError if the sizes that a source tells are not those of our images at this scale."""
    told = [(image, image.told) for image in images if image.told is not None]
    other = [(image, size) for image, size in told if not scale.fits(size, image.size)]
    if not other:
        return
    first, size = other[0]
    if size == scale.seen(first.stored):
        raise DSAError(f"{source}: its size of {first.name} is {_unturned(first)}")
    fitting = _fitting([(size, image.size) for image, size in told])
    hint = f"`scale={fitting}` fits" if fitting else "no single scale fits"
    raise DSAError(
        f"{source}: its sizes are not those of {_count(other)}: by it {first.name} is {_text(size)}, but it "
        f"is {_text(scale.seen(first.size))}{_by(scale)}; {hint}; `scale=1` takes the boxes as they are"
    )


def _unturned(image: SeenImage) -> str:
    return (
        f"{_text(image.stored)}, the file's size before it is turned upright, as its EXIF data asks "
        f"(orientation {image.turned}); run DensePose on upright images: here it is {_text(image.size)}"
    )


def _fitting(pairs: Sequence[tuple[Size, Size]]) -> Scale | None:
    """The scale at which, in each pair, the second size was seen as the first; None if there is none."""
    seen, size = pairs[0]
    factors = [Scale(float(f"{seen[side] / size[side]:.4g}")) for side in (0, 1)]
    common = [Scale(factor) for factor in _COMMON]
    for scale in (*common, *factors, Scale(size=seen)):
        bounded = 1 / MOST_SCALE <= scale.factor <= MOST_SCALE
        if bounded and all(scale.fits(*pair) for pair in pairs):
            return scale
    return None


def _hint(people: Sequence[SeenImage], scale: Scale) -> str:
    """A hint at the scale that the boxes suggest; empty if there is none, or it is the one given."""
    fitting = _likely_scale(people)
    if fitting is None or fitting == scale:
        return ""
    return f"`scale={fitting}` may fit; " if fitting != Scale() else "without `scale` they may fit; "


def _likely_scale(people: Sequence[SeenImage]) -> Scale | None:
    """The scale that the boxes suggest and the checks accept; None if there is none.

    Boxes are clipped to what was seen, so the furthest of many ends at its edge.
    """
    if len(people) < FEWEST_IMAGES:
        return None
    boxes, sizes = _ends(people), np.array([image.size for image in people])  # [N, 2]
    furthest, reach = boxes.max(0), (boxes / sizes).max(0)  # [2]
    if min(furthest) < 1 or not 1 / MOST_SCALE <= reach.max() <= MOST_SCALE:
        return None
    one_factor = abs(reach[0] - reach[1]) <= 0.15 * reach.max()
    if _is_one_size(people) or not one_factor:
        likely = [Scale(size=(math.ceil(furthest[0] - 0.5), math.ceil(furthest[1] - 0.5)))]
    else:
        side = int(reach.argmax())
        likely = [Scale(factor) for factor in _likely_factors(boxes[:, side], sizes[:, side])]
    return next((scale for scale in likely if _accepts(people, scale)), None)


def _likely_factors(ends: np.ndarray, sides: np.ndarray) -> list[float]:
    """The factors that may put the edge where boxes end, common ones first; ends and sides of images [N]."""
    reach = float((ends / sides).max())
    pixel = 1 / sides.max()
    rounded = [float(f"{reach:.{digits}g}") for digits in (2, 3, 4)]
    at_edge = np.count_nonzero(ends >= reach * sides - 1)
    if at_edge >= max(2, AT_EDGE * len(ends)):  # boxes were clipped there: it is the edge
        common = [factor for factor in _COMMON if abs(factor - reach) <= pixel]
    else:
        common = [factor for factor in _COMMON if 0.98 * reach <= factor <= 1.05 * reach]
    factors = common + [factor for factor in rounded if abs(factor - reach) <= pixel]
    return [factor for factor in factors if 1 / MOST_SCALE <= factor <= MOST_SCALE]


def _accepts(people: Sequence[SeenImage], scale: Scale) -> bool:
    """Whether a source of this scale would not be refused for its boxes."""
    try:
        leaving, reach = _leaving(people, scale), _reach(people, scale)
    except DSAError:  # an image would be too large
        return False
    furthest = min(reach) if len(people) >= DOUBTED_IMAGES else max(reach)
    return len(leaving) <= MOST_LEAVING * len(people) and furthest > SHORT_REACH


def _is_one_size(people: Sequence[SeenImage]) -> bool:
    """Whether the ends of boxes fit the edge of one common size better than those of their images.

    If all images were made one size, boxes end at its edge, wherever that is in an image of ours.
    """
    boxes = _ends(people)
    ratios = boxes / np.array([image.size for image in people])
    furthest, reach = boxes.max(0), ratios.max(0)
    return bool(min(furthest) > 0 and (boxes / furthest).mean() > (ratios / reach).mean() + 0.02)


def _leaving(people: Sequence[SeenImage], scale: Scale) -> list[SeenImage]:
    """The images with a box that leaves them."""
    return [image for image in people if any(leaves(box, scale.seen(image.size)) for box in image.boxes)]


def _reach(people: Sequence[SeenImage], scale: Scale) -> tuple[float, float]:
    """How far boxes reach, in widths and heights of their images as DensePose saw them."""
    across, down = (_ends(people) / np.array([scale.seen(image.size) for image in people])).max(0).tolist()
    return across, down


def _ends(people: Sequence[SeenImage]) -> np.ndarray:
    """The right and lower ends of the boxes of each image together, [N, 2]."""
    return np.array([np.max(image.boxes, axis=0)[2:] for image in people])


def _by(scale: Scale) -> str:
    return "" if scale == Scale() else f" by `scale={scale}`"


def _count(images: Sequence) -> str:
    return f"{len(images):,} image{'' if len(images) == 1 else 's'}"


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
