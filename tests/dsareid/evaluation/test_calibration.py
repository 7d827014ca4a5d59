"""What distances mean, against counts by hand."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dsareid.evaluation.calibration import Calibration, fit
from dsareid.evaluation.verification import PairCounts, cell_starts
from dsareid.ground.errors import DSAError


def counts(same, other):
    """Counted pairs of these distances."""
    pairs = PairCounts(torch.device("cpu"))
    distances = torch.tensor(np.concatenate([same, other]) ** 2)[:, None]
    at = torch.arange(len(same))
    pairs.add(distances, torch.stack([at, 0 * at], 1), torch.empty(0, 2, dtype=torch.int64), 0)
    return pairs


@pytest.fixture(scope="module")
def scene():
    draw = np.random.default_rng(0)
    return draw.normal(0.8, 0.12, 3000).clip(0.05), draw.normal(1.3, 0.12, 40_000).clip(0.05)


def test_rates_are_what_was_counted(scene):
    same, other = scene
    found = fit(counts(same, other))
    assert (found.same, found.other) == (len(same), len(other))
    for rate in (0.5, 0.1, 0.01, 0.001, 1 / 40_000):
        limit = found.threshold(rate)
        assert (other < limit).mean() <= rate
        assert (other < limit * 1.02).mean() >= 0.9 * rate  # and hardly less than it might be
        assert found.match_rate(rate) == pytest.approx((same < limit).mean(), abs=0.011)


def test_scores_are_likelihoods(scene):
    """Of new pairs with a score near s, as many of each kind, about a share of s show one person."""
    found, draw = fit(counts(*scene)), np.random.default_rng(1)
    same, other = draw.normal(0.8, 0.12, 20_000), draw.normal(1.3, 0.12, 20_000)
    scores = [np.array([found.score(x) for x in some]) for some in (same, other)]
    for low in (0.2, 0.4, 0.6):
        right, wrong = ([low <= x < low + 0.2 for x in some] for some in scores)
        assert low - 0.1 <= sum(right) / (sum(right) + sum(wrong)) <= low + 0.3
    assert found.score(0.3) > 0.999 and found.score(1.9) < 0.01
    assert 0 < found.score(9.0) and found.score(0.0) < 1  # never certain


def test_pairs_counted_twice(scene):
    same, other = scene
    once, twice = fit(counts(same, other)), fit(counts(np.tile(same, 2), np.tile(other, 2)), each=2)
    assert (twice.same, twice.other) == (len(same), len(other))
    for x in (0.0, 0.5, 0.9, 1.0, 1.1, 2.0):
        assert twice.score(x) == pytest.approx(once.score(x), abs=1e-2)
    assert twice.threshold(0.01) == pytest.approx(once.threshold(0.01), rel=0.02)


def test_few_pairs():
    found = fit(counts(np.array([0.5]), np.array([1.0, 2.0])))
    assert found.threshold(0.5) == pytest.approx(2.0, rel=1e-3) and found.score(0.1) == 0.75
    with pytest.raises(DSAError, match="2 pairs of two people, too few to say; the least rate is 0.5"):
        found.threshold(0.1)
    for rate in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(DSAError, match="must be between 0 and 1"):
            found.threshold(rate)


@pytest.mark.parametrize("same, other, what", [([], [1.0], "one person"), ([1.0], [], "two people")])
def test_one_kind_alone(same, other, what):
    with pytest.raises(ValueError, match=f"no pair of images shows {what}"):
        fit(counts(np.array(same), np.array(other)))


def test_equal_distances():
    """All pairs at one distance: it says nothing."""
    found = fit(counts(np.full(10, 0.7), np.full(10, 0.7)))
    assert found.score(0.7) == pytest.approx(0.5) and found.match_rate(0.5) == 0.0


def test_pairs_at_distance_0():
    """A rate below their share accepts nobody; squares of equal features may come out negative."""
    pairs = counts(np.full(50, 0.9), np.concatenate([np.zeros(20), np.linspace(1, 2, 980)]))
    pairs.add(
        torch.full((20, 1), -1e-7),
        torch.empty(0, 2, dtype=torch.int64),
        torch.empty(0, 2, dtype=torch.int64),
        0,
    )
    found = fit(pairs)
    assert found.rates[0] == 0 and found.threshold(0.01) == 0.0 and found.match_rate(0.01) == 0.0
    assert 0.8 < found.threshold(0.05) < 1.1
    with pytest.raises(ValidationError, match="nothing may be nearer than the first distance"):
        Calibration.model_validate({**found.model_dump(), "rates": [0.1] * len(found.rates)})


def test_cells_start_where_they_start():
    distances = torch.tensor([0.0, 1e-9, 0.5, 1.0, 3.7, 1e9])
    pairs = PairCounts(torch.device("cpu"))
    pairs.add(
        distances[:, None], torch.empty(0, 2, dtype=torch.int64), torch.empty(0, 2, dtype=torch.int64), 0
    )
    cells = pairs.other.nonzero().squeeze(1).numpy()
    starts = cell_starts(cells)
    assert (starts <= distances.numpy()).all() and (cell_starts(cells + 1) > distances.numpy()).all()
    for place, start in enumerate(starts):
        assert pairs.below(float(start)) == (0, place)


def test_what_is_no_calibration(scene):
    good = fit(counts(*scene)).model_dump()
    Calibration.model_validate(good)
    for name in ("distances", "scores", "rates", "matches"):
        for change in (good[name][::-1], good[name][:-1], [*good[name][:-1], float("nan")]):
            with pytest.raises(ValidationError):
                Calibration.model_validate({**good, name: change})
