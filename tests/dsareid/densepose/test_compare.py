"""Folders of maps beside each other, and beside marked points."""

import csv
import json
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
    assert found.people["in/1"].scores() == each[1].scores()
    assert found.mean().iou == pytest.approx((each[1].scores().iou + each[2].scores().iou) / 2)
    assert found.mean().u_90 == (each[1] + each[2]).scores().u_90
    assert list(found.parts()) == ["1 torso back", "2 torso front"]
    assert main(["densepose", "compare", str(a), str(b), "--csv", str(tmp_path / "out.csv")]) == 0
    said = capsys.readouterr().out
    assert f"left out: 1 only in {a}, as in/0\n" in said and f"left out: 1 only in {b}, as in/3\n" in said
    assert "all 2 " in said and "people of at least 0.75: GPS 0.0%, GPSm 0.0%" in said
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
    assert f"left out: 1 maps of {b} without a person; {a} shows one in 1" in found.notes
    write_iuv(b / "in/2_IUV.png", np.zeros((24, 16, 3), np.uint8))
    with pytest.raises(DSAError, match="b: no map shows anybody"):
        compare_maps(a, b)


def test_data_sets_stand_for_their_maps(tiny_data, tmp_path):
    shutil.copytree(tiny_data / "iuv", tmp_path / "maps")
    found = compare_maps(tmp_path / "maps", tiny_data)
    assert found.mean().iou == 1 and not found.notes


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
    first, second = (person.scores() for person in found.people.values())
    assert first.iou == 1 and first.gps == pytest.approx(0.5, abs=1e-4) and second.gps == 0
    assert main(["densepose", "compare", str(tmp_path / "a"), str(tmp_path / "coco.json")]) == 0
    said = capsys.readouterr().out
    assert "all 2" in said and f"left out: 1 only in {tmp_path / 'coco.json'}, as b" in said


def test_what_cannot_be_compared(folders, tmp_path, capsys):
    a, b = folders
    (tmp_path / "empty").mkdir()
    (tmp_path / "coco.json").write_text(json.dumps(coco()))
    for one, other, words in [
        (a, tmp_path / "empty", "empty: no NAME_IUV.png or NAME.png in this folder or below"),
        (a, tmp_path / "nowhere", "nowhere: no such folder or file"),
        (tmp_path / "nowhere", b, "nowhere: no such folder of maps"),
        (a, a / "in/0.png", "0.png: neither a folder of maps nor a .json"),
        (a, tmp_path / "coco.json", "no map of an image of .*coco.json, such as a.png"),
        (a, b / "in", "have no map of the same name: in/0 and the like, 1 and the like"),
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
    assert main(["densepose", "compare", str(a), str(b), "--csv", str(tmp_path / "no/where.csv")]) == 1
