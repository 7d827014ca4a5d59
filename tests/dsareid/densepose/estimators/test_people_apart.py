"""Whose a pixel is: ways that lead to the middles of people who are drawn by hand."""

import numpy as np
import pytest
import torch

from dsareid.densepose.estimators.people_apart import mirror_toward, tell_apart, toward_middle


def scene(*people, size=(64, 48), shortfall=0.5):
    """Masks of people (top, left, height, width), and ways that fall short of their middles."""
    masks, toward = [], torch.zeros(2, *size)
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in size), indexing="ij")
    for top, left, height, width in people:
        mask = torch.zeros(size, dtype=torch.bool)
        mask[top : top + height, left : left + width] = True
        way = torch.stack([top + height / 2 - y, left + width / 2 - x])
        toward = torch.where(mask, shortfall * way, toward)
        masks.append(mask)
    return masks, toward


def main_person(body, toward):
    return tell_apart(body, toward) == 1


@pytest.mark.parametrize("shortfall", [0.35, 0.5, 0.7])
def test_the_central_person_is_kept(shortfall):
    (main, other), toward = scene((4, 14, 56, 16), (10, 34, 50, 12), shortfall=shortfall)
    assert torch.equal(main_person(main | other, toward), main)


def test_the_larger_person_is_kept_of_two_at_the_sides():
    (large, small), toward = scene((2, 2, 60, 20), (30, 30, 30, 14))
    assert torch.equal(main_person(large | small, toward), large)


def test_everybody_has_a_number():
    (one, two, three), toward = scene((4, 22, 56, 16), (30, 40, 30, 8), (6, 2, 40, 12))
    found = tell_apart(one | two | three, toward)
    assert torch.equal(found, one + 2 * three.long() + 3 * two.long())


def test_one_person_stays_whole():
    draw = torch.Generator().manual_seed(0)
    (body,), toward = scene((4, 10, 56, 20))
    noisy = toward + torch.randn(toward.shape, generator=draw)
    assert torch.equal(main_person(body, noisy), body)
    (head, legs), toward = scene((2, 16, 12, 10), (34, 14, 28, 14))  # a mask broken by dark clothes
    assert torch.equal(main_person(head | legs, toward), head | legs)
    (body, crumb), toward = scene((4, 10, 56, 20), (30, 40, 5, 5))  # too few pixels for a person
    assert torch.equal(main_person(body | crumb, toward), body | crumb)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (40, 1), (200, 120)])
def test_masks_of_any_size(size):
    draw = torch.Generator().manual_seed(0)
    toward = 50 * torch.randn(2, *size, generator=draw)
    for body in (torch.zeros(size, dtype=torch.bool), torch.ones(size, dtype=torch.bool)):
        kept = main_person(body, toward)
        assert kept.shape == body.shape and not (kept & ~body).any()


def test_ways_are_in_pixels_of_the_picture():
    """The mean of 17 key points, down and right; corner cells stand on the picture's corners."""
    offsets = torch.zeros(1, 34, 9, 5)
    offsets[:, :17], offsets[:, 17:] = torch.arange(17.0)[:, None, None], 16
    toward = toward_middle(offsets, (257, 33), 16)
    assert torch.allclose(toward[0, 0], torch.tensor(8.0 * 256 / 128))
    assert torch.allclose(toward[0, 1], torch.tensor(16.0 * 32 / 64))
    assert toward_middle(torch.ones(2, 34, 1, 1), (1, 1), 16).isfinite().all()
    ways = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 5)))
    mirrored = mirror_toward(ways)
    assert torch.equal(mirrored[0, :, 0], ways[0, :, -1]) and torch.equal(mirrored[1, :, 0], -ways[1, :, -1])
