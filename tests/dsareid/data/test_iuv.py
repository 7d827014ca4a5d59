import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from dsa_ext import assemble_batch, iuv_to_dsap, parts
from dsareid.data.images import image_size, read_image
from dsareid.data.iuv import flip_iuv, read_iuv, read_pair, read_symmetry, write_iuv
from dsareid.ground.errors import DSAError


def test_round_trip_in_the_classic_order(tmp_path):
    iuv = np.random.default_rng(0).integers(0, 25, (5, 4, 3), dtype=np.uint8)
    path = tmp_path / "a_IUV.png"
    write_iuv(path, iuv)
    assert np.array_equal(read_iuv(path), iuv) and read_iuv(path).flags.writeable
    assert np.array_equal(np.asarray(Image.open(path))[..., 2], iuv[..., 0])  # B = I


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_images_of_any_mode_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (4, 5), 0 if mode in "LP" else (1, 2, 3, 4)).save(path)
    assert read_image(path).shape == (5, 4, 3)


def test_16_bit_images_are_refused_rather_than_clipped(tmp_path):
    Image.fromarray(np.full((4, 5), 30000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DSAError, match="8 bits a channel"):
        read_image(tmp_path / "a.png")


def test_all_background_is_legal(tmp_path):
    write_iuv(tmp_path / "a.png", np.zeros((3, 3, 3), np.uint8))
    assert not read_iuv(tmp_path / "a.png").any()


def save(path, array, mode=None):
    Image.fromarray(array, mode).save(path)
    return path


def test_part_above_24(tmp_path):
    iuv = np.zeros((3, 3, 3), np.uint8)
    iuv[0, 0] = (9, 200, 25)
    with pytest.raises(DSAError, match="must be 0..24, found 25"):
        read_iuv(save(tmp_path / "a.png", iuv))


def test_the_other_channel_order_is_recognised(tmp_path):
    iuv = np.zeros((3, 3, 3), np.uint8)
    iuv[..., 0], iuv[..., 2] = 7, 200  # I, U, V in R, G, B
    with pytest.raises(DSAError, match="order I,U,V"):
        read_iuv(save(tmp_path / "a.png", iuv))


def test_bad_files(tmp_path):
    with pytest.raises(DSAError, match="no such file"):
        read_image(tmp_path / "missing.png")
    with pytest.raises(DSAError, match="mode L"):
        read_iuv(save(tmp_path / "grey.png", np.zeros((3, 3), np.uint8)))
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = save(tmp_path / "whole.jpg", noise).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DSAError, match="cut.jpg: not readable"):
        read_image(tmp_path / "cut.jpg")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DSAError, match="text.png: not readable"):
        read_image(tmp_path / "text.png")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DSAError, match="empty.png: not readable"):
        read_iuv(tmp_path / "empty.png")


def test_sizes_that_differ(tmp_path):
    image = save(tmp_path / "a.png", np.zeros((4, 5, 3), np.uint8))
    iuv = save(tmp_path / "b.png", np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DSAError, match="6x4.*5x4"):
        read_pair(image, iuv)


def test_write_refuses_other_arrays(tmp_path):
    with pytest.raises(ValueError, match="uint8"):
        write_iuv(tmp_path / "a.png", np.zeros((3, 3, 3)))
    with pytest.raises(DSAError, match="cannot write"):
        write_iuv(tmp_path / "no" / "a.png", np.zeros((3, 3, 3), np.uint8))


def test_size_from_the_header_alone(tmp_path):
    path = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:60])
    assert image_size(path) == (50, 40)
    path.write_bytes(b"")
    with pytest.raises(DSAError, match="a.png: not readable as an image"):
        image_size(path)
    with pytest.raises(DSAError, match="no such file"):
        image_size(tmp_path / "missing.png")


# ---- flipping ----


def random_iuv(height=48, width=36):
    rng = np.random.default_rng(1)
    iuv = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    iuv[..., 0] = rng.integers(0, 25, (height, width))
    return iuv


def test_flip_by_hand():
    iuv = np.zeros((1, 6, 3), np.uint8)
    iuv[0, :5] = (1, 10, 20), (3, 10, 20), (9, 10, 20), (6, 0, 255), (23, 10, 20)
    before = iuv.copy()
    assert flip_iuv(iuv).tolist() == [
        [[0, 0, 0], [24, 245, 20], [5, 255, 255], [10, 10, 20], [4, 245, 20], [1, 10, 235]]
    ]
    assert np.array_equal(iuv, before)


def test_flipping_twice_gives_the_map_back():
    iuv = random_iuv()
    assert set(np.unique(iuv[..., 0])) == set(range(25))
    assert not np.array_equal(flip_iuv(iuv), iuv[:, ::-1])
    assert np.array_equal(flip_iuv(flip_iuv(iuv)), iuv)


def test_flip_as_the_compiled_batch_does():
    iuv = random_iuv()
    image = np.random.default_rng(2).integers(0, 256, iuv.shape, dtype=np.uint8)
    flip = torch.tensor([[0, 0, 1, 0, 0, 0, 0, -1]], dtype=torch.int32)  # keeps the person and all parts
    _, batch = assemble_batch(image[None], iuv[None], torch.zeros(1, dtype=torch.int64), flip, size=16)
    flipped = (torch.from_numpy(x.copy()).permute(2, 0, 1)[None] for x in (image[:, ::-1], flip_iuv(iuv)))
    assert torch.equal(batch, iuv_to_dsap(*flipped, size=16).float() / 255)
    assert batch.any()


def tables(dtype=np.float64):
    """UV_symmetry_transforms.mat as the closed form would have it: cells of [v, u], by the part before."""
    v, u = np.mgrid[:256, :256] / 255
    cells = {key: np.empty((1, 24), object) for key in ("U_transforms", "V_transforms")}
    for part in range(24):
        cells["U_transforms"][0, part] = (1 - u if parts.FLIP_U[part] else u).astype(dtype)
        cells["V_transforms"][0, part] = (1 - v if parts.FLIP_V[part] else v).astype(dtype)
    return cells


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_tables_of_the_closed_form_flip_as_it_does(tmp_path, dtype):
    scipy.io.savemat(tmp_path / "UV.mat", tables(dtype))
    read = read_symmetry(tmp_path / "UV.mat")
    assert read.shape == (2, 24, 256, 256) and read.dtype == np.uint8
    assert np.array_equal(flip_iuv(random_iuv(), read), flip_iuv(random_iuv()))


def test_tables_are_read_by_the_old_part_then_v_then_u(tmp_path):
    cells = tables()
    cells["U_transforms"][0, 8][20, 10] = 0.2  # part 9, V = 20, U = 10
    cells["V_transforms"][0, 9][20, 10] = 0.6  # part 10
    cells["U_transforms"][0, 0][20, 10] = np.nan  # no number: the closed form
    scipy.io.savemat(tmp_path / "UV.mat", cells)
    iuv = np.array([[(1, 10, 20), (9, 10, 20), (10, 10, 20), (9, 20, 10)]], np.uint8)
    flipped = flip_iuv(iuv, read_symmetry(tmp_path / "UV.mat"))
    assert flipped.tolist() == [[[10, 20, 10], [9, 10, 153], [10, 51, 20], [1, 10, 235]]]


def test_tables_that_are_wrong(tmp_path):
    path = tmp_path / "UV.mat"
    with pytest.raises(DSAError, match="no such file"):
        read_symmetry(path)
    for content in (b"", b"no MATLAB file", b"MATLAB 5.0 MAT-file" + bytes(200)):
        path.write_bytes(content)
        with pytest.raises(DSAError, match="UV.mat: not readable as a MATLAB 5 file|U_transforms is missing"):
            read_symmetry(path)
    short, narrow, text, high = tables(), tables(), tables(), tables()
    short["U_transforms"] = short["U_transforms"][:, :23]
    narrow["V_transforms"][0, 3] = np.zeros((256, 255))
    text["U_transforms"][0, 3] = "a"
    high["V_transforms"] = high["V_transforms"] * 255
    for cells, words in (
        ({"V_transforms": tables()["V_transforms"]}, "U_transforms is missing"),
        (short, "U_transforms must be a 1x24 cell of 256x256"),
        (narrow, "V_transforms must be a 1x24 cell of 256x256"),
        (text, "U_transforms must be a 1x24 cell"),
        ({"U_transforms": np.zeros((1, 24)), "V_transforms": np.zeros((1, 24))}, "must be a 1x24 cell"),
        (high, r"V_transforms must hold numbers 0..1, found 0..255"),
    ):
        scipy.io.savemat(path, cells)
        with pytest.raises(DSAError, match=words):
            read_symmetry(path)
    scipy.io.savemat(path, tables(), do_compression=True)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DSAError, match="not readable as a MATLAB 5 file"):
        read_symmetry(path)


def test_flip_refuses_other_arrays():
    for iuv in (np.zeros((3, 3, 3)), np.zeros((3, 3), np.uint8), np.full((3, 3, 3), 25, np.uint8)):
        with pytest.raises(ValueError, match="iuv must"):
            flip_iuv(iuv)


def png_header(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    idat = b"IDAT" + zlib.compress(bytes(1000))
    tail = struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    return b"\x89PNG\r\n\x1a\n" + body + tail


def of_size(kind, width, height):
    """A small file whose header claims a size."""
    if kind == "png":
        return png_header(width, height)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    if kind == "ppm":
        return b"P6 %d %d 255\n" % (width, height) + bytes(100)
    if kind == "bmp":
        struct.pack_into("<ii", data, 18, width, height)
    elif kind == "jpeg":
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height, width)
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["png", "ppm", "bmp", "jpeg"])
@pytest.mark.parametrize("size", [(40_000, 25_000), (10_000, 10_000), (8192, 8193)])
def test_an_image_that_claims_to_be_huge(tmp_path, kind, size):
    """A PNG of 10^9 pixels; ones beyond and below where Pillow warns."""
    path = tmp_path / f"a.{kind}"
    path.write_bytes(of_size(kind, *size))
    for read in (read_image, read_iuv, image_size):
        with pytest.raises(DSAError, match=r"a\.\w+: it claims to be of .*, but at most 67,108,864 pixels"):
            read(path)


def test_other_formats_are_not_tried(tmp_path):
    Image.new("RGB", (5, 4)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(DSAError, match="a.jpg: not readable as an image"):
        read_image(tmp_path / "a.jpg")
