"""Images as callers have them: files, PIL images, arrays, tensors."""

import os

import numpy as np
from PIL import Image
from torch import Tensor

from dsareid.data.images import read_image, upright

ImageLike = str | os.PathLike | Image.Image | np.ndarray | Tensor
"""An image file, a PIL image (any mode of 8 bits a channel), or uint8 [h, w, 3] RGB. The first two are turned
upright as their EXIF data asks."""


def rgb_pixels(image: object, what: str = "an image") -> np.ndarray:
    """An ImageLike as uint8 [h, w, 3] RGB.

    Args:
        image: any object.
        what: what an error calls the image.

    Raises:
        DSAError: a file that cannot be read, see read_image.
        ValueError: not an ImageLike.
    """
    if isinstance(image, (str, os.PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"{what} must have 8 bits a channel, but its mode is {image.mode}")
        return np.array(upright(image).convert("RGB"))
    pixels = image.cpu().numpy() if isinstance(image, Tensor) else image
    if not isinstance(pixels, np.ndarray):
        kind = type(pixels).__name__
        raise ValueError(f"{what} must be a path, a PIL image or a uint8 array, not {kind}")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"{what} must be uint8 [h, w, 3], not {pixels.dtype} {list(pixels.shape)}")
    return pixels
