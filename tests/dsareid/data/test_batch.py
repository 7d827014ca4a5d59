import numpy as np
import torch

from dsa_ext import iuv_to_dsap
from dsareid.data.augment import AugmentConfig
from dsareid.data.batch import MEAN, STD, TrainData, eval_dsap, eval_images
from dsareid.data.market import TRAIN, load_split
from dsareid.data.sampler import PKSampler

QUIET = AugmentConfig(pad=0, flip=0, erase=0)


def make(tiny_data, config, dsap_size=8):
    split = load_split(tiny_data, TRAIN, 64, 32, iuv=dsap_size is not None)
    data = TrainData(split, config, dsap_size, 0, torch.device("cpu"))
    return split, data, PKSampler(split.ids, 2, 2, 0).epoch(0)[0]


def test_batch_without_augmentation_is_the_stored_image(tiny_data):
    split, data, draw = make(tiny_data, QUIET)
    batch = data.batch(0, draw)
    images = torch.from_numpy(split.images[draw.index])
    assert torch.equal(batch.image, eval_images(images))
    iuv = torch.from_numpy(split.iuv[draw.index])
    assert torch.equal(batch.dsap, eval_dsap(images, iuv, 8))
    assert batch.label.tolist() == (split.ids[draw.index] - 1).tolist()


def test_normalisation_is_torchvisions(tiny_data):
    from torchvision.transforms import functional

    split, *_ = make(tiny_data, QUIET)
    expected = functional.normalize(functional.to_tensor(split.images[0]), MEAN, STD)
    images = torch.from_numpy(split.images[:1])
    assert torch.equal(eval_images(images)[0], expected)


def test_pixels_from_outside_are_the_mean_and_background(tiny_data):
    _, data, draw = make(tiny_data, AugmentConfig(pad=10, flip=0.5, erase=1.0))
    batch = data.batch(3, draw)
    zero = (batch.image == 0).all(1)
    assert zero.any()
    assert torch.isfinite(batch.dsap).all()


def test_dsap_is_warped_from_the_augmented_view(tiny_data):
    """A flip alone: the batch's part images are those of the mirrored image and map."""
    split, data, draw = make(tiny_data, AugmentConfig(pad=0, flip=1.0, erase=0))
    from dsareid.data.augment import swap_sides

    images = torch.from_numpy(np.ascontiguousarray(split.images[draw.index][:, :, ::-1]))
    iuv = swap_sides(torch.from_numpy(np.ascontiguousarray(split.iuv[draw.index][:, :, ::-1])))
    expected = iuv_to_dsap(
        images.permute(0, 3, 1, 2), iuv.permute(0, 3, 1, 2), size=8, dtype=torch.float32,
        mean=MEAN, std=STD,
    )  # fmt: skip
    assert torch.equal(data.batch(0, draw).dsap, expected)


def test_no_maps_for_networks_without_a_guide(tiny_data):
    _, data, draw = make(tiny_data, QUIET, dsap_size=None)
    assert data.batch(0, draw).dsap is None
