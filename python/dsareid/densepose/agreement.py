"""How well a map agrees with another, or with points that annotators have marked: counts, and their scores.

The geodesic point similarity (GPS) of DensePose-COCO is the mean of exp(-g² / 2κ²) over a person's points, g
the distance on the body's surface between where a point is and where the map puts it. Here g is measured
along the chart, by lengths of its sides, and a point on a wrong part counts 0. That is a lower bound, because
a way over the edge of a chart may be shorter, but for places where a chart is stretched more than usual. GPSm
is the square root of GPS times the masks' IoU.
"""

from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np

from dsa_ext.parts import GROUPS


class ChartScale(NamedTuple):
    """The units of distance on a group of charts."""

    kappa: float  # metres: detectron2's DensePoseCocoEval has one for each of the eight groups
    u: float  # metres along which U (below: V) grows by 1: the median over the synthetic body, 1.85 m tall
    v: float


SCALES = (
    ChartScale(0.351, 0.79, 0.48),  # torso
    ChartScale(0.107, 0.29, 0.19),  # hands
    ChartScale(0.126, 0.30, 0.29),  # feet
    ChartScale(0.237, 0.51, 0.27),  # upper legs
    ChartScale(0.173, 0.42, 0.19),  # lower legs
    ChartScale(0.142, 0.35, 0.16),  # upper arms
    ChartScale(0.128, 0.30, 0.12),  # lower arms
    ChartScale(0.150, 0.26, 0.40),  # head
)
"""By the eight body groups of dsa_ext.parts."""
_KAPPA, _SIDE_U, _SIDE_V = (
    np.array([SCALES[k][field] for k in GROUPS[8]]) for field in range(3)
)  # [24] each


def _counts() -> np.ndarray:
    return np.zeros(24, np.int64)


@dataclass
class Agreement:
    """Counts over one person or many, of map A against the reference B. Arrays are by part, [24]."""

    overlap: int = 0  # pixels of both masks
    union: int = 0  # of either
    points: np.ndarray = field(default_factory=_counts)  # where B shows the part
    covered: np.ndarray = field(default_factory=_counts)  # of these, where A shows a person
    right: np.ndarray = field(default_factory=_counts)  # of these, where A shows the same part
    either: np.ndarray = field(default_factory=_counts)  # where A or B shows the part
    similarity: np.ndarray = field(default_factory=lambda: np.zeros(24))  # the sum over `points`
    errors: np.ndarray = field(default_factory=lambda: np.zeros((24, 2, 256), np.int64))
    """How many of `right` are off in U, and in V, by each number of 255ths."""

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(*(getattr(self, x.name) + getattr(other, x.name) for x in fields(Agreement)))

    def of_part(self, part: int) -> "Agreement":
        """What was counted on one part, 1..24; its mask is the part's."""
        one = Agreement(int(self.right[part - 1]), int(self.either[part - 1]))
        for name in ("points", "covered", "right", "either", "similarity", "errors"):
            getattr(one, name)[part - 1] = getattr(self, name)[part - 1]
        return one

    def scores(self) -> "Scores":
        """The scores that follow from the counts; NaN where nothing was counted."""
        gps = _ratio(self.similarity.sum(), self.points.sum())
        iou = _ratio(self.overlap, self.union)
        parts = _ratio(self.right.sum(), self.covered.sum())
        u, v = self.errors.sum(0)
        off = _quantile(u, 0.5), _quantile(u, 0.9), _quantile(v, 0.5), _quantile(v, 0.9)
        return Scores(iou, parts, *off, gps, (gps * iou) ** 0.5)


class Scores(NamedTuple):
    """Fractions of 1."""

    iou: float  # of the masks
    parts: float  # share of equal parts where both see a person
    u_median: float  # |dU| where the parts are equal
    u_90: float  # its 90th percentile
    v_median: float
    v_90: float
    gps: float
    gpsm: float


def compare_pixels(a: np.ndarray, b: np.ndarray) -> Agreement:
    """Count over all pixels of two maps of a person, uint8 [3, H, W] each: I, U, V."""
    body_a, body_b = a[0] > 0, b[0] > 0
    seen = body_a | body_b
    found = compare_points(a[:, seen], b[0][seen], b[1:][:, seen] / 255)
    found.overlap, found.union = int((body_a & body_b).sum()), int(seen.sum())
    return found


def compare_points(a: np.ndarray, part: np.ndarray, uv: np.ndarray) -> Agreement:
    """Count over n points, without masks.

    Args:
        a: uint8 [3, n]: I, U, V of the map.
        part: integers [n], 0..24, of the reference; 0 is background.
        uv: floating [2, n], 0..1.
    """
    found = Agreement()
    found_part = a[0].astype(np.int64)
    part = part.astype(np.int64)
    right = (found_part == part) & (part > 0)
    found.points = _by_part(part)
    found.covered = _by_part(part[found_part > 0])
    found.right = _by_part(part[right])
    found.either = found.points + _by_part(found_part) - found.right
    chart = part[right] - 1
    off = np.abs(a[1:, right] / 255 - uv[:, right])  # [2, m]
    steps = np.clip(np.rint(255 * off), 0, 255).astype(np.int64)
    for c in (0, 1):
        found.errors[:, c] = np.bincount(256 * chart + steps[c], minlength=24 * 256).reshape(24, 256)
    squared = (off[0] * _SIDE_U[chart]) ** 2 + (off[1] * _SIDE_V[chart]) ** 2
    near = np.exp(-squared / (2 * _KAPPA[chart] ** 2))
    found.similarity = np.bincount(chart, near, minlength=24)
    return found


def _by_part(part: np.ndarray) -> np.ndarray:
    return np.bincount(part, minlength=25)[1:]


def _ratio(one: float, other: float) -> float:
    return float(one / other) if other else float("nan")


def _quantile(counts: np.ndarray, share: float) -> float:
    """The smallest error, as a fraction, that at least this share of the counts does not exceed."""
    total = counts.sum()
    return float(np.searchsorted(counts.cumsum(), share * total) / 255) if total else float("nan")
