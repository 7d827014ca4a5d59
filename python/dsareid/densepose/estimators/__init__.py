"""Networks that estimate DensePose maps from pictures, without detectron2.

estimator = load_estimator()                  # BodyPix; with model="FILE.pkl" DensePose R-CNN itself
found = estimator("person.jpg")               # found.iuv, found.uv, found.probability
several = estimator(["a.jpg", image, array])  # a list of them
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict, overload

import numpy as np
from PIL import Image

from dsareid.data.any_image import ImageLike, rgb_pixels
from dsareid.densepose.estimators.base import EstimatedMap, Estimator
from dsareid.densepose.estimators.bodypix import BodyPix, People, Quality
from dsareid.densepose.estimators.densepose_rcnn import RCNN, ROWS
from dsareid.densepose.given_boxes import MOST_BOXES
from dsareid.densepose.people import MIN_SCORE
from dsareid.ground.errors import DSAError

Boxes = Sequence[Sequence[float]] | np.ndarray
"""[n, 4], or [n, 5] with scores of 0..1."""


class MapEstimator:
    """An estimator that takes pictures of any kind; load_estimator makes one."""

    def __init__(self, network: Estimator):
        self.network = network

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, pictures: ImageLike, *, uv: bool = True, boxes: Boxes | None = None
    ) -> EstimatedMap: ...
    @overload
    def __call__(self, pictures: Iterable[ImageLike], *, uv: bool = True) -> list[EstimatedMap]: ...
    def __call__(
        self, pictures: ImageLike | Iterable[ImageLike], *, uv: bool = True, boxes: Boxes | None = None
    ) -> EstimatedMap | list[EstimatedMap]:
        """The map of one picture, at its size, or a list of maps for several.

        Args:
            pictures: one of ImageLike, several of them, or a batch, uint8 (B, H, W, 3).
            uv: whether to give U and V as floats too.
            boxes: of the people in one picture, in place of those that the estimator finds (DensePose R-CNN
                with `detect`): left, top, right, bottom in pixels, and a score if there is one. Who has less
                than .5 is left out, unless nobody has more.

        Raises:
            DSAError: a file that cannot be read.
            ValueError: something else than pictures, or than such boxes.
        """
        if isinstance(pictures, (str, os.PathLike, Image.Image)) or getattr(pictures, "ndim", 0) == 3:
            given = None if boxes is None else _checked_boxes(boxes)
            return self.network(rgb_pixels(pictures, "a picture"), uv, given)
        if not isinstance(pictures, Iterable):
            raise ValueError(f"pictures must be one or several pictures, not {type(pictures).__name__}")
        if boxes is not None:
            raise ValueError("boxes are for one picture; call the estimator for each")
        return [self.network(rgb_pixels(picture, "a picture"), uv) for picture in pictures]

    def record(self) -> dict[str, Any]:
        """What makes the maps, as JSON: estimator, weights, settings, licence and origin."""
        return self.network.record()


def _checked_boxes(boxes: Boxes) -> np.ndarray:
    """Boxes as float64 [n, 5]; without scores they have 1."""
    given = np.array(boxes, np.float64)
    if given.size == 0:
        return np.empty((0, 5))
    if given.ndim != 2 or given.shape[1] not in (4, 5) or not np.isfinite(given).all():
        raise ValueError(f"boxes must be numbers [n, 4] or [n, 5], not {list(given.shape)}")
    if given.shape[1] == 4:
        given = np.column_stack([given, np.ones(len(given))])
    scores = given[:, 4]
    if ((scores < 0) | (scores > 1)).any():
        raise ValueError("boxes must have scores of 0..1")
    people = np.count_nonzero(scores >= MIN_SCORE)
    if people > MOST_BOXES:
        raise ValueError(f"boxes must be at most {MOST_BOXES}, not {people:,}")
    if (given[:, :2] >= given[:, 2:4]).any():
        raise ValueError("boxes must have left < right and top < bottom")
    return given


class EstimatorSettings(TypedDict, total=False):
    """The arguments of load_estimator but `people`, for functions that load an estimator."""

    model: str | os.PathLike | None
    rows: int | None
    detect: bool
    bfloat16: bool
    weights: str | os.PathLike | None
    device: str
    quality: Quality | None


def load_estimator(
    *,
    model: str | os.PathLike | None = None,
    rows: int | None = None,
    detect: bool = False,
    bfloat16: bool = False,
    weights: str | os.PathLike | None = None,
    device: str = "auto",
    quality: Quality | None = None,
    people: People | None = None,
) -> MapEstimator:
    """Load an estimator of DensePose maps: a function from pictures to their maps.

    Without `model` it is BodyPix, and `weights`, `quality` and `people` are its settings. With it, DensePose
    R-CNN takes each picture as a crop of one person, and `rows` is its setting; or, with `detect`, it finds
    people in photographs, and `people` is.

    Args:
        model: a file of weights of a chart model of DensePose R-CNN: detectron2's zoo (.pkl), a training with
            detectron2 (.pth), or TorchScript of one (.pt).
        rows: of a crop, as DensePose R-CNN sees it; None: 320.
        detect: whether DensePose R-CNN finds people in photographs, by its own detector.
        bfloat16: whether DensePose R-CNN computes in bfloat16, on processors that have it: faster, and maps
            differ a little.
        weights: the folder of BodyPix's weights; None: that of the environment variable DSAREID_BODYPIX, or
            the user's cache, into which they are fetched once.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        quality: "default" (None), or "best", which takes three to four times as long.
        people: "all" (None) of a picture, or "one": the largest and most central, as crops of one person
            want it.

    Raises:
        DSAError: no weights, or those of another network; a setting of the other estimator; a device that
            does not exist.
        ValueError: a quality or people that do not exist.
    """
    if model is None:
        for name, given in (("rows", rows is not None), ("detect", detect), ("bfloat16", bfloat16)):
            if given:
                raise DSAError(f"`{name}` is a setting of DensePose R-CNN; it needs `model`")
        return MapEstimator(BodyPix(weights, device, quality or "default", people or "all"))
    for name, value in (("weights", weights), ("quality", quality)):
        if value is not None:
            raise DSAError(f"`{name}` is a setting of BodyPix, which `model` replaces")
    if people == "all" and not detect:
        raise DSAError(
            '`people="all"`: with `model` each picture is taken as a crop of one person; `detect` finds '
            "people in photographs"
        )
    if detect and rows is not None:
        raise DSAError("`rows` is for crops, and `detect` for photographs; give one of them")
    try:
        rcnn = RCNN(model, device, ROWS if rows is None else rows, detect, people or "all", bfloat16)
        return MapEstimator(rcnn)
    except OSError as error:
        raise DSAError(f"{model}: cannot be read: {error.strerror or error}") from error
