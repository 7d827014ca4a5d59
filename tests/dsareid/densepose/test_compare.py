"""Folders of maps beside each other, and beside marked points."""

import csv
import json
import logging
import math
import os
import shutil

import numpy as np
import pytest
from coco_files import coco

from dsareid.commands.main import main
from dsareid.data.iuv import write_iuv
from dsareid.densepose import compare_maps
from dsareid.densepose.agreement import compare_pixels
from dsareid.ground.errors import DSAError


def draw_map(seed, height=24, width=16):
    draw = np.random.default_rng(seed)
    iuv = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    iuv[..., 0] = draw.integers(0, 3, (height, width))
    return iuv * (iuv[..., :1] > 0)


@pytest.fixture
def folders(tmp_path):
    """Three people each, two of them in both; the names follow both rules."""
    a, b = tmp_path / "a", tmp_path / "b"
    for k in range(3):
        (a / "in").mkdir(parents=True, exist_ok=True)
        (b / "in").mkdir(parents=True, exist_ok=True)
        write_iuv(a / f"in/{k}.png", draw_map(k))
        write_iuv(b / f"in/{k + 1}_IUV.png", draw_map(k + 10))
    shutil.copy(a / "in/0.png", a / "contact_sheet.png")
    return a, b


def test_two_folders(folders, tmp_path, capsys):
    a, b = folders
    found = compare_maps(a, b)
    assert set(found.people) == {"in/1", "in/2"}
    each = {
        k: compare_pixels(draw_map(k).transpose(2, 0, 1), draw_map(k + 9).transpose(2, 0, 1)) for k in (1, 2)
    }
    assert found.people["in/1"] == each[1].scores()
    assert found.mean().iou == pytest.approx((each[1].scores().iou + each[2].scores().iou) / 2)
    assert found.mean().u_90 == (each[1] + each[2]).scores().u_90
    assert list(found.parts()) == ["1 torso back", "2 torso front"]
    assert main(["densepose", "compare", str(a), str(b), "--csv", str(tmp_path / "out.csv")]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{a} compared with {b}\n")
    assert f"left out because only in {a}: 1 map, the first in/0\n" in said
    assert f"left out because only in {b}: 1 map, the first in/3\n" in said
    assert "all 2 " in said and "people with at least 0.75: GPS 0.0%, GPSm 0.0%" in said
    rows = list(csv.DictReader(open(tmp_path / "out.csv")))
    assert [row["kind"] for row in rows] == ["all", "part", "part", "person", "person"]
    assert float(rows[-1]["gps"]) == pytest.approx(each[2].scores().gps, abs=1e-5) and rows[1]["gpsm"] == ""


def test_people_that_are_not_there(folders):
    """Where B shows nobody nothing can be said of a person; where A shows nobody it is wrong."""
    a, b = folders
    write_iuv(b / "in/1_IUV.png", np.zeros((24, 16, 3), np.uint8))
    write_iuv(a / "in/2.png", np.zeros((24, 16, 3), np.uint8))
    found = compare_maps(a, b)
    assert list(found.people) == ["in/2"] and found.mean().iou == 0 and found.mean().gps == 0
    assert "left out because B shows nobody: 1 map" in found.notes
    write_iuv(b / "in/2_IUV.png", np.zeros((24, 16, 3), np.uint8))
    with pytest.raises(DSAError, match="b: no map shows anybody"):
        compare_maps(a, b)


def test_data_sets_stand_for_their_maps(tiny_data, tmp_path):
    shutil.copytree(tiny_data / "iuv", tmp_path / "maps")
    found = compare_maps(tmp_path / "maps", tiny_data)
    assert found.mean().iou == 1 and not found.notes and found.b == tiny_data / "iuv"


def test_names_of_any_kind(folders, tmp_path, caplog):
    """Not UTF-8 in the table, with its bytes; a contact sheet in a folder below is no map."""
    caplog.set_level(logging.CRITICAL, "dsareid")  # pytest-xdist cannot send names that are not UTF-8
    a, b = folders
    odd = os.fsdecode(b"odd\xff, 'quoted'")
    for path in (a / f"{odd}.png", b / f"{odd}_IUV.png"):
        write_iuv(path, draw_map(7))
    shutil.copy(a / "in/0.png", a / "in/contact_sheet.png")
    found = compare_maps(a, b)
    found.write_csv(tmp_path / "out.csv")
    assert b"odd\xff" in (tmp_path / "out.csv").read_bytes() and len(found.people) == 3


def test_marked_points(tmp_path, capsys):
    """People of one image in its map; only what is in a person's box is the person's mask."""
    (tmp_path / "a").mkdir()
    iuv = np.zeros((140, 80, 3), np.uint8)
    iuv[20:122, 10:61] = 2, 64, 0
    write_iuv(tmp_path / "a/a.png", iuv)
    everything = np.ones((256, 256), bool)
    content = coco([everything], dp_I=[2, 24])
    content["annotations"].append(coco(bbox=[0, 0, 20, 10])["annotations"][1])
    content["images"].append({"id": 9, "file_name": "b.jpg"})
    content["annotations"].append(coco(image_id=9)["annotations"][1])
    (tmp_path / "coco.json").write_text(json.dumps(content))
    found = compare_maps(tmp_path / "a", tmp_path / "coco.json")
    assert list(found.people) == ["a#1", "a#2"]
    first, second = found.people.values()
    assert first.iou == 1 and first.gps == pytest.approx(0.5, abs=1e-4) and second.gps == 0
    assert main(["densepose", "compare", str(tmp_path / "a"), str(tmp_path / "coco.json")]) == 0
    said = capsys.readouterr().out
    assert "all 2" in said
    assert f"left out because only in {tmp_path / 'coco.json'}: 1 map, the first b" in said
    content["annotations"][2]["dp_masks"] = []
    (tmp_path / "coco.json").write_text(json.dumps(content))
    found = compare_maps(tmp_path / "a", tmp_path / "coco.json")
    assert math.isnan(found.people["a#2"].gpsm) and found.mean().iou == 1
    assert "without a mask in B, so without IoU and GPSm: 1" in found.notes
    assert found.above(0.5)[1] == 1 and found.above(0.5)[0] == 0


@pytest.mark.parametrize("said", [True, False])
def test_points_of_another_size(tmp_path, said):
    """By what the file says of the image, or where it says nothing by where the points are."""
    (tmp_path / "a").mkdir()
    content = coco()
    if said:
        content["images"][0] |= {"width": 80, "height": 140}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    for shape, fits in (((140, 80, 3), True), ((70, 40, 3), False), ((280, 160, 3), not said)):
        write_iuv(tmp_path / "a/a.png", np.full(shape, 2, np.uint8))
        if fits:
            compare_maps(tmp_path / "a", tmp_path / "coco.json")
        else:
            with pytest.raises(DSAError, match="the map a is .* of an image of another size"):
                compare_maps(tmp_path / "a", tmp_path / "coco.json")


def test_what_cannot_be_compared(folders, tmp_path, capsys):
    a, b = folders
    (tmp_path / "empty").mkdir()
    (tmp_path / "coco.json").write_text(json.dumps(coco()))
    for one, other, words in [
        (a, tmp_path / "empty", "empty: no NAME_IUV.png or NAME.png in this folder or below"),
        (a, tmp_path / "nowhere", "nowhere: no such folder or file"),
        (tmp_path / "nowhere", b, "nowhere: no such folder of maps"),
        (a, a / "in/0.png", "0.png: neither a folder of maps nor a .json"),
        (a, tmp_path / "coco.json", "have no map of the same name: the first are in/0 and a"),
        (a, b / "in", "have no map of the same name: the first are in/0 and 1"),
    ]:
        with pytest.raises(DSAError, match=words):
            compare_maps(one, other)
    write_iuv(b / "in/1_IUV.png", draw_map(1, 30, 20))
    out = tmp_path / "out.csv"
    assert main(["densepose", "compare", str(a), str(b), "--csv", str(out)]) == 1
    assert f"the map in/1 is 16x24 in {a} and 20x30 in {b}" in capsys.readouterr().err and not out.exists()
    (b / "in/2_IUV.png").write_bytes(b"no map")
    (b / "in/1_IUV.png").unlink()
    with pytest.raises(DSAError, match="2_IUV.png: not readable as an IUV map"):
        compare_maps(a, b)
    os.mkfifo(tmp_path / "pipe.csv")
    wrong = {"no/where.csv": "where.csv", "a/in/0.png": "must end in .csv", "pipe.csv": "not a regular file"}
    for name, words in wrong.items():
        assert main(["densepose", "compare", str(a), str(b), "--csv", str(tmp_path / name)]) == 1
        assert words in capsys.readouterr().err
