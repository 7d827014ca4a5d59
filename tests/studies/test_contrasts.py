"""The study's statistics against scipy's and by hand."""

import numpy as np
import pytest
from scipy import stats

from studies.real.contrasts import Contrast, contrast, verdicts


def runs(shift, seeds=5, queries=60, noise=0.01):
    """Average precisions of two arms; people have three queries each."""
    draw = np.random.default_rng(0)
    less = [draw.uniform(0.2, 0.8, queries) for _ in range(seeds)]
    more = [x + shift + draw.normal(0, noise, queries) for x in less]
    return more, less, np.repeat(np.arange(queries // 3), 3)


def test_seeds_are_tested_as_scipy_does():
    more, less, people = runs(0.01)
    found = contrast("a", more, less, people)
    paired = stats.ttest_rel([100 * x.mean() for x in more], [100 * x.mean() for x in less])
    assert found.seeds == pytest.approx(paired.pvalue)
    assert found.mean == pytest.approx(1, abs=0.3) and len(found.differences) == 5
    assert found == contrast("a", more, less, people)
    low, high = found.within
    inside = paired.confidence_interval(0.9)
    assert low <= inside.low + 1e-9 and high >= inside.high - 1e-9


def test_people_are_drawn_with_all_of_their_queries():
    """One person with many queries makes the whole difference: another draw often has none of it."""
    _, less, _ = runs(0.0)
    people = np.array([0] * 30 + list(range(1, 31)))
    more = [x + (0.1 + 0.001 * seed) * (people == 0) for seed, x in enumerate(less)]
    found = contrast("a", more, less, people)
    assert found.mean == pytest.approx(5.1) and found.seeds < 1e-6
    share = (1 - 1 / 31) ** 31  # of draws without that person, in which nothing differs
    assert found.people == pytest.approx(2 * share, abs=0.03) and found.p == found.people


def test_what_is_refused():
    more, less, people = runs(0.0)
    for a, b in ((more[:4], less), (more[:1], less[:1])):
        with pytest.raises(ValueError, match="a: both arms need the same seeds"):
            contrast("a", a, b, people)
    with pytest.raises(ValueError, match="the same 59 queries"):
        contrast("a", more, less, people[:-1])


def test_holms_rule_and_equivalence():
    def one(name, p, mean, within=(-3.0, 3.0)):
        return Contrast(name, (mean, mean), p, p / 2, within)

    assert verdicts([one("a", 0.02, 2.0), one("b", 0.04, 1.0)]) == {"a": "won", "b": "won"}
    assert verdicts([one("a", 0.03, 2.0), one("b", 0.04, 1.0)]) == {"a": "undecided", "b": "undecided"}
    assert verdicts([one("a", 0.01, -2.0), one("b", 0.06, 0.1, (-0.5, 0.9))]) == {
        "a": "lost",
        "b": "no difference",
    }
    assert verdicts([one("a", 0.5, 0.1, (-0.5, 1.1))]) == {"a": "undecided"}


def test_arms_that_are_equal_do_not_differ():
    _, less, people = runs(0.0)
    found = contrast("a", less, less, people)
    assert (found.p, found.within, found.mean) == (1.0, (0.0, 0.0), 0.0)
    assert verdicts([found]) == {"a": "no difference"}
