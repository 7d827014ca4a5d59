"""Intervals by a bootstrap over people: all queries of a person are drawn together, as they are alike."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SAMPLES = 1000
LEVEL = 0.95
_PART = 1 << 22  # weights in memory at once


Figure = Callable[[np.ndarray], np.ndarray]
"""How often each query counts, int64 [S, Q] -> the figure of each of these S samples, floating [S]; NaN if a
sample has none."""


class Interval(NamedTuple):
    """A figure, and where it would lie if other people had been asked."""

    value: float
    low: float
    high: float


def interval(figure: Figure, people: np.ndarray, samples: int = SAMPLES, seed: int = 0) -> Interval:
    """A figure over queries with its percentile interval at LEVEL.

    Args:
        figure: of samples; those without one are left out of the interval.
        people: the person of each query, [Q], of any type that can be sorted.
        samples: how many to draw.
        seed: of the draws.

    Returns:
        The figure with every query once, and the interval; NaN at both ends if no sample has a figure.
    """
    _, person = np.unique(people, return_inverse=True)
    count = int(person.max()) + 1
    draw = np.random.default_rng(seed)
    step = max(1, _PART // max(len(person), count))
    found = []
    for start in range(0, samples, step):
        drawn = draw.multinomial(count, np.full(count, 1 / count), min(step, samples - start))  # [S, people]
        found.append(figure(drawn[:, person]))
    value = float(figure(np.ones((1, len(person)), np.int64))[0])
    known = np.concatenate(found)
    known = known[~np.isnan(known)]
    if not len(known):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def difference(more: Figure, less: Figure) -> Figure:
    """By how much one figure exceeds another over the same queries."""
    return lambda weights: more(weights) - less(weights)
