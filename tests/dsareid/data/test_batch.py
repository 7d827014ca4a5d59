"""Training batches: what is in them, that they reproduce, and that nothing hangs or is left behind."""

import contextlib
import gc
import os
import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from dsa_ext import CUDA_ERROR, iuv_to_dsap
from dsareid.data.augment import AugmentConfig
from dsareid.data.batch import BatchConfig, InputConfig
from dsareid.data.iuv import write_iuv
from dsareid.data.layouts.base import TRAIN
from dsareid.data.loader import TrainData
from dsareid.data.sampler import PKSampler
from dsareid.data.store.pack import pack
from dsareid.data.store.reader import open_store
from dsareid.ground.errors import DSAError
from dsareid.models.options import MEAN, STD

QUIET = AugmentConfig(pad=0, flip=0, erase=0)
BUSY = AugmentConfig(pad=4, flip=0.5, erase=0.8, drop_person=0.2, drop_part=0.2)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tiny_data, tmp_path_factory):
    return pack(tiny_data, tmp_path_factory.mktemp("stores") / "store")


def config(augment=QUIET, seed=5, batch=4, **changes):
    taken = {"height": 64, "width": 32, "guide": "part-images", "dsap_size": 8} | changes
    return BatchConfig(InputConfig(**taken), batch, augment, seed)


def train_data(store, *, resident=None, **changes):
    split = store.select(TRAIN, iuv=changes.get("guide", True) is not None)
    return TrainData(split, config(**changes), CPU, resident), PKSampler(split.ids, 2, 2, 0)


def copies(data, sampler, epoch=0, first=0):
    """The batches of an epoch, kept: the memory they come in is used again."""
    index, repeat = sampler.epoch(epoch)
    return [
        tuple(None if x is None else x.clone() for x in batch)
        for batch in data.batches(epoch, index[first:], repeat[first:])
    ]


def same(a, b):
    return len(a) == len(b) and all(
        x is y is None or torch.equal(x, y) for one, other in zip(a, b) for x, y in zip(one, other)
    )


@pytest.mark.parametrize("resident", [False, True])
def test_batches_without_augmentation_are_the_stored_images(store, resident):
    data, sampler = train_data(store, resident=resident)
    index, _ = sampler.epoch(0)
    batches = copies(data, sampler)
    assert len(batches) == len(index) == 4 and data.identities == 4 and data.images == 16
    for chosen, (image, dsap, label) in zip(index, batches):
        both = store.images, store.iuv
        pixels, iuv = (torch.from_numpy(x[chosen]).permute(0, 3, 1, 2) for x in both)
        tensors = (functional.to_tensor(np.array(store.images[row])) for row in chosen)
        expected = torch.stack([functional.normalize(x, MEAN, STD) for x in tensors])
        assert torch.equal(image, expected)
        expected = iuv_to_dsap(pixels, iuv, size=8, dtype=torch.float32, mean=MEAN, std=STD)
        assert torch.equal(dsap, expected)
        assert label.tolist() == (store.ids[chosen] - 1).tolist()


def test_held_on_the_device_or_streamed_gives_the_same_bits(store):
    streamed, sampler = train_data(store, resident=False, augment=BUSY, height=96, width=48)
    held, _ = train_data(store, resident=True, augment=BUSY, height=96, width=48)
    batches = copies(streamed, sampler, epoch=3)
    assert same(batches, copies(held, sampler, epoch=3))
    assert not same(batches, copies(held, sampler, epoch=4))
    assert "held on cpu" in held.description and "by 1 thread" in streamed.description


def test_the_second_half_of_an_epoch_is_that_of_the_whole(store):
    """What a resumed run sees."""
    data, sampler = train_data(store, augment=BUSY)
    assert same(copies(data, sampler, epoch=2)[2:], copies(data, sampler, epoch=2, first=2))


def test_number_of_threads_does_not_matter(store, monkeypatch):
    expected = copies(*train_data(store, augment=BUSY))
    from dsareid.ground import _core

    make = _core.Prefetcher
    monkeypatch.setattr(_core, "Prefetcher", lambda **words: make(**words | {"threads": 5}))
    assert same(copies(*train_data(store, augment=BUSY)), expected)


def test_half_precision_is_float32_rounded(store):
    wide = copies(*train_data(store, augment=BUSY))
    half = copies(*train_data(store, augment=BUSY, dtype=torch.bfloat16))
    for a, b in zip(wide, half):
        assert torch.equal(a[0].bfloat16(), b[0]) and torch.equal(a[1].bfloat16(), b[1])


def test_no_maps_for_networks_without_a_guide(store):
    data, sampler = train_data(store, guide=None)
    assert all(dsap is None for _, dsap, _ in copies(data, sampler))


def test_a_consumer_that_stops_early_can_begin_again(store):
    data, sampler = train_data(store, augment=BUSY)
    expected = copies(data, sampler)
    for taken in (0, 1, 2):
        batches = data.batches(1, *sampler.epoch(1))
        for _ in range(taken):
            next(batches)
        del batches
    assert same(copies(data, sampler), expected)


def test_threads_end_with_the_data(store):
    def threads():
        return len(os.listdir("/proc/self/task"))

    gc.collect()
    before = threads()
    data, sampler = train_data(store)
    batches = data.batches(0, *sampler.epoch(0))
    next(batches)
    assert threads() > before
    del data, batches
    gc.collect()
    assert threads() == before


def test_memory_is_used_again(store):
    data, sampler = train_data(store)
    seen = set()
    for epoch in range(5):
        seen |= {batch.image.data_ptr() for batch in data.batches(epoch, *sampler.epoch(epoch))}
    assert len(seen) == 3


def anonymous() -> int:
    """Bytes that this process has allocated, mapped files left out."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def test_memory_does_not_grow_with_the_store(tmp_path):
    root, side = tmp_path / "data", 384
    y, x = np.mgrid[:side, :side].astype(np.uint8)
    for folder in (root / TRAIN, root / "iuv" / TRAIN):
        folder.mkdir(parents=True)
    for k in range(120):
        name = f"{k // 4:04d}_c1s1_{k:06d}_00"
        Image.fromarray(np.dstack([y + np.uint8(k), x, y])).save(root / TRAIN / f"{name}.bmp")
        write_iuv(root / "iuv" / TRAIN / f"{name}.png", np.dstack([x % 25, y, x]))
    store = pack(root, tmp_path / "store")
    pixels = store.images.nbytes + store.iuv.nbytes
    assert pixels > 100e6
    data, sampler = train_data(store)
    del store
    gc.collect()
    before = anonymous()
    for epoch in range(2):
        for _ in data.batches(epoch, *sampler.epoch(epoch)):
            pass
    assert anonymous() - before < pixels / 10


@pytest.mark.parametrize("wrong", [-1, 16])
def test_an_index_that_no_image_has(store, wrong):
    data, sampler = train_data(store)
    index, repeat = (x.copy() for x in sampler.epoch(0))
    index[1, 2] = wrong
    with pytest.raises(ValueError, match=r"index must be 0\.\.15"):
        next(data.batches(0, index, repeat))
    assert len(copies(data, sampler)) == 4


def test_interrupted_while_waiting(store, monkeypatch):
    """As by Ctrl-C in a notebook: the next epoch begins as if nothing had been."""
    data, sampler = train_data(store, augment=BUSY)
    expected = copies(data, sampler)
    source = data._source
    with monkeypatch.context() as patch:
        patch.setattr(source, "_wait", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            next(data.batches(1, *sampler.epoch(1)))
    assert same(copies(data, sampler), expected)


@pytest.mark.parametrize("end", ["all", "early"])
def test_a_slot_is_not_written_to_while_it_is_copied_to_a_device(store, monkeypatch, end):
    """Streaming to a GPU, with a device that holds nothing in place of one."""
    log = []

    class Event:
        def record(self, stream):
            assert stream == "copies"
            log.append("recorded")

        def synchronize(self):
            log.append("copied")

    using = mock.Mock()
    using.wait_event.side_effect = lambda event: log.append("waited for")
    for name, stand_in in {
        "Event": Event,
        "Stream": lambda device: "copies",
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device: using,
    }.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda x, stream: log.append("kept"))
    split = store.select(TRAIN, iuv=True)
    data, sampler = TrainData(split, config(), torch.device("meta")), PKSampler(split.ids, 2, 2, 0)
    source, prefetcher = data._source, data._source.prefetcher
    source.prefetcher = mock.Mock(wraps=prefetcher)
    source.prefetcher.submit.side_effect = lambda *words: log.append("begun") or prefetcher.submit(*words)
    batches = data.batches(0, *sampler.epoch(0))
    first = next(batches)
    assert first.image.device.type == first.label.device.type == "meta"
    assert first.image.shape == (4, 3, 64, 32)
    if end == "all":
        assert len(list(batches)) == 3
    batches.close()
    waits = [entry for entry in log if entry != "begun"]
    a_batch = ["recorded", "waited for", "kept", "kept", "copied"]
    assert waits == a_batch * (len(waits) // 5)
    assert log[:9] == ["begun", "begun", "begun", *a_batch, "begun"][: len(log)]


@pytest.mark.parametrize("resident", [False, True])
def test_a_plan_goes_on_over_the_end_of_an_epoch(store, resident):
    """The first batches of the next epoch are begun before the last of this one is taken."""
    data, sampler = train_data(store, augment=BUSY, resident=resident)
    read = []

    def plan():
        for epoch in (0, 1):
            for one in zip(*sampler.epoch(epoch)):
                read.append(epoch)
                yield epoch, *one

    found, ahead = [], []
    for batch in data.planned(plan()):
        found.append(tuple(x.clone() for x in batch))
        ahead.append(len(read) - len(found))
    each = len(found) // 2
    assert ahead[each - 1] == (0 if resident else 2)
    assert same(found, copies(data, sampler) + copies(data, sampler, epoch=1))


DEVICES = [CPU, *([torch.device("cuda")] if torch.cuda.is_available() and CUDA_ERROR is None else [])]


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize("resident", [False, True])
def test_devices_give_the_same_bits(store, device, resident):
    split = store.select(TRAIN, iuv=True)
    data, sampler = TrainData(split, config(BUSY), device, resident), PKSampler(split.ids, 2, 2, 0)
    there = [tuple(x.cpu() for x in batch) for batch in copies(data, sampler)]
    assert same(there, copies(*train_data(store, augment=BUSY)))


def test_a_store_that_changes_under_the_reader(store, tmp_path):
    shutil.copytree(store.path, tmp_path / "store")
    data, sampler = train_data(open_store(tmp_path / "store"))
    copies(data, sampler)
    os.truncate(tmp_path / "store/images.npy", 1000)
    with pytest.raises(DSAError, match=r"bounding_box_train/\d+_c\d.*chang"):
        copies(data, sampler)


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("guide", ["part-crops", "image-patches"])
def test_guide_inputs_that_are_made_beside_the_images(store, guide, resident):
    """Of the augmented view, the same bits streamed and resident, and again in another order of batches."""
    data, sampler = train_data(store, guide=guide, augment=BUSY, resident=resident)
    batches = copies(data, sampler)
    assert all(batch[1].shape == (4, 24, 3, 8, 8) and batch[1].any() for batch in batches)
    other, _ = train_data(store, guide=guide, augment=BUSY, resident=not resident)
    assert same(batches, copies(other, sampler))
    assert same(batches[2:], copies(data, sampler, first=2))
    dsap, _ = train_data(store, augment=BUSY, resident=resident)
    assert all(torch.equal(x[0], y[0]) for x, y in zip(batches, copies(dsap, sampler)))


def test_crops_are_of_the_view_that_dsap_images_are_warped_from(store):
    """A part that one of the two does not see is absent from the other too."""
    batches = [
        copies(*train_data(store, guide=guide, augment=BUSY)) for guide in ("part-crops", "part-images")
    ]
    absent = 0
    for (_, crops, _), (_, dsap, _) in zip(*batches):
        seen = [x.flatten(2).any(2) for x in (crops, dsap)]
        assert torch.equal(*seen)
        absent += int((~seen[0]).sum())
    assert absent


def test_patches_need_no_maps(own_data, tmp_path):
    shutil.rmtree(own_data / "iuv")
    store = pack(own_data, tmp_path / "store")
    split = store.select(TRAIN, iuv=False)
    data = TrainData(split, config(guide="image-patches"), CPU)
    assert copies(data, PKSampler(split.ids, 2, 2, 0))[0][1].any()
