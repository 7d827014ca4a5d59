"""Crops and patches against loops over parts and cells."""

import numpy as np
import pytest
import torch

from dsa_ext import assemble_batch, draw_augmentation
from dsa_ext.batch import seen_pixels, view_parts
from dsa_ext.parts import GROUPS
from dsareid.data.batch import InputConfig, assemble
from dsareid.data.guide_input import PATCH_COLUMNS, PATCH_ROWS, Samples, image_patches, part_crops
from dsareid.models.options import MEAN, STD


def cropped(pixels, parts, size):
    """part_crops by definition, one image, one part and one cell at a time."""
    height, width, _ = pixels.shape
    value = ((pixels.astype(np.float64) / 255) - MEAN) / STD
    crops = np.zeros((24, 3, size, size))
    for part in range(1, 25):
        member = parts == part
        if not member.any():
            continue
        rows, columns = np.flatnonzero(member.any(1)), np.flatnonzero(member.any(0))
        box = np.where(member[..., None], value, 0)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        tall, wide = box.shape[:2]
        for i in range(size):
            for j in range(size):
                y = min(max((i + 0.5) * tall / size - 0.5, 0), tall - 1)
                x = min(max((j + 0.5) * wide / size - 0.5, 0), wide - 1)
                top, left = int(y), int(x)
                low, right = min(top + 1, tall - 1), min(left + 1, wide - 1)
                upper = box[top, left] * (1 - x + left) + box[top, right] * (x - left)
                lower = box[low, left] * (1 - x + left) + box[low, right] * (x - left)
                crops[part - 1, :, i, j] = upper * (1 - y + top) + lower * (y - top)
    return crops


@pytest.mark.parametrize("height, width, size", [(12, 8, 4), (5, 9, 8), (1, 1, 4), (7, 1, 3), (24, 12, 1)])
def test_crops_against_a_loop(height, width, size):
    draw = np.random.default_rng(height)
    pixels = draw.integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    parts = np.zeros((2, height, width), np.uint8)
    parts[0] = draw.integers(0, 25, (height, width))
    parts[1, : height // 2 + 1, : width // 2 + 1] = 7
    found = part_crops(torch.from_numpy(pixels), torch.from_numpy(parts), size, MEAN, STD)
    assert found.shape == (2, 24, 3, size, size) and found.dtype == torch.float32
    for image in range(2):
        np.testing.assert_allclose(found[image], cropped(pixels[image], parts[image], size), atol=2e-6)


def test_a_part_of_the_size_of_a_crop_is_copied():
    draw = np.random.default_rng(0)
    pixels = torch.from_numpy(draw.integers(0, 256, (1, 10, 10, 3), dtype=np.uint8))
    parts = torch.zeros(1, 10, 10, dtype=torch.uint8)
    parts[0, 2:6, 3:7] = 3
    crops = part_crops(pixels, parts, 4, MEAN, STD)
    expected = (pixels[0, 2:6, 3:7].float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(crops[0, 2], expected.permute(2, 0, 1))
    assert not crops[0, [i for i in range(24) if i != 2]].any()


def test_patches_are_the_cells_of_a_grid():
    image = torch.randn(2, 3, PATCH_ROWS * 4, PATCH_COLUMNS * 4)
    patches = image_patches(image, 4, None)
    assert patches.shape == (2, 24, 3, 4, 4)
    for k in range(24):
        row, column = divmod(k, PATCH_COLUMNS)
        assert torch.equal(patches[:, k], image[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4])


def samples(flip, sizes=(24, 16), view=(24, 16)):
    """Forty stored images and maps, and how a batch of them is augmented."""
    draw = np.random.default_rng(0)
    images, iuv = (draw.integers(0, 256, (40, *sizes, 3), dtype=np.uint8) for _ in range(2))
    iuv[..., 0] %= 30  # what is above 24 is background
    rows = torch.arange(40)
    drawn = draw_augmentation(
        0, 0, rows, height=view[0], width=view[1], pad=3, flip=flip, erase=0.5, drop_person=0.1, drop_part=0.3
    )
    return Samples(images, iuv, rows, drawn)


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("sizes", [(24, 16), (48, 32), (13, 30)])
def test_masked_patches_show_the_person_alone(flip, sizes):
    """A mask that takes the way of an image, through assemble_batch, says the same."""
    given = samples(flip, sizes)
    config = InputConfig(24, 16, "masked-patches", 4)
    image, found = assemble(given, config)
    part = given.iuv[..., 0]
    kept = np.take_along_axis((given.drawn[:, 7:].numpy() >> np.arange(30)) & 1, part.reshape(40, -1), 1)
    person = np.where((part > 0) & (part < 25), kept.reshape(part.shape), 0).astype(np.uint8)
    nearest = np.ix_(np.arange(40), *((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip((24, 16), sizes)))
    mask = np.repeat(person[nearest][..., None] * np.uint8(255), 3, 3)
    seen, _ = assemble_batch(
        np.ascontiguousarray(mask), None, given.index, given.drawn, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    assert 0 < seen.mean() < 1
    assert torch.equal(found, image_patches(image * seen, 4, None))


def test_patches_are_dropped_as_parts_are():
    drawn = draw_augmentation(0, 0, torch.arange(40), height=24, width=16, drop_person=0.3, drop_part=0.3)
    patches = image_patches(torch.ones(40, 3, 24, 16), 4, drawn)
    for sample in range(40):
        for k in range(24):
            assert patches[sample, k].any() == bool(int(drawn[sample, 7]) >> (k + 1) & 1)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_part_maps_of_the_view(flip):
    """They are what the warp of the same batch goes by, shifted; another image's are half a batch away."""
    given = samples(flip)
    _, found = assemble(given, InputConfig(24, 16, "part-map", 4))
    assert found.dtype == torch.uint8 and found.shape == (40, 24, 16)
    _, charts = seen_pixels(*(torch.from_numpy(x) for x in (given.images, given.iuv)), given.drawn, 24, 16)
    for view, chart, (down, across, *_) in zip(found, charts[..., 0], given.drawn.tolist()):
        across = -across if flip else across
        expected = torch.zeros(24, 16, dtype=torch.uint8)
        rows, columns = (
            slice(max(0, -shift), min(size, size - shift)) for shift, size in ((down, 24), (across, 16))
        )
        of_rows, of_columns = (
            slice(max(0, shift), min(size, size + shift)) for shift, size in ((down, 24), (across, 16))
        )
        expected[rows, columns] = chart[of_rows, of_columns]
        expected[expected > 24] = 0
        assert torch.equal(view, expected)
    _, others = assemble(given, InputConfig(24, 16, "others", 4))
    assert torch.equal(others[20:], found[:20]) and torch.equal(others[:20], found[20:])


def test_stripes_are_the_eight_parts_from_the_top():
    """Of the stored image: they move with it, and what the view does not show is background."""
    given = samples(0.0)
    plain = Samples(given.images, None, given.index, None)
    _, found = assemble(plain, InputConfig(24, 16, "stripes", 4))
    parts = [int(found[0, 3 * k, 0]) for k in range(8)]
    assert [GROUPS[8][part - 1] for part in parts] == list(range(8))
    assert torch.equal(found, found[:1, ::3].repeat_interleave(3, 1)[:, :24].expand(40, 24, 16))
    striped, group = found[:1].expand(40, -1, -1), torch.tensor([-1, *GROUPS[8]])
    for flip in (0.0, 1.0):
        given = samples(flip)
        _, found = assemble(given, InputConfig(24, 16, "stripes", 4))
        expected = view_parts(striped, given.drawn, 24, 16)
        assert torch.equal(group[found.long()], group[expected.long()]) and (expected == 0).any()
