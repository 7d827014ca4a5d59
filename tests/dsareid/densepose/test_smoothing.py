"""Smoothing maps of frames, and the measure of flicker."""

import numpy as np
import pytest

from dsareid.densepose.smoothing import TOLERANCE, Flicker, mapped_frame, smooth


def frame(part, u, v, grey=100, size=(6, 8)):
    """A frame of one colour whose map is the same everywhere."""
    iuv = np.full((*size, 3), (part, u, v), np.uint8)
    return mapped_frame(np.full((*size, 3), grey, np.uint8), iuv)


def first(iuv):
    assert iuv.dtype == np.uint8 and (iuv == iuv[0, 0]).all()
    return iuv[0, 0].tolist()


def test_the_majority_and_the_mean_of_those_that_agree():
    others = [frame(2, 101, 50), frame(2, 104, 50), frame(3, 0, 0), frame(2, 106, 51)]
    assert first(smooth(frame(2, 100, 50), others)) == [2, 103, 50]  # 411 / 4, 201 / 4
    assert first(smooth(frame(9, 100, 50), others)) == [2, 104, 50]  # 311 / 3, 151 / 3
    assert first(smooth(frame(0, 0, 0), others)) == [2, 104, 50]
    assert first(smooth(frame(3, 7, 7), [frame(2, 1, 1)])) == [3, 7, 7]  # of equals its own
    assert first(smooth(frame(2, 7, 7), [frame(0, 0, 0), frame(0, 0, 0)])) == [0, 0, 0]
    assert first(smooth(frame(2, 7, 8), [])) == [2, 7, 8]


def test_what_changes_its_colour_stays():
    own, others = frame(2, 100, 50), [frame(5, 1, 1, 100 + TOLERANCE), frame(5, 1, 1, 101 + TOLERANCE)]
    assert first(smooth(own, others)) == [2, 100, 50]
    assert first(smooth(own, [others[0], others[0]])) == [5, 1, 1]
    pixels = np.full((6, 20, 3), 100, np.uint8)
    pixels[:, 10:] = 200
    moved = mapped_frame(pixels, np.full((6, 20, 3), 5, np.uint8))
    still = frame(2, 100, 50, size=(6, 20))
    found = smooth(still, [moved, moved])
    assert (found[:, :9] == 5).all() and (found[:, 9:] == (2, 100, 50)).all()  # the blur takes a pixel


def test_who_walks_is_met_where_they_are():
    """A striped person, 10 columns further right in each frame, with one wrong map."""
    frames = []
    for k in range(5):
        pixels, iuv = np.full((20, 80, 3), 90, np.uint8), np.zeros((20, 80, 3), np.uint8)
        left = 10 * k
        pixels[4:16, left : left + 16] = np.arange(0, 240, 15, dtype=np.uint8)[:, None]
        iuv[4:16, left : left + 16] = (2, 100, 50) if k != 2 else (3, 9, 9)
        frames.append(mapped_frame(pixels, iuv))
    found = smooth(frames[2], frames[:2] + frames[3:])
    assert (found[6:14, 22:34] == (2, 100, 50)).all() and not found[:, :20].any() and not found[:, 36:].any()
    assert (smooth(frames[2], [frames[2]._replace(middle=None)])[6:14, 22:34] == (3, 9, 9)).all()


def test_inputs_are_not_changed():
    own, other = frame(2, 100, 50), frame(3, 1, 1)
    smooth(own, [other, other])
    assert first(own.iuv) == [2, 100, 50] and first(other.iuv) == [3, 1, 1]


def test_flicker():
    counted = Flicker()
    assert counted.share() == 0 and counted.mean_steps() == (0, 0)
    counted.add(frame(2, 100, 50), frame(2, 151, 50))
    counted.add(frame(2, 151, 50), frame(3, 0, 0))
    counted.add(frame(3, 0, 0), frame(3, 255, 255, grey=200))  # the colour changes: not counted
    counted.add(frame(0, 0, 0), frame(0, 9, 9))  # no person
    assert counted.pixels == 96 and counted.share() == 0.5
    assert counted.mean_steps() == pytest.approx((51 / 255, 0))


def test_smoothing_lessens_flicker_of_noise():
    draw = np.random.default_rng(0)
    part = np.where(np.arange(40) < 20, 1, 2)[None].repeat(30, 0)
    frames = []
    for _ in range(5):
        wrong = draw.random((30, 40)) < 0.1
        uv = draw.integers(90, 110, (30, 40, 2))
        iuv = np.dstack([np.where(wrong, 5, part), uv]).astype(np.uint8)
        frames.append(mapped_frame(np.full((30, 40, 3), 90, np.uint8), iuv))
    steady = [each._replace(iuv=smooth(each, [x for x in frames if x is not each])) for each in frames]
    before, after = Flicker(), Flicker()
    before.add(frames[0], frames[1])
    after.add(steady[0], steady[1])
    assert after.share() < before.share() / 5 and after.mean_steps()[0] < before.mean_steps()[0] / 3
    assert (steady[2].iuv[..., 0] == part).mean() > 0.98
