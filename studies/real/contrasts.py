"""The plan's analysis: differences between two arms, seeds and people as two sources of chance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

SAMPLES = 10_000
LEVEL = 0.05
SAME = 1.0
"""mAP points within which two arms are called equal."""


@dataclass(frozen=True)
class Contrast:
    """What the difference of two arms comes to, in points of mAP."""

    name: str
    differences: tuple[float, ...]  # of each seed
    seeds: float  # p, by Student's t over the seeds
    people: float  # p, by the bootstrap over people
    within: tuple[float, float]  # the wider of both 90 % intervals at each end

    @property
    def mean(self) -> float:
        return float(np.mean(self.differences))

    @property
    def p(self) -> float:
        """Both sources of chance must agree."""
        return max(self.seeds, self.people)


def contrast(
    name: str,
    more: Sequence[np.ndarray],
    less: Sequence[np.ndarray],
    people: np.ndarray,
    seed: int = 0,
) -> Contrast:
    """Compare two arms.

    Args:
        name: what is compared.
        more, less: of each seed, the average precision of each query, [Q], fractions of 1; at least two
            seeds, the same in both.
        people: the person of each query, [Q].
        seed: of the bootstrap.

    Raises:
        ValueError: the arms have other seeds or queries than each other.
    """
    if len(more) != len(less) or len(more) < 2:
        raise ValueError(f"{name}: both arms need the same seeds, at least two: {len(more)}, {len(less)}")
    if any(len(x) != len(people) for x in (*more, *less)):
        raise ValueError(f"{name}: all runs need the same {len(people)} queries")
    each = 100 * np.array([a - b for a, b in zip(more, less)])  # [seeds, Q]
    by_seed = each.mean(1)
    sums, counts = _by_person(each.mean(0), people)
    drawn = np.random.default_rng(seed).integers(0, len(sums), (SAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = min((means <= 0).mean(), (means >= 0).mean())
    low, high = np.quantile(means, [LEVEL, 1 - LEVEL])
    return Contrast(
        name,
        tuple(by_seed.tolist()),
        *_by_seeds(by_seed, float(low), float(high), float(min(1.0, max(2 * tail, 2 / SAMPLES)))),
    )


def _by_seeds(
    by_seed: np.ndarray, low: float, high: float, people: float
) -> tuple[float, float, tuple[float, float]]:
    """p over the seeds, p over people, and the wider interval at each end."""
    if np.ptp(by_seed) == 0:  # no chance in it: all seeds say the same
        mean = float(by_seed[0])
        return float(mean == 0), people, (min(low, mean), max(high, mean))
    test = stats.ttest_1samp(by_seed, 0.0)
    inside = test.confidence_interval(1 - 2 * LEVEL)
    return float(test.pvalue), people, (float(min(low, inside.low)), float(max(high, inside.high)))


def _by_person(values: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of the values of each person's queries, and their number."""
    _, index = np.unique(people, return_inverse=True)
    return np.bincount(index, values), np.bincount(index)


def verdicts(contrasts: Sequence[Contrast]) -> Mapping[str, str]:
    """What is said of each primary contrast: by Holm's rule, then by equivalence."""
    found: dict[str, str] = {}
    passing = True
    for rank, one in enumerate(sorted(contrasts, key=lambda x: x.p)):
        passing = passing and one.p <= LEVEL / (len(contrasts) - rank)
        low, high = one.within
        if passing:
            found[one.name] = "won" if one.mean > 0 else "lost"
        else:
            found[one.name] = "no difference" if -SAME < low and high < SAME else "undecided"
    return found
