"""Networks that estimate DensePose maps from pictures, without DensePose.

estimator = load_estimator()
found = estimator("person.jpg")               # found.iuv, found.uv, found.probability
several = estimator(["a.jpg", image, array])  # a list of them
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, overload

from PIL import Image

from dsareid.data.any_image import ImageLike, rgb_pixels
from dsareid.densepose.estimators.base import EstimatedMap, Estimator
from dsareid.densepose.estimators.bodypix import BodyPix, People, Quality

EstimatorName = Literal["bodypix"]
ESTIMATORS: dict[EstimatorName, Callable[..., Estimator]] = {"bodypix": BodyPix}


class MapEstimator:
    """An estimator that takes pictures of any kind; load_estimator makes one."""

    def __init__(self, network: Estimator):
        self.network = network

    @overload
    def __call__(self, pictures: ImageLike, *, uv: bool = True) -> EstimatedMap: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, pictures: Iterable[ImageLike], *, uv: bool = True) -> list[EstimatedMap]: ...
    def __call__(
        self, pictures: ImageLike | Iterable[ImageLike], *, uv: bool = True
    ) -> EstimatedMap | list[EstimatedMap]:
        """The map of one picture, at its size, or a list of maps for several.

        Args:
            pictures: one of ImageLike, several of them, or a batch, uint8 (B, H, W, 3).
            uv: whether to give U and V as floats too.

        Raises:
            DSAError: a file that cannot be read.
            ValueError: something else than pictures.
        """
        if isinstance(pictures, (str, os.PathLike, Image.Image)) or getattr(pictures, "ndim", 0) == 3:
            return self.network(rgb_pixels(pictures, "a picture"), uv)
        if not isinstance(pictures, Iterable):
            raise ValueError(f"pictures must be one or several pictures, not {type(pictures).__name__}")
        return [self.network(rgb_pixels(picture, "a picture"), uv) for picture in pictures]

    def record(self) -> dict[str, Any]:
        """What makes the maps, as JSON: estimator, weights, settings, licence and origin."""
        return self.network.record()


def load_estimator(
    name: EstimatorName = "bodypix",
    *,
    weights: str | os.PathLike | None = None,
    device: str = "auto",
    quality: Quality = "default",
    people: People = "all",
) -> MapEstimator:
    """Load an estimator of DensePose maps: a function from pictures to their maps.

    Args:
        name: which one; "bodypix" is the only one.
        weights: the folder of its weights; None: that of the environment variable DSAREID_BODYPIX, or the
            user's cache, into which they are fetched once.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        quality: "default", or "best", which takes three to four times as long.
        people: "all" of a picture, or "one": the largest and most central, as crops of one person want it.

    Raises:
        DSAError: no weights, or those of another network; a device that does not exist.
        ValueError: an estimator, a quality or people that do not exist.
    """
    if name not in ESTIMATORS:
        raise ValueError(f"name must be one of {', '.join(ESTIMATORS)}, not {name!r}")
    return MapEstimator(ESTIMATORS[name](weights, device, quality, people))
