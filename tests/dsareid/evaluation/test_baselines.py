"""Colour histograms."""

import colorsys

import numpy as np
import pytest
import torch

from dsareid.evaluation import colour_histograms, rank


def test_histograms_have_norm_one_and_are_one_per_image():
    images = torch.randint(0, 256, (70, 40, 16, 3), dtype=torch.uint8)
    features = colour_histograms(images)
    assert features.shape == (70, 768) and features.dtype == torch.float32
    assert torch.allclose(features.norm(dim=1), torch.ones(70))
    assert torch.equal(features[65:66], colour_histograms(images[65:66]))


def test_histogram_bins_are_those_of_hsv():
    draw = np.random.default_rng(0)
    for pixel in draw.integers(0, 256, (200, 3)):
        image = torch.tensor(pixel, dtype=torch.uint8).expand(1, 6, 1, 3)
        hue, saturation, value = colorsys.rgb_to_hsv(*(int(p) for p in pixel))
        cell = int(hue * 8 + 0.5) % 8 * 16 + min(int(saturation * 4 + 1e-9), 3) * 4 + int(value / 64)
        found = colour_histograms(image).view(6, 128).argmax(1)
        assert (found == cell).all()


def test_same_clothes_are_nearer_than_others():
    red, blue = torch.tensor([200, 20, 30]), torch.tensor([30, 40, 190])
    image = torch.zeros(3, 24, 8, 3)
    image[0, :12], image[0, 12:] = red, blue
    image[1, :12], image[1, 12:] = red, blue
    image[2, :12], image[2, 12:] = blue, red  # the same colours in other places
    image = (image + torch.randint(0, 12, image.shape)).to(torch.uint8)
    first, same, swapped = colour_histograms(image)
    assert (first - same).norm() < (first - swapped).norm()


def test_balanced_histograms_see_through_a_colour_cast():
    draw = torch.Generator().manual_seed(0)
    people = torch.randint(40, 180, (20, 24, 1, 3), generator=draw).expand(20, 24, 8, 3)
    cast = torch.tensor([[1.0, 0.7, 0.8], [0.7, 1.0, 0.9]])[:, None, None, None]
    query, gallery = (people * cast).to(torch.uint8)
    ids, cams = torch.arange(20), torch.zeros(20, dtype=torch.int64)

    def mean_ap(balanced):
        features = (colour_histograms(x, balanced=balanced) for x in (query, gallery))
        return rank(*features, ids, ids, cams, cams + 1).mAP

    assert mean_ap(balanced=True) > 0.95 > 0.8 > mean_ap(balanced=False)


def test_the_margins_do_not_count():
    images = torch.randint(0, 256, (2, 24, 8, 3), dtype=torch.uint8)
    other = images.clone()
    other[:, :, :2], other[:, :, 6:] = 0, 255
    for balanced in (False, True):
        first, second = (colour_histograms(x, balanced=balanced) for x in (images, other))
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(1, 12, 4, 3),
        torch.zeros(1, 3, 12, 4, dtype=torch.uint8),
        torch.zeros(1, 5, 4, 3, dtype=torch.uint8),
    ],
)
def test_histograms_name_what_they_expect(images):
    with pytest.raises(ValueError, match="images must be"):
        colour_histograms(images)
