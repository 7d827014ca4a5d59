"""What an estimator of DensePose maps is: a picture in, a map out."""

from typing import Any, NamedTuple, Protocol

import numpy as np

LEAST_OTHERS = 0.02  # share of the people's pixels; a smaller one is not another person


class EstimatedMap(NamedTuple):
    """The map of one picture."""

    iuv: np.ndarray  # uint8 [H, W, 3] in the order I, U, V; the background is 0
    uv: np.ndarray | None  # float32 [2, H, W], U and V before they are rounded, 0 in the background
    probability: float  # that somebody is in the picture, 0..1
    others: float = 0.0  # share of the people's pixels that belong to people other than the one kept
    instances: np.ndarray | None = None  # uint8 [H, W], whose pixel it is: 1, 2, ...; None: not told apart
    unsure: bool = False  # the person kept was the best of those below the least score


class Estimator(Protocol):
    """A network that estimates maps. A new one is such a class and a way to it in load_estimator."""

    def __call__(self, image: np.ndarray, uv: bool = True, boxes: np.ndarray | None = None) -> EstimatedMap:
        """The map of uint8 [H, W, 3] RGB, with U and V as floats or without. On a processor it has the same
        bits whatever else is estimated beside it.

        Args:
            boxes: float64 [n, 5] of the people: left, top, right, bottom in pixels, and score; None: whom the
                estimator finds.
        """

    def record(self) -> dict[str, Any]:
        """What made the maps, as JSON beside them: name, weights, settings, licence, origin."""
