"""Images and IUV maps as files.

In memory an IUV map is always uint8 [H, W, 3] in the order I, U, V. In a file it is in the order
of the classic Detectron output, which OpenCV wrote as B, G, R = I, U, V: Pillow and everything
else that reads R, G, B sees V, U, I.
"""

import os

import numpy as np
from PIL import Image, ImageFile

from dsareid.errors import DSAError
from dsareid.files import atomic_path

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated file is an error, never a grey band


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] RGB; grey, palette and RGBA files are converted.

    Raises:
        DSAError: the file is missing, truncated, no image, or has more than 8 bits a channel.
    """
    image = _decode(path, "an image")
    if image.mode.startswith(("I", "F")):
        raise DSAError(f"{path}: expected 8 bits a channel, but its mode is {image.mode}; convert it first")
    return np.array(image.convert("RGB"))  # a copy: Pillow's is read-only


def read_iuv(path: str | os.PathLike) -> np.ndarray:
    """Read a classic NAME_IUV.png as uint8 [H, W, 3] in the order I, U, V.

    Raises:
        DSAError: the file is missing, truncated, not an 8-bit RGB image, or has a part above 24.
    """
    image = _decode(path, "an IUV map")
    if image.mode != "RGB":
        raise DSAError(
            f"{path}: an IUV map is an 8-bit RGB image (R=V, G=U, B=I), not mode {image.mode}"
        )
    iuv = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    if iuv[..., 0].max() > 24:
        hint = ""
        if iuv[..., 2].max() <= 24:
            hint = "; its red channel holds 0..24: the file is in the order I,U,V and must be V,U,I"
        raise DSAError(
            f"{path}: the part index I (blue channel) must be 0..24, found {iuv[..., 0].max()}{hint}"
        )
    return iuv


def write_iuv(path: str | os.PathLike, iuv: np.ndarray) -> None:
    """Write uint8 [H, W, 3] in the order I, U, V as a classic NAME_IUV.png.

    Raises:
        ValueError: the array is not uint8 [H, W, 3].
        DSAError: the file cannot be written.
    """
    if iuv.dtype != np.uint8 or iuv.ndim != 3 or iuv.shape[2] != 3:
        raise ValueError(f"iuv must be uint8 [H, W, 3], not {iuv.dtype} {list(iuv.shape)}")
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(iuv[..., ::-1])).save(temporary)


def read_pair(
    image_path: str | os.PathLike, iuv_path: str | os.PathLike
) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its IUV map, both uint8 [H, W, 3].

    Raises:
        DSAError: as read_image and read_iuv, and where the two sizes differ.
    """
    image, iuv = read_image(image_path), read_iuv(iuv_path)
    if image.shape != iuv.shape:
        raise DSAError(
            f"{iuv_path}: the IUV map is {iuv.shape[1]}x{iuv.shape[0]}, "
            f"but its image {image_path} is {image.shape[1]}x{image.shape[0]}"
        )
    return image, iuv


def _decode(path: str | os.PathLike, what: str) -> Image.Image:
    """Open and decode the whole file; every failure is a DSAError that names it."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except FileNotFoundError as error:
        raise DSAError(f"{path}: no such file ({what} was expected)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DSAError(f"{path}: not readable as {what}: {error}") from error
