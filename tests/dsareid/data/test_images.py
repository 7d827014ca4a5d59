"""Pictures as people have them: every usual suffix, and upright whatever the EXIF data says."""

import numpy as np
import pytest
from PIL import Image

from dsareid.data.images import FORMATS, SUFFIXES, image_header, image_size, read_image, upright
from dsareid.data.iuv import read_iuv, read_pair, write_iuv
from dsareid.ground.errors import DSAError

# How the stored picture comes of the upright one, by EXIF's number: what the camera did.
STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
}


def upright_pixels():
    """Flat squares, which JPEG keeps nearly as they are."""
    colours = np.random.default_rng(0).integers(0, 256, (5, 3, 3), dtype=np.uint8)
    return np.kron(colours, np.ones((16, 16, 1), np.uint8))


def save_turned(path, pixels, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}
    options |= {"lossless": True} if path.suffix == ".webp" else {}
    Image.fromarray(np.ascontiguousarray(STORED[turn](pixels))).save(path, exif=exif, **options)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("turn", STORED)
def test_pictures_are_turned_upright(tmp_path, suffix, turn):
    path, pixels = tmp_path / f"a{suffix}", upright_pixels()
    save_turned(path, pixels, turn)
    found = read_image(path)
    assert found.shape == pixels.shape and abs(found.astype(int) - pixels).max() < 12
    assert image_size(path) == (48, 80) and image_header(path) == ((48, 80), turn)
    for opened in (Image.open(path), Image.open(path).convert("RGB")):
        assert np.array_equal(np.asarray(upright(opened)), found)


def test_maps_are_turned_upright(tmp_path):
    iuv = np.random.default_rng(0).integers(0, 25, (6, 4, 3), dtype=np.uint8)
    write_iuv(tmp_path / "a.png", iuv)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(tmp_path / "a.png").transpose(Image.Transpose.ROTATE_180).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(read_iuv(tmp_path / "b.png"), iuv)


def test_a_map_of_the_picture_as_it_is_stored(tmp_path):
    save_turned(tmp_path / "a.jpg", upright_pixels(), 6)
    write_iuv(tmp_path / "upright.png", np.zeros((80, 48, 3), np.uint8))
    write_iuv(tmp_path / "stored.png", np.zeros((48, 80, 3), np.uint8))
    read_pair(tmp_path / "a.jpg", tmp_path / "upright.png")
    with pytest.raises(
        DSAError, match="80x48, but its image .* is 48x80, turned upright as its EXIF data asks"
    ):
        read_pair(tmp_path / "a.jpg", tmp_path / "stored.png")


@pytest.mark.parametrize("turn", [0, 9, 3000])
def test_a_turn_that_there_is_not(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(upright_pixels()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright_pixels())


def test_damaged_exif_data(tmp_path):
    """Viewers show such a picture as it is stored."""
    save_turned(tmp_path / "a.jpg", upright_pixels(), 6)
    whole = (tmp_path / "a.jpg").read_bytes()
    at = whole.index(b"Exif\0\0") + 6
    for damage in (b"\xff" * 8, b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08"):
        (tmp_path / "b.jpg").write_bytes(whole[:at] + damage + whole[at + len(damage) :])
        assert image_size(tmp_path / "b.jpg") == read_image(tmp_path / "b.jpg").shape[1::-1]


def test_the_suffixes_are_those_of_the_formats(tmp_path):
    Image.init()
    registered = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    assert set(SUFFIXES) == registered - {".pfm"}  # whose values are no colours
    pixels = upright_pixels()
    for suffix in SUFFIXES:
        path = tmp_path / f"a{suffix.upper()}"
        mode = {".pbm": "1", ".pgm": "L"}.get(suffix, "RGB")
        Image.fromarray(pixels).convert(mode).save(path)
        assert read_image(path).shape == pixels.shape, suffix
