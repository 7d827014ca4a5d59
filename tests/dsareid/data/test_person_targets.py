"""What each person looks like, merged from all views, against a loop over cells."""

import numpy as np
import pytest
import torch

from dsa_ext.batch import seen_pixels
from dsareid.data.person_targets import person_targets
from dsareid.models.options import MEAN, STD

SIZE = 4


class FakeStore:
    def __init__(self, images, iuv):
        self.images, self.iuv = images, iuv


class FakeSplit:
    """Rows of a store in another order, of three people."""

    def __init__(self, height=12, width=8):
        draw = np.random.default_rng(0)
        self.ids = np.array([7, 3, 3, 9, 7, 3])
        self.rows = np.array([5, 0, 2, 7, 1, 3])
        images, iuv = (draw.integers(0, 256, (8, height, width, 3), dtype=np.uint8) for _ in range(2))
        iuv[..., 0] = draw.integers(0, 8, (8, height, width)) * (draw.random((8, height, width)) < 0.3)
        iuv[..., 0][iuv[..., 0] > 5] += 17  # torso, hands, a foot, the head
        self.store = FakeStore(images, iuv)

    def __len__(self):
        return len(self.ids)


def normalised(pixels):
    return (pixels.astype(np.float64) / 255 - MEAN) / STD


def test_textures_are_means_over_the_views_of_a_person():
    """A single pixel in each of two views: its cell is their mean, and what nobody shows is not known."""
    split = FakeSplit()
    split.store.iuv[:] = 0
    split.store.iuv[0, 3, 4] = split.store.iuv[2, 9, 1] = (
        3,
        10,
        200,
    )  # the right hand: U to row 0, V to column 3
    found = person_targets(split, "part-images", SIZE, (6, 4))
    values, known = (x.view(3, 13, 3, SIZE, SIZE) for x in found)
    expected = (normalised(split.store.images[0, 3, 4]) + normalised(split.store.images[2, 9, 1])) / 2
    np.testing.assert_allclose(values[0, 2, :, 0, 3], expected, atol=1e-6)  # identity 3 is label 0
    assert known[0, 2, :, 0, 3].all() and known.sum() == 3


def test_the_torso_is_symmetric_and_hands_are_folded():
    split = FakeSplit()
    split.store.iuv[:] = 0
    split.store.iuv[5, 0, 0] = (2, 100, 10)  # torso front: row 1, columns 0 and, mirrored, 3
    split.store.iuv[1, 0, 0] = (4, 10, 200)  # the left hand lies on the right one with U reversed: row 3
    values, known = (x.view(3, 13, 3, SIZE, SIZE) for x in person_targets(split, "part-images", SIZE, (6, 4)))
    torso, hand = (normalised(split.store.images[row, 0, 0]) for row in (5, 1))
    for column in (0, 3):
        np.testing.assert_allclose(values[1, 1, :, 1, column], torso, atol=1e-6)
    np.testing.assert_allclose(values[1, 2, :, 3, 3], hand, atol=1e-6)
    assert known.sum() == 9


@pytest.mark.parametrize("kind", ["part-images", "pictures"])
def test_a_mirrored_picture_has_the_same_target(kind):
    """Every view mirrored, and its map with it, by the rule of augmentation. Each part has one pixel: which
    of several in a cell wins depends on the direction."""
    split, mirrored = FakeSplit(), FakeSplit()
    for iuv in split.store.iuv:
        order = np.random.default_rng(1).permutation(iuv[..., 0].size)
        part = np.zeros(iuv[..., 0].size, np.uint8)
        part[order[:9]] = (1, 2, 3, 5, 7, 9, 11, 13, 23)  # no two of them share a part image
        iuv[..., 0] = part.reshape(iuv.shape[:2])
    flip = torch.tensor([[0, 0, 1, 0, 0, 0, 0, -1]], dtype=torch.int32).expand(8, -1)
    pixels, iuv = (torch.from_numpy(x) for x in (split.store.images, split.store.iuv))
    mirrored.store = FakeStore(*(x.numpy() for x in seen_pixels(pixels, iuv, flip, 12, 8)))
    before, after = (person_targets(x, kind, SIZE, (6, 4)) for x in (split, mirrored))
    assert torch.equal(before.known, after.known) and before.known.any()
    torch.testing.assert_close(before.values, after.values)
    assert before.digest() == before.digest() != person_targets(split, kind, 8, (3, 2)).digest()


def test_others_get_the_same_textures():
    split = FakeSplit()
    own, others = (person_targets(split, kind, SIZE, (6, 4)) for kind in ("part-images", "others"))
    for label in range(3):
        assert torch.equal(others.values[label], own.values[(label - 1) % 3])
        assert not torch.equal(others.values[label], own.values[label])
