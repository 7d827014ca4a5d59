"""The small pieces of the data path, each by itself, timed by pytest-benchmark.

    python -m pytest benchmarks/micro.py
"""

import numpy as np
import pytest
import torch

from dsa_ext import assemble_batch, draw_augmentation, iuv_to_dsap
from dsa_ext._measure import person_batch
from dsareid.data.batch import MEAN, STD
from dsareid.data.sampler import PKSampler

SETTINGS = {"height": 256, "width": 128, "size": 32, "mean": MEAN, "std": STD}


@pytest.fixture(scope="module")
def store():
    """uint8 [64, 128, 64, 3] images and IUV maps."""
    torch.set_num_threads(1)
    return tuple(x.permute(0, 2, 3, 1).contiguous() for x in person_batch(64, 128, 64))


def reused(store, count):
    """index, params and the memory of a batch."""
    index = torch.arange(count)
    params = draw_augmentation(0, 0, index, height=256, width=128)
    return index, params, assemble_batch(*store, index, params, **SETTINGS)


@pytest.mark.parametrize("samples", [1, 64])
def test_assemble_batch(benchmark, store, samples):
    index, params, out = reused(store, samples)
    benchmark(lambda: assemble_batch(*store, index, params, out=out, **SETTINGS))


def test_assemble_batch_images_alone(benchmark, store):
    index, params, (image, _) = reused(store, 64)
    benchmark(lambda: assemble_batch(store[0], None, index, params, out=(image, None), **SETTINGS))


def test_assemble_batch_without_resizing(benchmark, store):
    index = torch.arange(64)
    settings = SETTINGS | {"height": 128, "width": 64}
    out = assemble_batch(*store, index, **settings)
    benchmark(lambda: assemble_batch(*store, index, out=out, **settings))


def test_warp_of_stored_pixels(benchmark, store):
    image, iuv = (x.permute(0, 3, 1, 2) for x in store)
    out = iuv_to_dsap(image, iuv, size=32, dtype=torch.float32)
    benchmark(lambda: iuv_to_dsap(image, iuv, size=32, out=out))


def test_draw_augmentation_of_64(benchmark):
    index = torch.arange(64)
    benchmark(lambda: draw_augmentation(0, 0, index, height=256, width=128, drop_person=0.3, drop_part=0.2))


def test_sampler_epoch_of_13_000_images(benchmark):
    sampler = PKSampler(np.sort(np.random.default_rng(0).integers(0, 751, 12_936)), 16, 4, 0)
    benchmark(lambda: sampler.epoch(0))
