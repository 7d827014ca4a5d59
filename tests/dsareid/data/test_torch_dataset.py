import functools
import gc
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from dsa_ext import iuv_to_dsap
from dsareid.data.images import read_image
from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.torch_dataset import DSAPBatch, DSAPDataset, collate_dsap
from dsareid.ground.errors import DSAError
from dsareid.models.options import MEAN, STD

TRANSFORM = transforms.Compose(
    [transforms.Resize((24, 12)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
)


def resize(path, height, width):
    """The image file and its IUV map, of another size."""
    maps = path.parents[1] / "iuv" / path.parent.name / path.name
    image = Image.open(path).resize((width, height))
    iuv = Image.fromarray(read_iuv(maps)).resize((width, height), Image.Resampling.NEAREST)
    image.save(path)
    write_iuv(maps, np.array(iuv))


def test_samples_are_what_the_files_hold(tiny_data):
    dataset = DSAPDataset(tiny_data)
    assert len(dataset) == 16 and dataset.identities == 4
    paths = sorted((tiny_data / TRAIN).iterdir())
    for path, sample in zip(paths, dataset):
        assert torch.equal(sample.pixels, torch.from_numpy(read_image(path)))
        assert torch.equal(sample.iuv, torch.from_numpy(read_iuv(tiny_data / "iuv" / TRAIN / path.name)))
        assert sample.pixels.dtype == sample.iuv.dtype == torch.uint8
        assert torch.equal(sample.image, transforms.ToTensor()(Image.open(path)))
        assert (sample.id, sample.camera) == (int(path.name[:4]), int(path.name[6]))
        assert sample.label == sample.id - 1
    with pytest.raises(IndexError):
        dataset[16]


def test_other_splits_keep_distractors_and_leave_out_junk(tiny_data):
    gallery = DSAPDataset(str(tiny_data), GALLERY)
    assert [sample.id for sample in gallery] == [0] + [5] * 4 + [6] * 4
    assert [sample.label for sample in gallery] == [0] + [1] * 4 + [2] * 4
    assert [sample.id for sample in DSAPDataset(tiny_data, split=QUERY)] == [5, 6]


def test_the_transform_sees_the_image_alone(tiny_data):
    sample = DSAPDataset(tiny_data, transform=TRANSFORM)[3]
    path = sorted((tiny_data / TRAIN).iterdir())[3]
    assert torch.equal(sample.image, TRANSFORM(Image.open(path)))
    assert sample.pixels.shape == sample.iuv.shape == (64, 32, 3)
    assert DSAPDataset(tiny_data, transform=lambda image: image.size)[0].image == (32, 64)


def test_batch(tiny_data):
    dataset = DSAPDataset(tiny_data, QUERY, TRANSFORM)
    samples = list(dataset)
    batch = collate_dsap(samples, size=8)
    assert batch.image.shape == (2, 3, 24, 12) and torch.equal(batch.image[1], samples[1].image)
    assert batch.label.tolist() == [0, 1] and batch.id.tolist() == [5, 6] and batch.camera.tolist() == [3, 3]
    assert batch.label.dtype == batch.id.dtype == batch.camera.dtype == torch.int64
    pixels, iuv = (torch.stack(x).permute(0, 3, 1, 2) for x in zip(*((x.pixels, x.iuv) for x in samples)))
    expected = iuv_to_dsap(pixels, iuv, size=8, dtype=torch.float32, mean=MEAN, std=STD)
    assert torch.equal(batch.dsap, expected) and batch.dsap.any()
    plain = collate_dsap(samples, size=8, mean=[0, 0, 0], std=[1, 1, 1])
    assert torch.equal(plain.dsap, iuv_to_dsap(pixels, iuv, size=8, dtype=torch.float32))


def test_files_of_several_sizes(own_data):
    path = sorted((own_data / QUERY).iterdir())[0]
    resize(path, 40, 50)
    samples = list(DSAPDataset(own_data, QUERY, TRANSFORM))
    assert [tuple(x.pixels.shape) for x in samples] == [(40, 50, 3), (64, 32, 3)]
    batch = collate_dsap(samples)
    assert batch.image.shape == (2, 3, 24, 12) and batch.dsap.shape == (2, 24, 3, 32, 32)
    for k in (0, 1):
        assert torch.equal(batch.dsap[k], collate_dsap(samples[k : k + 1]).dsap[0])
    with pytest.raises(ValueError, match=r"tensors of one shape .* are \(3, 40, 50\), \(3, 64, 32\)"):
        collate_dsap(list(DSAPDataset(own_data, QUERY)))
    with pytest.raises(ValueError, match="tensors of one shape .* are Image"):
        collate_dsap(list(DSAPDataset(own_data, QUERY, transforms.CenterCrop(8))))


def test_the_part_images_are_of_the_stored_image(tiny_data):
    """Whatever the transform does to what it sees."""
    flipped = transforms.Compose([transforms.RandomHorizontalFlip(1.0), TRANSFORM])
    straight, turned = (collate_dsap([DSAPDataset(tiny_data, transform=t)[0]]) for t in (TRANSFORM, flipped))
    assert torch.equal(turned.image, straight.image.flip(3)) and not torch.equal(turned.image, straight.image)
    assert torch.equal(turned.dsap, straight.dsap)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers(tiny_data, context):
    dataset = DSAPDataset(tiny_data, transform=TRANSFORM)
    collate = functools.partial(collate_dsap, size=4)
    alone = list(DataLoader(dataset, batch_size=6, collate_fn=collate))
    loader = DataLoader(
        dataset, batch_size=6, collate_fn=collate, num_workers=1, multiprocessing_context=context
    )
    for batch, expected in zip(loader, alone, strict=True):
        assert isinstance(batch, DSAPBatch)
        assert all(map(torch.equal, batch, expected))
    assert [len(batch.image) for batch in alone] == [6, 6, 4]


def test_it_pickles_and_holds_no_open_files(tiny_data):
    gc.collect()  # stores that earlier tests have left are not to be closed in between
    before = sorted(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    dataset = DSAPDataset(tiny_data, transform=TRANSFORM)
    again = pickle.loads(pickle.dumps(dataset))
    assert len(again) == len(dataset)
    for got, expected in zip(again[5], dataset[5]):
        assert torch.equal(torch.as_tensor(got), torch.as_tensor(expected))
    if before is not None:
        assert sorted(os.listdir("/proc/self/fd")) == before


def test_bad_folders(own_data):
    with pytest.raises(ValueError, match="split must be one of bounding_box_train, .* not 'train'"):
        DSAPDataset(own_data, "train")
    with pytest.raises(DSAError, match="nowhere: no such folder"):
        DSAPDataset(own_data / "nowhere")
    shutil.rmtree(own_data / QUERY)
    with pytest.raises(DSAError, match="market: no images of query; a data set is a folder with"):
        DSAPDataset(own_data, QUERY)
    assert len(DSAPDataset(own_data, TRAIN)) == 16


def test_bad_files_are_named(own_data):
    paths = sorted((own_data / TRAIN).iterdir())
    (own_data / TRAIN / "holiday.jpg").touch()
    with pytest.raises(DSAError, match="holiday.jpg: the name must begin"):
        DSAPDataset(own_data)
    (own_data / TRAIN / "holiday.jpg").unlink()
    chart = own_data / "iuv" / TRAIN / paths[2].name
    chart.rename(chart.with_name(f"{chart.stem}_IUV.png"))  # is found too
    dataset = DSAPDataset(own_data)
    assert dataset[2].iuv.any()
    paths[5].write_bytes(paths[5].read_bytes()[:50])
    with pytest.raises(DSAError, match=paths[5].name):
        dataset[5]
    chart.with_name(f"{chart.stem}_IUV.png").unlink()
    with pytest.raises(DSAError, match=rf"no IUV map of .*: neither iuv/.*{chart.name} nor"):
        DSAPDataset(own_data)
