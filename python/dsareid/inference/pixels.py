"""Images of any kind and size as the pixels that a network takes."""

import collections
import os
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image
from torch import Tensor

from dsareid.data.images import read_image, upright
from dsareid.ground.errors import DSAError

ImageLike = str | os.PathLike | Image.Image | np.ndarray | Tensor
"""An image file, a PIL image (any mode of 8 bits a channel), or uint8 [h, w, 3] RGB. The first two are turned
upright as their EXIF data asks."""


def as_pixels(image: ImageLike, height: int, width: int) -> np.ndarray:
    """An image, uint8 [height, width, 3]: resized as evaluation does, bit for bit.

    Raises:
        DSAError: a file that cannot be read, see read_image.
        ValueError: something else than an image.
    """
    if isinstance(image, (str, os.PathLike)):
        pixels = read_image(image)
    elif isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"an image must have 8 bits a channel, but its mode is {image.mode}")
        pixels = np.array(upright(image).convert("RGB"))
    else:
        pixels = _as_array(image)
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def _as_array(image: np.ndarray | Tensor) -> np.ndarray:
    pixels = image.cpu().numpy() if isinstance(image, Tensor) else image
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        raise ValueError(f"an image must be a path, a PIL image or a uint8 array, not {kind}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"an image must be uint8 [h, w, 3], not {pixels.dtype} {list(pixels.shape)}")
    return pixels


def read_ahead(
    images: Iterable[ImageLike], height: int, width: int, *, threads: int, ahead: int
) -> Generator[np.ndarray | DSAError, None, None]:
    """The images in order as as_pixels returns them, in place of a file that cannot be read its DSAError.

    Args:
        threads: how many images are read at a time; Pillow decodes without the GIL.
        ahead: how many images, at most, are read before they are taken.
    """

    def read(image: ImageLike) -> np.ndarray | DSAError:
        try:
            return as_pixels(image, height, width)
        except DSAError as error:
            return error

    waiting: collections.deque[Future[np.ndarray | DSAError]] = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for image in images:
                waiting.append(pool.submit(read, image))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
