import numpy as np
import pytest
from PIL import Image

from dsareid.data.iuv import read_image, read_iuv, read_pair, write_iuv
from dsareid.errors import DSAError


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
