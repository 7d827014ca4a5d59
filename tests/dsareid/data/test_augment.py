"""Image and IUV map are moved together, and a flip swaps left and right as the warp would see it."""

import numpy as np
import torch

from dsa_ext import iuv_to_dsap, parts
from dsareid.data.augment import Augmentation, AugmentConfig, augment, draw_augmentation, swap_sides

HEIGHT, WIDTH = 24, 12


def batch(count=3, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    iuv = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    iuv[..., 0] %= 25
    return torch.from_numpy(images), torch.from_numpy(iuv)


def nothing(count=3):
    return Augmentation(
        np.zeros((count, 2), np.int64), np.zeros(count, bool), np.zeros((count, 4), np.int64),
        np.ones((count, 25), bool),
    )  # fmt: skip


def test_nothing_drawn_changes_nothing():
    images, iuv = batch()
    out, maps, valid = augment(images, iuv, nothing())
    assert torch.equal(out, images) and torch.equal(maps, iuv) and valid.all()


def test_shift_moves_both_and_marks_what_came_from_outside():
    images, iuv = batch()
    draw = nothing()
    draw.shift[:] = (2, -3)
    out, maps, valid = augment(images, iuv, draw)
    assert torch.equal(out[:, :-2, 3:], images[:, 2:, :-3])
    assert torch.equal(maps[:, :-2, 3:], iuv[:, 2:, :-3])
    assert valid[:, :-2, 3:].all() and not valid[:, -2:].any() and not valid[:, :, :3].any()
    assert not maps[~valid].any()


def test_erased_box():
    images, iuv = batch()
    draw = nothing()
    draw.erase[:] = (1, 2, 5, 4)
    _, maps, valid = augment(images, iuv, draw)
    assert not valid[:, 1:5, 2:4].any() and (~valid).sum() == 3 * 8
    assert not maps[:, 1:5, 2:4].any()


def test_flip_twice_is_nothing():
    images, iuv = batch()
    draw = nothing()
    draw.flip[:] = True
    once = augment(images, iuv, draw)
    assert torch.equal(once[0], images.flip(2))
    twice = augment(*once[:2], draw)
    assert torch.equal(twice[0], images) and torch.equal(twice[1], iuv)


def test_flipped_parts_are_the_twins_with_charts_reversed():
    """The part image of the flipped view is the twin's, read from the other end where charts differ."""
    iuv = torch.zeros(1, 24, 1, 3, dtype=torch.uint8)
    iuv[0, :, 0, 0] = torch.arange(1, 25)
    iuv[..., 1], iuv[..., 2] = 10, 60
    image = torch.arange(24, dtype=torch.uint8).view(1, 24, 1, 1) + 1

    def warp(maps):
        result = iuv_to_dsap(image.permute(0, 3, 1, 2), maps.permute(0, 3, 1, 2), size=255)
        part, _, row, column = result[0].nonzero().T
        return {int(p) + 1: (int(r), int(c)) for p, r, c in zip(part, row, column)}

    before, after = warp(iuv), warp(swap_sides(iuv))
    for part, (row, column) in before.items():
        twin = parts.TWIN[part - 1]
        expected = (
            255 - row if parts.FLIP_U[part - 1] else row,
            255 - column if parts.FLIP_V[part - 1] else column,
        )
        assert after[twin] == expected


def test_dropped_parts():
    images, iuv = batch(1)
    draw = nothing(1)
    draw.keep[0, [3, 17]] = False
    _, maps, _ = augment(images, iuv, draw)
    gone = (iuv[..., 0] == 3) | (iuv[..., 0] == 17)
    assert not maps[gone].any() and torch.equal(maps[~gone], iuv[~gone])


def test_images_alone():
    images, _ = batch()
    out, maps, _ = augment(images, None, nothing())
    assert maps is None and torch.equal(out, images)


def test_a_draw_depends_on_seed_epoch_image_and_repeat_alone():
    config = AugmentConfig(drop_person=0.3, drop_part=0.2)

    def draw(index, repeat, seed=1, epoch=2):
        drawn = draw_augmentation(
            config, seed, epoch, np.array(index), np.array(repeat), HEIGHT, WIDTH
        )
        return [np.concatenate([np.ravel(x[n]) for x in vars(drawn).values()]).tolist()
                for n in range(len(index))]  # fmt: skip

    together, reversed_ = draw([5, 6, 5], [0, 0, 1]), draw([5, 6, 5], [1, 0, 0])
    assert together == reversed_[::-1]
    assert together[0] != together[2]
    assert draw([5], [0], epoch=3) != draw([5], [0]) != draw([5], [0], seed=2)


def test_rates_and_ranges():
    config = AugmentConfig(pad=3, flip=0.25, erase=0.5, drop_person=0.2, drop_part=0.1)
    drawn = draw_augmentation(config, 0, 0, np.arange(4000), np.zeros(4000, int), 64, 32)
    assert abs(drawn.flip.mean() - 0.25) < 0.03
    assert drawn.shift.min() == -3 and drawn.shift.max() == 3
    top, left, bottom, right = drawn.erase.T
    area = (bottom - top) * (right - left)
    assert abs((area > 0).mean() - 0.5) < 0.03
    assert area[area > 0].min() > 0.015 * 2048 and area.max() < 0.42 * 2048
    assert (bottom <= 64).all() and (right <= 32).all()
    whole = (~drawn.keep).all(1)
    assert abs(whole.mean() - 0.2) < 0.03
    assert abs((~drawn.keep[~whole]).mean() - 0.1) < 0.02
