"""Faults of IUV maps."""

import numpy as np
import pytest

from dsareid.synth import noise
from dsareid.synth.config import DIFFICULTIES


@pytest.fixture
def iuv() -> np.ndarray:
    """A head, a torso and two legs, 128 x 64, with U growing downwards and V to the right."""
    part = np.zeros((128, 64), np.uint8)
    part[10:30, 24:40] = 23
    part[30:70, 16:48] = 2
    part[70:120, 16:32] = 9
    part[70:120, 32:48] = 10
    u, v = np.mgrid[:128, :64] * np.array([2, 4])[:, None, None]
    uv = np.where(part > 0, np.stack([u, v]), 0).astype(np.uint8)
    return np.stack([part, *uv], 2)


@pytest.mark.parametrize("difficulty", DIFFICULTIES.values(), ids=DIFFICULTIES)
def test_maps_stay_legal_and_repeat(iuv, difficulty):
    for seed in range(20):
        faulty = noise.add_faults(iuv, difficulty, np.random.default_rng(seed))
        again = noise.add_faults(iuv, difficulty, np.random.default_rng(seed))
        assert faulty.dtype == np.uint8 and faulty.shape == iuv.shape
        assert np.array_equal(faulty, again)
        assert set(np.unique(faulty[..., 0])) <= set(np.unique(iuv[..., 0]))
        assert (faulty[faulty[..., 0] == 0] == 0).all()


def test_missing_persons_are_all_background(iuv):
    difficulty = DIFFICULTIES["default"]
    empty = [not noise.add_faults(iuv, difficulty, np.random.default_rng(seed)).any() for seed in range(400)]
    assert 0.05 < np.mean(empty) < 0.16


def test_missing_parts_vanish_wholly(iuv):
    seen = set()
    for seed in range(50):
        faulty = noise.drop_parts(iuv, 0.3, np.random.default_rng(seed))
        kept = np.isin(iuv[..., 0], np.unique(faulty[..., 0]))
        assert np.array_equal(faulty, np.where(kept[..., None], iuv, 0))
        seen.add(len(np.unique(faulty[..., 0])))
    assert len(seen) > 2
    assert np.array_equal(noise.drop_parts(iuv, 0.0, np.random.default_rng(0)), iuv)


def test_only_borders_move(iuv):
    moved = noise.shift_borders(iuv, 1.0, np.random.default_rng(1))
    assert (moved[..., 0] != iuv[..., 0]).any()
    deep_inside = np.s_[36:64, 22:42]
    assert (moved[deep_inside][..., 0] == 2).all()
    unmoved = noise.shift_borders(iuv, 0.0, np.random.default_rng(1))
    assert np.array_equal(unmoved, iuv)


def test_uv_error_is_smooth_and_of_the_given_spread(iuv):
    errors = []
    for seed in range(30):
        wrong = noise.distort_uv(iuv, 0.03, np.random.default_rng(seed)).astype(int)
        assert np.array_equal(wrong[..., 0], iuv[..., 0])
        error = (wrong - iuv)[36:64, 22:42, 1:]
        assert np.abs(np.diff(error, axis=0)).max() <= 4
        errors.append(error)
    assert 0.015 < np.std(errors) / 255 < 0.04
