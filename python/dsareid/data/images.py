"""Reading pictures: which files are pictures, and how they are turned upright.

Cameras and phones store a picture as the sensor lay, and write the turn that makes it upright into its EXIF
data. Every reader here makes that turn, as viewers, OpenCV and detectron2 do: DensePose's map of such a file
is the map of the upright picture.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile

from dsareid.ground.errors import DSAError

# Not all that Pillow reads: its other formats are rarer and less tested, and one of them starts Ghostscript.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    ".bmp",
    *(".jpeg", ".jpg", ".jpe", ".jfif"),
    *(".png", ".apng"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tif", ".tiff"),
    ".webp",
)
"""The suffixes of pictures in FORMATS, in lower case."""
MOST_PIXELS = 1 << 26  # of an image, 8192 x 8192: a small file can claim more than memory holds
LONGEST_SIDE = 1 << 15  # rows or columns of a stored image, as dsa_ext.assemble_batch takes them

# By EXIF's number. ImageOps.exif_transpose also writes the EXIF data anew, which raises where it is damaged.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)  # the turns that change width and height


class ImageHeader(NamedTuple):
    """What is known of a picture before it is decoded."""

    size: tuple[int, int]  # width and height, upright
    turn: int  # what makes it upright, 1..8 as in EXIF; 1: nothing, or there is no EXIF data


ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated file is an error, never a grey band


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image, upright, as uint8 [H, W, 3] RGB; grey, palette and RGBA files are converted.

    Raises:
        DSAError: the file is missing, truncated, no image of FORMATS, has more than 8 bits a channel, or
            claims more than MOST_PIXELS.
    """
    return _as_rgb(path, decode_image(path, "an image"))


def read_image_bytes(content: bytes, name: str) -> np.ndarray:
    """Read the content of an image file as read_image does; `name` is what errors call it."""
    with _opened(name, "an image", io.BytesIO(content)) as image:
        return _as_rgb(name, upright(image))


def _as_rgb(path: str | os.PathLike, image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I", "F")):
        raise DSAError(f"{path}: expected 8 bits a channel, but its mode is {image.mode}; convert it first")
    return np.array(image.convert("RGB"))  # a copy: Pillow's is read-only


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Width and height of an image, upright; errors as of image_header."""
    return image_header(path).size


def image_header(path: str | os.PathLike) -> ImageHeader:
    """Read the header of an image; a PNG is read whole, because its EXIF data may come last.

    Raises:
        DSAError: the file is missing, no image of FORMATS, or claims more than MOST_PIXELS.
    """
    with _opened(path, "an image") as image:
        turn = _orientation(image)
        sideways = image.format != "TIFF" and turn in SIDEWAYS  # Pillow turns TIFF itself
        return ImageHeader(image.size[::-1] if sideways else image.size, turn)


def turned(picture: str | os.PathLike | Image.Image) -> str:
    """What to add to the size of a picture in a message: that EXIF data has turned it, or nothing."""
    turn = _orientation(picture) if isinstance(picture, Image.Image) else image_header(picture).turn
    return "" if turn == 1 else f", turned upright as its EXIF data asks (orientation {turn})"


def upright(image: Image.Image) -> Image.Image:
    """A PIL image turned as its EXIF data asks; itself if there is nothing to turn."""
    image.load()  # first: Pillow turns TIFF then, and takes it from the EXIF data
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def decode_image(path: str | os.PathLike, what: str) -> Image.Image:
    """Open and decode a whole file, upright, in any mode.

    Args:
        path: the file.
        what: what an error says was expected.

    Raises:
        DSAError: as read_image, but for the mode.
    """
    with _opened(path, what) as image:
        return upright(image).copy()


@contextlib.contextmanager
def _opened(path: str | os.PathLike, what: str, content: io.BytesIO | None = None) -> Iterator[Image.Image]:
    """An image file, or its content; every failure to open or decode it is a DSAError that names it."""
    try:
        with Image.open(content or path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:  # by its header: nothing is decoded yet
                raise DSAError(f"{path}: {_too_large(f'{image.width} x {image.height} pixels')}")
            yield image
    except DSAError:
        raise
    except FileNotFoundError as error:
        raise DSAError(f"{path}: no such file ({what} was expected)") from error
    except Image.DecompressionBombError as error:  # Pillow's own bound, beyond ours
        raise DSAError(f"{path}: {_too_large(str(error).partition(' exceeds')[0])}") from error
    except Exception as error:  # what damaged bytes lead Pillow to raise
        raise DSAError(f"{path}: not readable as {what}: {error}") from error


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1..8; 1 if the EXIF data is missing or damaged, as viewers take it."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # whatever damaged bytes lead Pillow to raise
        return 1
    return found if found in range(1, 9) else 1


def _too_large(claimed: str) -> str:
    return f"it claims to be of {claimed}, but at most {MOST_PIXELS:,} pixels are read; make it smaller"
