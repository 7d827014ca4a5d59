"""Pictures and masks from maps; the colours are those that detectron2's visualisers drew."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsareid.commands.main import main
from dsareid.data.iuv import write_iuv
from dsareid.densepose import drawer, render_maps
from dsareid.densepose.render import part_masks
from dsareid.ground.errors import DSAError


def every_part():
    """One row of pixels, I = 0..24, with U = 10 * I and V = 255 - U, in the background too."""
    part = np.arange(25, dtype=np.uint8)
    return np.stack([part, 10 * part, 255 - 10 * part], 1)[None]


@pytest.fixture
def maps(tmp_path):
    root = tmp_path / "maps"
    (root / "deep").mkdir(parents=True)
    write_iuv(root / "a.png", every_part())
    write_iuv(root / "deep/b.png", every_part()[:, ::-1])
    return root


def test_colours_of_parts():
    (viton,), (magicanimate,) = (drawer(style)(every_part()) for style in ("viton", "magicanimate"))
    assert viton.dtype == np.uint8 and viton.shape == (1, 25, 3)
    assert viton[0, [0, 1, 2, 13, 24]].tolist() == [
        [0, 0, 0],
        [37, 60, 163],
        [20, 80, 194],
        [86, 187, 144],
        [249, 251, 14],
    ]
    assert magicanimate[0, [0, 1, 2, 13, 24]].tolist() == [
        [68, 1, 84],
        [71, 16, 99],
        [72, 31, 112],
        [31, 154, 138],
        [253, 231, 37],
    ]


def test_colours_of_u_and_v():
    u, v = drawer("uv")(every_part())
    assert u[0, [0, 1, 12, 24]].tolist() == [[0, 0, 0], [37, 60, 163], [44, 181, 167], [250, 230, 29]] and v[
        0, [0, 1, 12, 24]
    ].tolist() == [[0, 0, 0], [250, 237, 24], [77, 186, 148], [29, 69, 177]]


def test_masks_are_shares_of_cells():
    iuv = np.zeros((5, 9, 3), np.uint8)
    iuv[:2, :4, 0], iuv[2, :4, 0], iuv[4, 8, 0] = 1, 2, 24
    masks = part_masks(iuv)
    assert masks.dtype == np.float32 and masks.shape == (8, 2, 3)
    assert masks[0, 0, 0] == 12 / 16 and masks[7, 1, 2] == 1 and masks.sum() == 1.75


def test_a_folder(maps, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["densepose", "render", str(maps), str(out), "--style", "uv"]
    assert main(command) == 0 and f"{out}: 4 files, drawn of 2 maps" in capsys.readouterr().out
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert names == ["a_U.png", "a_V.png", "deep/b_U.png", "deep/b_V.png"]
    with Image.open(out / "deep/b_V.png") as image:
        assert np.array_equal(np.array(image)[:, ::-1], drawer("uv")(every_part())[1])
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "4 files are there already" in said and "--overwrite replaces them" in said
    assert main([*command, "--overwrite"]) == 0


def test_jpegs_and_masks(maps, tmp_path):
    assert render_maps(maps, tmp_path / "out", "magicanimate", jpeg=True) == (2, 2)
    with Image.open(tmp_path / "out/a.jpg") as image:
        assert image.format == "JPEG" and image.size == (25, 1)
    render_maps(maps, tmp_path / "masks", "parts")
    assert np.array_equal(np.load(tmp_path / "masks/a.npy", allow_pickle=False), part_masks(every_part()))


def test_one_map(maps, tmp_path):
    (maps / "a.png").rename(maps / "a_IUV.png")
    assert render_maps(maps / "a_IUV.png", maps / "drawn", "viton") == (1, 1)
    with Image.open(maps / "drawn/a.png") as image:
        assert np.array_equal(np.array(image), drawer("viton")(every_part())[0])
    with pytest.raises(DSAError, match="pictures would be taken for maps"):
        render_maps(maps / "a_IUV.png", maps, "viton", jpeg=True, overwrite=True)


def test_a_data_set_by_its_maps(tiny_data, tmp_path):
    found = render_maps(tiny_data, tmp_path / "out", "parts")
    assert found.maps == len(list((tmp_path / "out").rglob("*.npy"))) > 0
    assert (tmp_path / "out/query").is_dir()


def test_what_is_refused(maps, tmp_path, monkeypatch):
    with pytest.raises(DSAError, match="pictures would be taken for maps"):
        render_maps(maps, maps / "deep", "viton")
    with pytest.raises(DSAError, match="pictures would lie among those that the maps are of"):
        (maps.parent / "iuv").symlink_to(maps)
        render_maps(maps.parent, maps.parent, "viton")
    with pytest.raises(DSAError, match="pictures would lie among those that the maps are of"):
        (maps.parent / "set").mkdir()
        maps.rename(maps.parent / "set/iuv")
        render_maps(maps.parent / "set/iuv", maps.parent / "set", "viton")
    (maps.parent / "set/iuv").rename(maps)
    with pytest.raises(DSAError, match="`jpeg` is for pictures"):
        render_maps(maps, tmp_path / "out", "parts", jpeg=True)
    with pytest.raises(DSAError, match="no such folder of maps"):
        render_maps(tmp_path / "none", tmp_path / "out", "parts")
    with pytest.raises(ValueError, match="style must be one of viton, magicanimate, uv, parts, not 'x'"):
        render_maps(maps, tmp_path / "out", "x")
    (maps / "c.png").write_bytes(b"nothing")
    with pytest.raises(DSAError, match=r"c\.png"):
        render_maps(maps, tmp_path / "out", "parts")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(DSAError, match="OpenCV is missing: pip install opencv-python-headless"):
        drawer("viton")


@pytest.mark.skipif("DSA_REAL" not in os.environ, reason="DSA_REAL, the folder of real files, is not set")
def test_real_maps(tmp_path):
    found = render_maps(Path(os.environ["DSA_REAL"]) / "pairs", tmp_path / "out", "viton")
    assert found.maps == 4
    with Image.open(tmp_path / "out/stool.png") as image:
        assert len(image.getcolors(1 << 24)) > 8
