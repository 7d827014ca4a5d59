"""Images of any kind and size as the input pixels of a network."""

import collections
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from dsareid.data.any_image import ImageLike, rgb_pixels
from dsareid.ground.errors import DSAError


def as_pixels(image: ImageLike, height: int, width: int) -> np.ndarray:
    """An image, uint8 [height, width, 3]: resized as evaluation does, bit for bit.

    Raises:
        DSAError: a file that cannot be read, see read_image.
        ValueError: not an image.
    """
    pixels = rgb_pixels(image)
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def read_ahead(
    images: Iterable[ImageLike], height: int, width: int, *, threads: int, ahead: int
) -> Generator[np.ndarray | DSAError, None, None]:
    """Yield the images in order, as as_pixels returns them; for a file that cannot be read, its DSAError.

    Args:
        threads: how many images to read at a time; Pillow decodes without the GIL.
        ahead: how many images to read, at most, before the caller takes them.
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
