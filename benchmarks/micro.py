"""The small pieces of the data path, each by itself, timed by pytest-benchmark.

python -m pytest benchmarks/micro.py
"""

import numpy as np
import pytest
import torch

from dsa_ext import assemble_batch, draw_augmentation, iuv_to_dsap
from dsa_ext.selftest.operations.batch import stored_batch
from dsareid.data.sampler import PKSampler
from dsareid.models.options import MEAN, STD

SETTINGS = {"height": 256, "width": 128, "size": 32, "mean": MEAN, "std": STD}


@pytest.fixture(scope="module")
def stored():
    """images and iuv, uint8 [64, 128, 64, 3], index and params of 64 samples."""
    torch.set_num_threads(1)
    return stored_batch(64)


@pytest.mark.parametrize("samples", [1, 64])
def test_assemble_batch(benchmark, stored, samples):
    images, iuv, index, params = stored
    arguments = images, iuv, index[:samples], params[:samples]
    out = assemble_batch(*arguments, **SETTINGS)
    benchmark(lambda: assemble_batch(*arguments, out=out, **SETTINGS))


def test_assemble_batch_images_alone(benchmark, stored):
    images, _, index, params = stored
    out = assemble_batch(images, None, index, params, **SETTINGS)
    benchmark(lambda: assemble_batch(images, None, index, params, out=out, **SETTINGS))


def test_assemble_batch_without_resizing(benchmark, stored):
    settings = SETTINGS | {"height": 128, "width": 64}
    out = assemble_batch(*stored[:3], **settings)
    benchmark(lambda: assemble_batch(*stored[:3], out=out, **settings))


def test_warp_of_stored_pixels(benchmark, stored):
    image, iuv = (x.permute(0, 3, 1, 2) for x in stored[:2])
    out = iuv_to_dsap(image, iuv, size=32, dtype=torch.float32)
    benchmark(lambda: iuv_to_dsap(image, iuv, size=32, out=out))


def test_draw_augmentation_of_64(benchmark):
    index = torch.arange(64)
    benchmark(lambda: draw_augmentation(0, 0, index, height=256, width=128, drop_person=0.3, drop_part=0.2))


def test_sampler_epoch_of_13_000_images(benchmark):
    sampler = PKSampler(np.sort(np.random.default_rng(0).integers(0, 751, 12_936)), 16, 4, 0)
    benchmark(lambda: sampler.epoch(0))
