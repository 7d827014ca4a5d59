"""Intervals over people."""

import numpy as np
import pytest

from dsareid.evaluation import bootstrap
from dsareid.evaluation.bootstrap import difference, interval


def mean(values):
    return lambda weights: (weights @ values) / weights.sum(1)


def test_it_covers_the_truth_about_as_often_as_it_says():
    """Queries of a person agree: drawing single queries would give intervals that are far too narrow."""
    draw, hits, narrow = np.random.default_rng(1), 0, 0
    for trial in range(200):
        people = np.repeat(np.arange(30), 10)
        values = np.repeat(draw.normal(5, 1, 30), 10)
        _, low, high = interval(mean(values), people, samples=300, seed=trial)
        hits += low <= 5 <= high
        _, low, high = interval(mean(values), np.arange(300), samples=300, seed=trial)
        narrow += low <= 5 <= high
    assert 178 <= hits <= 200 and narrow < 120


def test_a_paired_difference_is_told_more_sharply():
    draw = np.random.default_rng(2)
    hard = draw.normal(0, 1, 100)
    one, other = mean(hard), mean(hard + 0.1)
    value, low, high = interval(difference(other, one), np.arange(100))
    assert (value, low, high) == pytest.approx((0.1, 0.1, 0.1))
    assert np.ptp(interval(one, np.arange(100))[1:]) > 0.2


def test_seeds_and_parts(monkeypatch):
    values, people = np.random.default_rng(3).normal(size=60), np.repeat(np.arange(20), 3)
    first = interval(mean(values), people)
    assert interval(mean(values), people) == first and interval(mean(values), people, seed=1) != first
    assert interval(mean(values), [f"person {x:02}" for x in people]) == first
    monkeypatch.setattr(bootstrap, "_PART", 600)  # ten samples at a time
    assert interval(mean(values), people) == first


def test_samples_without_a_figure():
    def often(weights):
        return np.where(weights[:, 0] > 0, 1.0, np.nan)

    assert interval(often, np.arange(3)) == (1.0, 1.0, 1.0)
    nothing = interval(lambda weights: np.full(len(weights), np.nan), np.arange(3))
    assert np.isnan(nothing).all()
