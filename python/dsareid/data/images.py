"""Reading pictures."""

import contextlib
import os
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFile

from dsareid.ground.errors import DSAError

# Not all that Pillow reads: others are rarer and less tried, and for one of them it starts Ghostscript.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 1 << 26  # of an image, 8192 x 8192: a small file can claim more than memory holds
LONGEST_SIDE = 1 << 15  # rows or columns of a stored image, as dsa_ext.assemble_batch takes them

ImageFile.LOAD_TRUNCATED_IMAGES = False  # a truncated file is an error, never a grey band


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image as uint8 [H, W, 3] RGB; grey, palette and RGBA files are converted.

    Raises:
        DSAError: the file is missing, truncated, no image of FORMATS, has more than 8 bits a channel, or
            claims more than MOST_PIXELS.
    """
    image = decode_image(path, "an image")
    if image.mode.startswith(("I", "F")):
        raise DSAError(f"{path}: expected 8 bits a channel, but its mode is {image.mode}; convert it first")
    return np.array(image.convert("RGB"))  # a copy: Pillow's is read-only


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Width and height of an image, from its header alone.

    Raises:
        DSAError: the file is missing, no image of FORMATS, or claims more than MOST_PIXELS.
    """
    with _opened(path, "an image") as image:
        return image.size


def decode_image(path: str | os.PathLike, what: str) -> Image.Image:
    """Open and decode a whole file, of whatever mode.

    Args:
        path: the file.
        what: was expected, in the words of the error.

    Raises:
        DSAError: as read_image, but for the mode.
    """
    with _opened(path, what) as image:
        image.load()
        return image.copy()


@contextlib.contextmanager
def _opened(path: str | os.PathLike, what: str) -> Iterator[Image.Image]:
    """An image file; every failure to open or decode it is a DSAError that names it."""
    try:
        with Image.open(path, formats=FORMATS) as image:
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


def _too_large(claimed: str) -> str:
    return f"it claims to be of {claimed}, but at most {MOST_PIXELS:,} pixels are read; make it smaller"
