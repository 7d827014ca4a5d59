"""draw_augmentation beside the published Philox vectors and the distributions it promises;
test_operations.py has the table of odd cases."""

import itertools
import math

import numpy as np
import pytest
import torch

from dsa_ext import draw_augmentation
from dsa_ext.augment import COLUMNS, KEEP_ALL, _philox

MANY = torch.arange(20_000)
SIZE = {"height": 256, "width": 128}
OFF = {"pad": 0, "flip": 0.0, "erase": 0.0}


def columns(drawn):
    return {name: drawn[:, k].double() for k, name in enumerate(COLUMNS)}


def assert_rate(events, probability):
    """Within four standard deviations; the draws are always the same ones."""
    deviation = math.sqrt(probability * (1 - probability) / len(events))
    assert abs(events.double().mean() - probability) < 4 * deviation


def assert_uniform(values, least, most):
    """Whole numbers least..most, by their mean, variance and extremes."""
    n = most - least + 1
    variance = (n * n - 1) / 12
    assert values.min() == least and values.max() == most
    assert abs(values.mean() - (least + most) / 2) < 4 * math.sqrt(variance / len(values))
    assert abs(values.var() / variance - 1) < 0.05


# ---- the generator ----


@pytest.mark.parametrize(
    "counter,key,expected",
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers_of_philox(counter, key, expected):
    """philox4x32-10 in kat_vectors of Random123."""
    counter, key, expected = ([int(x, 16) for x in words.split()] for words in (counter, key, expected))
    assert _philox(key[0] | key[1] << 32, counter) == expected


def test_known_answer_of_the_operation():
    """The first of them: the four words of slot 0 of image 0 in epoch 0 of seed 0, to the last bit."""
    shift_y, shift_x, flip, erase = 0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8

    def draw(**settings):
        return draw_augmentation(0, 0, torch.tensor([0]), **SIZE, **(OFF | settings))[0].tolist()

    pad = 1 << 20
    drawn = draw(pad=pad)
    assert drawn[:2] == [(word * (2 * pad + 1) >> 32) - pad for word in (shift_y, shift_x)]
    assert draw(flip=flip / 2**32)[2] == 0 and draw(flip=(flip + 1) / 2**32)[2] == 1
    assert draw(erase=erase / 2**32)[5] == 0 and draw(erase=(erase + 1) / 2**32)[5] > 0


def test_any_strides_and_arrays():
    index, repeat = torch.arange(10), torch.arange(10) % 3
    expected = draw_augmentation(1, 2, index[::2], repeat[::2], **SIZE)
    assert torch.equal(draw_augmentation(1, 2, index[::2].clone(), repeat[::2].clone(), **SIZE), expected)
    assert torch.equal(draw_augmentation(1, 2, index.numpy()[::2], repeat.numpy()[::2], **SIZE), expected)
    assert draw_augmentation(1, 2, index[:0], **SIZE).shape == (0, 8)


# ---- what a draw depends on ----


def test_a_draw_is_its_samples_own():
    index, repeat = torch.arange(100).repeat(2), torch.arange(2).repeat_interleave(100)
    settings = SIZE | {"drop_part": 0.1}
    drawn = draw_augmentation(7, 3, index, repeat, **settings)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_augmentation(7, 3, index[order], repeat[order], **settings), drawn[order])
    one_by_one = [
        draw_augmentation(7, 3, index[i : i + 1], repeat[i : i + 1], **settings) for i in range(200)
    ]
    assert torch.equal(torch.cat(one_by_one), drawn)
    assert torch.equal(draw_augmentation(7, 3, torch.full((4,), 42), **settings), drawn[42].expand(4, -1))


def test_seed_epoch_index_and_repeat_matter():
    def draw(seed=7, epoch=3, index=0, repeat=0):
        at, times = torch.arange(50) + index, torch.full((50,), repeat)
        return draw_augmentation(seed, epoch, at, times, **SIZE, drop_part=0.5)

    changes = [
        {"seed": 8},
        {"seed": 7 + 2**32},
        {"seed": 7 + 2**62},
        {"epoch": 4},
        {"epoch": 3 + 2**31},
        {"index": 50},
        {"index": 2**31},
        {"repeat": 1},
        {"repeat": 2**31},
    ]
    drawn = [draw()] + [draw(**change) for change in changes]
    for a, b in itertools.combinations(drawn, 2):
        assert (a != b).any(1).sum() > 45
    # A number in another place is another draw: nothing is added up.
    assert not torch.equal(draw(epoch=4), draw(repeat=4)) and not torch.equal(draw(seed=3), draw(epoch=7))


def test_one_setting_leaves_the_others_draws_alone():
    drawn = draw_augmentation(1, 1, MANY[:200], **SIZE)
    for change, touched in (
        ({"flip": 0.0}, {"flip"}),
        ({"erase": 0.0}, {"top", "left", "bottom", "right"}),
        ({"pad": 3}, {"shift_y", "shift_x"}),
        ({"drop_person": 0.5}, {"keep"}),
        ({"drop_part": 0.5}, {"keep"}),
    ):
        other = draw_augmentation(1, 1, MANY[:200], **SIZE, **change)
        assert {name for k, name in enumerate(COLUMNS) if (other[:, k] != drawn[:, k]).any()} == touched


# ---- rates and ranges ----


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_rates(probability):
    settings = dict(flip=probability, erase=probability, drop_person=probability)
    drawn = columns(draw_augmentation(5, 0, MANY, **SIZE, **settings))
    assert set(drawn["flip"].tolist()) <= {0, 1}
    for events in (drawn["flip"] == 1, drawn["bottom"] > 0, drawn["keep"] == 0):
        if probability in (0, 1):
            assert events.all() if probability else not events.any()
        else:
            assert_rate(events, probability)
    assert set(drawn["keep"].tolist()) <= {0, KEEP_ALL}


def test_parts_are_dropped_one_by_one():
    keep = draw_augmentation(5, 0, MANY, **SIZE, drop_part=0.3)[:, 7]
    kept = keep[:, None] >> torch.arange(25) & 1  # [B, 25]
    assert kept[:, 0].all() and (keep >> 25 == 0).all()
    for part in range(1, 25):
        assert_rate(kept[:, part] == 0, 0.3)
    correlation = torch.corrcoef(kept[:, 1:].T.double()) - torch.eye(24)
    assert correlation.abs().max() < 5 / math.sqrt(len(MANY))


def test_events_are_independent():
    settings = dict(drop_person=0.5)
    drawn = columns(draw_augmentation(5, 0, MANY, **SIZE, **settings))
    flat = [drawn["shift_y"], drawn["shift_x"], drawn["flip"], drawn["bottom"] > 0, drawn["keep"] == 0]
    correlation = torch.corrcoef(torch.stack([x.double() for x in flat])) - torch.eye(5)
    assert correlation.abs().max() < 4 / math.sqrt(len(MANY))
    following = torch.stack([drawn["flip"][1:], drawn["flip"][:-1]])  # neighbours in the data set
    assert abs(torch.corrcoef(following)[0, 1]) < 4 / math.sqrt(len(MANY))


@pytest.mark.parametrize("pad", [0, 1, 10])
def test_shifts(pad):
    drawn = columns(draw_augmentation(5, 0, MANY, **SIZE, pad=pad))
    for name in ("shift_y", "shift_x"):
        if pad:
            assert_uniform(drawn[name], -pad, pad)
        else:
            assert not drawn[name].any()


def test_erased_boxes():
    height, width = 256, 128
    drawn = columns(draw_augmentation(5, 0, MANY, **SIZE, erase=1.0))
    top, left, bottom, right = (drawn[name] for name in ("top", "left", "bottom", "right"))
    tall, wide = bottom - top, right - left
    assert top.min() == 0 and left.min() == 0 and bottom.max() == height and right.max() == width
    assert tall.min() >= 1 and tall.max() < height and wide.min() >= 1 and wide.max() < width
    share, aspect = tall * wide / (height * width), tall / wide
    rounding = 1.05  # the sides are whole pixels, the shortest about 14 of them
    assert 0.02 / rounding < share.min() < 0.021 and 0.39 < share.max() < 0.4 * rounding
    assert 0.3 / rounding < aspect.min() < 0.31 and 3.2 < aspect.max() < 1 / 0.3 * rounding
    assert share.median() < 0.21  # large ones that do not fit are drawn again
    assert abs((top / (height - tall)).mean() - 0.5) < 0.01
    assert abs((left / (width - wide)).mean() - 0.5) < 0.01
    # Those that fit whatever their aspect: a uniform share, an aspect as often above 1 as below.
    small = share < 0.1
    assert abs(share[small].mean() - 0.06) < 0.002
    assert_rate(aspect[small] > 1, 0.5)


def test_no_box_where_none_fits():
    for height, width in ((1, 1), (1, 50), (50, 1)):
        drawn = draw_augmentation(5, 0, MANY[:50], height=height, width=width, erase=1.0)
        assert not drawn[:, 3:7].any()


# ---- what is refused ----

INDEX = torch.tensor([3, 1])


@pytest.mark.parametrize(
    "error,words,change",
    [
        (TypeError, "index must be int64, not torch.int32", {"index": INDEX.int()}),
        (TypeError, "index must be a torch.Tensor or a DLPack array, not list", {"index": [1]}),
        (TypeError, "repeat must be int64, not torch.float32", {"repeat": INDEX.float()}),
        (TypeError, "repeat must be int64", {"repeat": np.zeros(2, np.int32)}),
        (ValueError, r"index must be \(B,\)", {"index": INDEX[None]}),
        (ValueError, r"repeat must be \(B,\), one for each sample, not \(1,\)", {"repeat": INDEX[:1]}),
        (ValueError, "seed must be 0..9223372036854775807, not -1", {"seed": -1}),
        (ValueError, "seed must be 0..9223372036854775807, not 9223372036854775808", {"seed": 2**63}),
        (ValueError, "seed must be .* not 1.5", {"seed": 1.5}),
        (ValueError, "epoch must be 0..4294967295, not -1", {"epoch": -1}),
        (ValueError, "epoch must be 0..4294967295, not 4294967296", {"epoch": 2**32}),
        (ValueError, "height must be 1..1048576, not 0", {"height": 0}),
        (ValueError, "width must be 1..1048576, not 1048577", {"width": 2**20 + 1}),
        (ValueError, "width must be 1..1048576, not True", {"width": True}),
        (ValueError, "pad must be 0..1048576, not -1", {"pad": -1}),
        (ValueError, "pad must be 0..1048576, not 2.0", {"pad": 2.0}),
        *[
            (ValueError, f"{name} must be a probability, 0..1, not {value}", {name: value})
            for name in ("flip", "erase", "drop_person", "drop_part")
            for value in (-0.1, 1.5, float("nan"))
        ],
        (RuntimeError, "sample 1 has -1 and 0", {"index": torch.tensor([0, -1])}),
        (RuntimeError, "sample 0 has 4294967296 and 0", {"index": torch.tensor([2**32, 0])}),
        (RuntimeError, "sample 1 has 1 and -5", {"repeat": torch.tensor([0, -5])}),
        (RuntimeError, "sample 1 has 1 and 4294967296", {"repeat": torch.tensor([0, 2**32])}),
    ],
)
def test_bad_input(error, words, change):
    arguments = {"seed": 0, "epoch": 0, "index": INDEX, "height": 8, "width": 4} | change
    with pytest.raises(error, match=words):
        draw_augmentation(**arguments)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_index_on_the_device_is_refused():
    with pytest.raises(ValueError, match="index must be on the CPU, not on cuda"):
        draw_augmentation(0, 0, INDEX.cuda(), **SIZE)


def test_a_direct_call_touches_no_foreign_memory():
    for index, repeat in ((INDEX, INDEX[:1]), (INDEX.int(), INDEX.int()), (INDEX.repeat(2)[::2], INDEX)):
        with pytest.raises(RuntimeError, match="index and repeat must be contiguous int64"):
            torch.ops.dsa_ext.draw_augmentation(index, repeat, 0, 0, 8, 4, 0, 0.5, 0.5, 0.0, 0.0)


def test_compile_fullgraph():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def shifts(index):
        return draw_augmentation(3, 1, index, **SIZE)[:, :2] * 2

    assert torch.equal(shifts(INDEX), draw_augmentation(3, 1, INDEX, **SIZE)[:, :2] * 2)
