"""The annotations of DensePose-COCO: points that annotators have marked on people, in a JSON file.

Each person has a box, points in it with part, U and V, and masks of 14 coarse parts, 256 x 256 over the box.
Source: densepose_coco_2014_*.json of facebookresearch/DensePose; masks are COCO's run lengths.
"""

import os
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import BaseModel, Field

from dsareid.ground.errors import DSAError
from dsareid.ground.files import read_json

_SIDE = 256  # of a mask, and the unit of points in the box
_Length = Annotated[float, Field(ge=-1e6, le=1e6)]
_Place = Annotated[float, Field(ge=0, le=_SIDE)]
_Share = Annotated[float, Field(ge=0, le=1)]


class _Image(BaseModel):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class _Mask(BaseModel):
    counts: str
    size: tuple[int, int]


class _Annotation(BaseModel):
    image_id: int | str
    bbox: tuple[_Length, _Length, _Length, _Length]  # x, y, width, height
    dp_I: list[Annotated[int, Field(ge=1, le=24)]] = []  # 2.0 in the file
    dp_U: list[_Share] = []
    dp_V: list[_Share] = []
    dp_x: list[_Place] = []
    dp_y: list[_Place] = []
    dp_masks: list[_Mask | list] = []


class _File(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]


class MarkedPerson(NamedTuple):
    """A person with n points."""

    image: str  # the file's name without its suffix
    size: tuple[int, int] | None  # height and width of the image, if the file has them
    box: tuple[float, float, float, float]  # x, y, width, height
    points: np.ndarray  # float64 [2, n]: x and y in pixels of the image
    part: np.ndarray  # int64 [n], 1..24
    uv: np.ndarray  # float64 [2, n], 0..1
    mask: np.ndarray | None  # bool [256, 256] over the box; None if the file has none

    def fits(self, height: int, width: int) -> bool:
        """Whether the points may be of an image of this size."""
        if self.size is not None:
            return self.size == (height, width)
        x, y = self.points
        return bool(x.max() <= width + 1 and y.max() <= height + 1 and min(x.min(), y.min()) >= -1)

    def pixels(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and columns of an image that its points fall on, int64 [n] each."""
        x, y = np.floor(self.points).astype(np.int64)
        return np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)

    def seen_in(self, body: np.ndarray) -> np.ndarray:
        """A mask of the image, bool [H, W], sampled over the box: bool [256, 256]."""
        steps = (np.arange(_SIDE) + 0.5) / _SIDE
        rows, columns = (
            np.floor(start + steps * length).astype(np.int64)
            for start, length in ((self.box[1], self.box[3]), (self.box[0], self.box[2]))
        )
        inside = np.ix_((rows >= 0) & (rows < body.shape[0]), (columns >= 0) & (columns < body.shape[1]))
        found = np.zeros((_SIDE, _SIDE), bool)
        found[inside] = body[np.ix_(rows[inside[0].ravel()], columns[inside[1].ravel()])]
        return found


def read_marked_people(path: Path) -> list[MarkedPerson]:
    """The people of a file that have points, in its order.

    Raises:
        DSAError: it cannot be read, is something else, or has nobody with points.
    """
    try:
        content = read_json(path, _File, "annotations of DensePose-COCO")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DSAError(f"{path}: no such file") from error
    images = {image.id: image for image in content.images}
    if len(images) < len(content.images):
        raise DSAError(f"{path}: images: each must have an id of its own")
    marked = [entry for entry in enumerate(content.annotations) if entry[1].dp_I]
    if not marked:
        raise DSAError(f"{path}: nobody in it has points (dp_I, dp_U, dp_V, dp_x, dp_y)")
    return [_person(f"{path}: annotations.{number}", each, images) for number, each in marked]


def _person(where: str, each: _Annotation, images: dict[int | str, _Image]) -> MarkedPerson:
    if each.image_id not in images:
        raise DSAError(f"{where}: its image_id {each.image_id!r} is not in images")
    lengths = {len(values) for values in (each.dp_I, each.dp_U, each.dp_V, each.dp_x, each.dp_y)}
    if len(lengths) > 1:
        raise DSAError(f"{where}: dp_I, dp_U, dp_V, dp_x and dp_y must have the same length")
    if min(each.bbox[2:]) <= 0:
        raise DSAError(f"{where}: its bbox is empty")
    x, y, width, height = each.bbox
    points = np.array([each.dp_x, each.dp_y]) / (_SIDE - 1) * [[width], [height]] + [[x], [y]]
    image = images[each.image_id]
    return MarkedPerson(
        os.path.splitext(image.file_name)[0],
        None if image.height is None or image.width is None else (image.height, image.width),
        each.bbox,
        points,
        np.array(each.dp_I),
        np.array([each.dp_U, each.dp_V]),
        _mask(each, where),
    )


def _mask(each: _Annotation, where: str) -> np.ndarray | None:
    """The masks of the coarse parts together; None if there is none."""
    given = [part for part in each.dp_masks if isinstance(part, _Mask)]
    if not given:
        return None
    mask = np.zeros((_SIDE, _SIDE), bool)
    for part in given:
        if part.size != (_SIDE, _SIDE):
            raise DSAError(f"{where}: a mask must be {_SIDE} x {_SIDE}, not {part.size}")
        mask |= _decode(part.counts, where)
    return mask


def _decode(counts: str, where: str) -> np.ndarray:
    """COCO's compressed run lengths as bool [256, 256].

    pycocotools decodes them too, but writes beyond its memory if a file lies about their sum.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 30:
            raise DSAError(f"{where}: the run lengths of a mask are damaged")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift or min(runs, default=0) < 0 or sum(runs) != _SIDE**2:
        raise DSAError(f"{where}: the run lengths of a mask do not make {_SIDE} x {_SIDE} pixels")
    filled = np.arange(len(runs)) % 2 == 1
    return np.repeat(filled, runs).reshape(_SIDE, _SIDE).T  # column after column
