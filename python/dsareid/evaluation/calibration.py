"""What a distance means: how many pairs of different people lie as near, and how likely it is one person.

Fitted to counted pairs. The false-match rate of a distance is the share of different-person pairs nearer than
it. The score is the share of same-person pairs among all pairs at that distance, if same-person and
different-person pairs were equally many, made monotone by isotonic regression.
"""

from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import isotonic_regression

from dsareid.evaluation.verification import PairCounts, cell_starts
from dsareid.ground.errors import DSAError

_PER_DECADE = 40  # knots for each factor of ten of the false-match rate
_SHARES = 100  # knots over the same-person pairs
FIRM = 30
"""A rate that rests on fewer false matches than this may be off by more than a third (the rule of 30)."""

Share = Annotated[float, Field(ge=0, le=1)]


class Calibration(BaseModel):
    """Scores and false-match rates at some distances, ascending; between them scores are interpolated."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    same: Annotated[int, Field(ge=1)]
    """How many same-person pairs it was fitted to."""
    other: Annotated[int, Field(ge=1)]
    """How many different-person pairs."""
    distances: Annotated[list[Annotated[float, Field(ge=0, allow_inf_nan=False)]], Field(min_length=1)]
    """Euclidean, ascending."""
    scores: list[Share]
    """The likelihood that a pair at this distance shows one person, never ascending."""
    rates: list[Share]
    """The share of different-person pairs nearer than this distance, never descending."""
    matches: list[Share]
    """The share of same-person pairs nearer than this distance, never descending."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        for name, sign in (("distances", 1), ("scores", -1), ("rates", 1), ("matches", 1)):
            steps = sign * np.diff(np.array(getattr(self, name)))
            if (
                len(steps) != len(self.distances) - 1
                or (steps < 0).any()
                or (name == "distances" and not steps.all())
            ):
                raise ValueError(f"{name} must be {len(self.distances)} numbers in order")
        if self.rates[0] or self.matches[0]:
            raise ValueError("nothing may be nearer than the first distance")
        return self

    def score(self, distance: float) -> float:
        """The score of a distance."""
        return float(np.interp(distance, self.distances, self.scores))

    def threshold(self, rate: float) -> float:
        """The largest known distance below which at most that share of different-person pairs lies.

        Raises:
            DSAError: there are too few pairs to say.
        """
        return self.distances[self._last_within(rate)]

    def match_rate(self, rate: float) -> float:
        """The share of same-person pairs below the threshold of a false-match rate.

        Raises:
            DSAError: as threshold.
        """
        return self.matches[self._last_within(rate)]

    def false_matches(self, rate: float) -> int:
        """How many different-person pairs a false-match rate rests on.

        Raises:
            DSAError: it is not between 0 and 1, or not one pair.
        """
        if not 0 < rate < 1:
            raise DSAError(f"`false_match_rate` must be between 0 and 1, not {rate}")
        if not (count := int(rate * self.other)):
            raise DSAError(
                f"`false_match_rate={rate:g}`: the calibration knows {self.other:,} pairs of two people, too "
                f"few to say; the least rate is {1 / self.other:.1g}"
            )
        return count

    def _last_within(self, rate: float) -> int:
        """The place of the largest distance with at most this rate; DSAError as threshold."""
        self.false_matches(rate)
        return int(np.searchsorted(self.rates, rate, side="right")) - 1


def format_score(score: float | None) -> str:
    """A score in per cent, never certain; "" for None."""
    if score is None:
        return ""
    return ">99%" if score >= 0.995 else "<1%" if score < 0.005 else f"{100 * score:.0f}%"


def fit(pairs: PairCounts, each: int = 1) -> Calibration:
    """Fit a calibration to counted pairs of squared Euclidean distances.

    Args:
        each: how often each pair was counted.

    Raises:
        ValueError: no pair shows one person, or none shows two.
    """
    counts = [x.cpu().numpy() for x in (pairs.same, pairs.other)]
    totals = [int(x.sum()) for x in counts]
    for what, total in zip(("one person from two cameras", "two people"), totals):
        if not total:
            raise ValueError(f"no pair of images shows {what}")
    cells = np.flatnonzero(counts[0] + counts[1])
    same, other = (x[cells] for x in counts)
    shares = [x / total for x, total in zip((same, other), totals)]
    weights = shares[0] + shares[1]
    scores = isotonic_regression(shares[0] / weights, weights=weights, increasing=False).x
    # Never certain: one more pair of the other kind could have lain at either end.
    scores = scores.clip(each / (totals[0] + 2 * each), 1 - each / (totals[1] + 2 * each))
    below = [np.concatenate([[0], x.cumsum()[:-1]]) / total for x, total in zip((same, other), totals)]
    # A cell's start is its distance; the end of the last is one knot more, below which everything lies.
    starts = np.sqrt(cell_starts(np.append(cells, cells[-1] + 1)).clip(min=0))
    # Nothing is nearer than 0, though the squares of equal features may come out below it.
    matches, rates = (np.where(starts > 0, np.append(x, 1.0), 0.0) for x in below)
    if starts[0] > 0:
        matches[0] = rates[0] = 0.0
    kept = _knots(starts, matches, rates, totals[1])
    return Calibration(
        same=totals[0] // each,
        other=totals[1] // each,
        distances=starts[kept].tolist(),
        scores=np.append(scores, scores[-1])[kept].tolist(),
        rates=rates[kept].tolist(),
        matches=matches[kept].tolist(),
    )


def _knots(starts: np.ndarray, matches: np.ndarray, rates: np.ndarray, pairs: int) -> np.ndarray:
    """Places to keep: the last before each step of either share, of distances that all differ."""
    decades = np.log10(pairs)
    marks = 10 ** -np.linspace(0, decades, int(np.ceil(decades * _PER_DECADE)) + 1)
    at: list[np.ndarray] = [
        np.searchsorted(rates, marks, side="right") - 1,
        np.searchsorted(matches, np.linspace(0, 1, _SHARES + 1), side="right") - 1,
        np.array([len(starts) - 1]),
    ]
    kept: np.ndarray = np.unique(np.concatenate(at))
    return kept[np.append(np.diff(starts[kept]) > 0, True)]
