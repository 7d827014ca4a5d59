"""One call from images of any kind and size to features, and what it does not take."""

import numpy as np
import pytest
import torch
from PIL import Image
from runs import HEIGHT, WIDTH, make_run

import dsareid
from dsareid.data.iuv import read_image
from dsareid.data.layouts.base import GALLERY, SPLITS
from dsareid.data.store.pack import pack
from dsareid.evaluation import run_features
from dsareid.ground.errors import DSAError
from dsareid.inference.embedder import embed
from dsareid.inference.extract import extract
from dsareid.inference.feature_folder import open_features
from dsareid.inference.pixels import as_pixels
from dsareid.runs.folder import load_run

SIZES = [(HEIGHT, WIDTH), (50, 40), (128, 64), (7, 90), (1, 1)]  # rows, columns


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("embed") / "run")


@pytest.fixture(scope="module")
def embedder(run):
    return embed(run, "cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Images of several sizes and modes."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("images")
    for k, size in enumerate(SIZES):
        image = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        image.convert(("RGB", "L", "RGBA", "P", "RGB")[k]).save(folder / f"{k}.png")
    return sorted(folder.iterdir())


def resized(file):
    """By Pillow alone."""
    return np.array(Image.open(file).convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))


def test_every_kind_of_image_gives_the_same_features(embedder, files):
    expected = embedder(np.stack([resized(file) for file in files]))
    assert expected.shape == (len(files), 512) and expected.dtype == torch.float32
    arrays = [read_image(file) for file in files]
    for images in (
        files,
        tuple(map(str, files)),
        map(Image.open, files),
        arrays,
        [torch.from_numpy(array) for array in arrays],
        [arrays[0], Image.open(files[1]), str(files[2]), *files[3:]],
    ):
        assert torch.equal(embedder(images), expected)


def test_one_image(embedder, files):
    for file in files:
        expected = embedder(resized(file)[None])
        for image in (file, str(file), Image.open(file), read_image(file), torch.tensor(read_image(file))):
            found = embedder(image)
            assert found.shape == (1, 512) and torch.equal(found, expected)


def test_batches(embedder, files):
    expected = embedder(files)
    batch = torch.from_numpy(np.stack([resized(file) for file in files]))
    for batch_size in (1, 2, 5, 100):
        for images in (files, batch):
            found = embedder(images, batch_size=batch_size)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    with pytest.raises(DSAError, match="`batch_size` must be at least 1, not 0"):
        embedder(files, batch_size=0)


@pytest.mark.filterwarnings("error")
def test_arrays_of_any_layout_give_the_same_bits(embedder, files):
    batch = np.stack([resized(file) for file in files])
    expected = embedder(batch)
    constant = batch.copy()
    constant.setflags(write=False)
    planes = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    reversed_ = batch[:, :, ::-1, ::-1].copy()[:, :, ::-1, ::-1]
    for same in (reversed_, np.asfortranarray(batch), constant, planes):
        assert torch.equal(embedder(same), expected)
        assert torch.equal(embedder(list(same)), expected)
        assert torch.equal(embedder(same[0]), embedder(batch[:1]))


def test_features_are_those_of_extract_and_eval(own_data, tmp_path):
    """Of files of several sizes, and a network of another size."""
    run, gallery = make_run(tmp_path / "net", data=own_data), own_data / "bounding_box_test"
    path = sorted(gallery.iterdir())[-1]
    for place in (path, own_data / "iuv/bounding_box_test" / path.name):
        Image.open(place).resize((40, 90), Image.Resampling.NEAREST).save(place)
    store = pack(own_data, tmp_path / "store", default=(HEIGHT, WIDTH))
    split = store.select(GALLERY, iuv=False)
    names = [name.rpartition("/")[2] for name in split.names]
    found = dsareid.embed(run, "cpu")([gallery / name for name in names])
    evaluated = run_features.compute_features(load_run(run, "cpu"), split, "mf", 64)
    torch.testing.assert_close(found, evaluated, rtol=0, atol=1e-6)
    extract(run, gallery, tmp_path / "features", device="cpu")
    folder = open_features(tmp_path / "features")
    rows = [folder.files.index(name) for name in names]
    np.testing.assert_allclose(folder.features[rows], found.numpy(), rtol=0, atol=1e-6)


def test_pixels_are_those_of_a_store(own_data, tmp_path):
    store = pack(own_data, tmp_path / "store", 40, 24)
    for split in SPLITS:
        chosen = store.select(split, iuv=False)
        for name, row in zip(chosen.names, chosen.rows):
            assert np.array_equal(store.images[row], as_pixels(own_data / name, 40, 24))


def test_images_that_are_none(embedder, tmp_path):
    batch = torch.zeros(1, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    others = [x.numpy() for x in (batch > 0, batch.float())] + [batch.numpy().astype(object)]
    for images in (batch.float(), batch[:, 1:], batch[:0], batch.permute(0, 3, 1, 2), *others):
        with pytest.raises(ValueError, match=r"images must be uint8 \(B, 64, 32, 3\), not"):
            embedder(images)
    for image in (
        batch[0].float(),
        batch[0, 0],
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ):
        for images in (image, [batch[0], image]):
            with pytest.raises(ValueError, match=r"an image must be uint8 \[h, w, 3\], not"):
                embedder(images)
    with pytest.raises(ValueError, match="8 bits a channel, but its mode is I;16"):
        embedder(Image.fromarray(np.zeros((8, 8), np.uint16)))
    with pytest.raises(ValueError, match="an image must be a path, a PIL image or a uint8 array, not int"):
        embedder([3])
    with pytest.raises(ValueError, match="images must hold at least one image"):
        embedder([])
    (tmp_path / "notes.png").write_text("none")
    for images in (tmp_path / "notes.png", [batch[0], tmp_path / "notes.png"]):
        with pytest.raises(DSAError, match="notes.png: not readable as an image"):
            embedder(images)
    with pytest.raises(DSAError, match="nothing.png: no such file"):
        embedder(str(tmp_path / "nothing.png"))
