"""dsareid densepose convert: which map is written where, and what is said about it."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from densepose_sources import HEIGHT, WIDTH, dump, person, write_images
from PIL import Image

from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.data.store.pack import pack
from dsareid.densepose import Detections, Person, convert
from dsareid.densepose.people import covered
from dsareid.ground.errors import DSAError

MODULE = sys.modules["dsareid.densepose.convert"]  # the package has a function of that name


def lines(path):
    return path.read_text().splitlines()


# ---- the map ----


@pytest.mark.parametrize(
    "box", [(3.7, 5.2, 12.9, 30.1), (-4.9, -3.5, 8.2, 9.9), (15.5, 33.3, 40.1, 60.2), (-5.0, -5, 30, 50)]
)
def test_a_chart_is_pasted_at_its_box_and_clipped(mimic, tmp_path, root, box):
    _, chart = person(mimic, box)
    source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": [(box, chart)]})
    convert(source, tmp_path / "iuv", root, scale=1)
    expected = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x0, y0 = int(box[0]), int(box[1])
    for row in range(chart.labels.shape[0]):
        for column in range(chart.labels.shape[1]):
            y, x = y0 + row, x0 + column
            if 0 <= y < HEIGHT and 0 <= x < WIDTH and chart.labels[row, column]:
                u, v = (int(255 * float(c)) for c in chart.uv[:, row, column])
                expected[y, x] = chart.labels[row, column], u, v
    assert expected.any()
    assert np.array_equal(read_iuv(tmp_path / "iuv/query/a.png"), expected)


def test_the_person_who_covers_most_of_the_image(mimic, tmp_path, root):
    small, large = person(mimic, (2, 2, 8, 8), part=3), person(mimic, (1, 5, 19, 38), part=4)
    outside = person(mimic, (15, 30, 90, 200), part=5)  # larger than all, but not within the image
    away = person(mimic, (50, 60, 500, 600), part=6)
    source = dump(
        mimic, tmp_path / "dump.pkl", {"query/a.jpg": [small, outside, large], "query/b.jpg": [small, away]}
    )
    report = convert(source, tmp_path / "iuv", root, scale=1)
    assert set(np.unique(read_iuv(tmp_path / "iuv/query/a.png")[..., 0])) == {0, 4}
    assert set(np.unique(read_iuv(tmp_path / "iuv/query/b.png")[..., 0])) == {0, 3}
    assert report.several == ["query/a.jpg"] and report.outside == ["query/a.jpg", "query/b.jpg"]


def test_of_equal_boxes_the_higher_score(mimic, tmp_path, root):
    one, other = person(mimic, (2, 2, 8, 8), part=3), person(mimic, (4, 4, 10, 10), part=4)
    for order, part in (([one, other], 3), ([other, one], 4)):  # the scores fall
        source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": order})
        convert(source, tmp_path / "iuv", root, overwrite=True)
        assert read_iuv(tmp_path / "iuv/query/a.png")[..., 0].max() == part


def test_what_of_a_box_is_in_the_image():
    assert covered((-5, 2, 10, 7), 20, 40) == 50
    assert covered((-5, -5, 50, 50), 20, 40) == covered(None, 20, 40) == 800
    assert covered((25, 2, 30, 7), 20, 40) == covered((9, 2, 5, 7), 20, 40) == 0


def test_boxes_a_pixel_over_the_edge_are_no_matter(mimic, tmp_path, root):
    source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": [person(mimic, (-0.5, 0, WIDTH + 0.9, 40))]})
    assert not convert(source, tmp_path / "iuv", root).outside


def test_classic_maps_are_copied(tmp_path, root):
    iuv = np.random.default_rng(0).integers(0, 25, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    (tmp_path / "maps/query").mkdir(parents=True)
    write_iuv(tmp_path / "maps/query/a_IUV.png", iuv)
    report = convert(tmp_path / "maps", tmp_path / "iuv", root)
    assert np.array_equal(read_iuv(tmp_path / "iuv/query/a.png"), iuv)
    assert (report.written, report.several, report.no_map) == (1, [], ["query/b.jpg"])
    with pytest.raises(DSAError, match="maps: a folder of maps needs `data=ROOT`"):
        convert(tmp_path / "maps", tmp_path / "iuv")
    write_images(root, "query/a.jpg", size=(WIDTH + 1, HEIGHT))
    with pytest.raises(DSAError, match="the map of query/a.jpg is 20x40, but its image .*a.jpg is 21x40"):
        convert(tmp_path / "maps", tmp_path / "iuv2", root)
    assert not list((tmp_path / "iuv2").rglob("*.png"))


def test_classic_maps_in_the_other_order_are_refused(tmp_path, root):
    (tmp_path / "maps").mkdir()
    iuv = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    iuv[..., 0], iuv[..., 2] = 7, 200
    Image.fromarray(iuv).save(tmp_path / "maps/a_IUV.png")
    with pytest.raises(DSAError, match="order I,U,V"):
        convert(tmp_path / "maps", tmp_path / "iuv", root)


# ---- which image ----


@pytest.mark.parametrize(
    "name",
    [
        "{root}/query/a.jpg",
        "/elsewhere/query/a.jpg",
        "query/a.jpg",
        "./query/../query/a.jpg",
        "D:\\people\\query\\a.jpg",
        "a.jpg",
        "a.png",
        "other/a.jpg",
    ],
)
def test_file_names_are_found_by_their_end(mimic, tmp_path, root, name):
    source = dump(mimic, tmp_path / "dump.pkl", {name.format(root=root): [person(mimic, (1, 1, 9, 9))]})
    assert convert(source, tmp_path / "iuv", root).written == 1
    assert read_iuv(tmp_path / "iuv/query/a.png").any()


def test_the_same_name_in_two_folders(mimic, tmp_path, root):
    write_images(root, "bounding_box_test/a.jpg")
    one = [person(mimic, (1, 1, 9, 9))]
    source = dump(mimic, tmp_path / "dump.pkl", {"x/query/a.jpg": one, "x/bounding_box_test/a.jpg": []})
    convert(source, tmp_path / "iuv", root)
    assert read_iuv(tmp_path / "iuv/query/a.png").any()
    assert not read_iuv(tmp_path / "iuv/bounding_box_test/a.png").any()
    for name in ("a.jpg", "gt_bbox/a.jpg"):
        source = dump(mimic, tmp_path / "dump.pkl", {name: one})
        with pytest.raises(DSAError, match=f"{name} may be bounding_box_test/a.jpg or query/a.jpg of"):
            convert(source, tmp_path / "other", root)
    assert not (tmp_path / "other").exists()
    convert(source, tmp_path / "other/query", root / "query")  # as the message says
    assert (tmp_path / "other/query/a.png").exists()


def test_one_image_under_two_names(mimic, tmp_path, root):
    source = dump(mimic, tmp_path / "dump.pkl", {"a.jpg": [], "query/a.jpg": []})
    with pytest.raises(DSAError, match="a.jpg and query/a.jpg would both be written as .*query/a.png"):
        convert(source, tmp_path / "iuv", root)


def test_one_name_twice(mimic, tmp_path, root):
    entries = [
        {
            "file_name": "a.jpg",
            "scores": torch.zeros(0),
            "pred_boxes_XYXY": torch.zeros(0, 4),
            "pred_densepose": [],
        }
    ]
    source = mimic.save(entries * 2, tmp_path / "dump.pkl")
    with pytest.raises(DSAError, match="dump.pkl: a.jpg is in it twice"):
        convert(source, tmp_path / "iuv", root)


def test_the_only_name_is_not_there(mimic, tmp_path, root):
    source = dump(mimic, tmp_path / "dump.pkl", {"z.jpg": []})
    for data, words in ((root, "is no image below .*data"), (None, "does not exist; give `data=ROOT`")):
        with pytest.raises(DSAError, match=f"dump.pkl: its only file name, z.jpg, {words}"):
            convert(source, tmp_path / "iuv", data)


def test_names_that_are_not_there(mimic, tmp_path, root):
    source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": [], "query/z.jpg": []})
    assert convert(source, tmp_path / "iuv", root).not_found == ["query/z.jpg"]
    source = dump(mimic, tmp_path / "dump.pkl", {"query/y.jpg": [], "query/z.jpg": []})
    with pytest.raises(DSAError, match="none of its 2 file names, as query/y.jpg, is an image below .*data"):
        convert(source, tmp_path / "iuv", root)
    with pytest.raises(DSAError, match="dump.pkl: it holds an empty list; expected a list with a dictionary"):
        convert(dump(mimic, tmp_path / "dump.pkl", {}), tmp_path / "iuv", root)
    for data, words in ((tmp_path / "no", "no such folder"), (source, "not a folder")):
        with pytest.raises(DSAError, match=f"`data=.*`: {words}"):
            convert(source, tmp_path / "iuv", data)


def test_without_data_the_names_must_exist(mimic, tmp_path, root, monkeypatch):
    monkeypatch.chdir(root / "query")
    names = ["a.jpg", "../bounding_box_test/c.jpg", "b.jpg", "z.jpg"]
    source = dump(mimic, tmp_path / "dump.pkl", {name: [] for name in names})
    report = convert(source, tmp_path / "iuv")
    assert report.not_found == ["z.jpg"] and not report.no_map
    written = sorted(str(x.relative_to(tmp_path / "iuv")) for x in (tmp_path / "iuv").rglob("*.png"))
    assert written == ["bounding_box_test/c.png", "query/a.png", "query/b.png"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DSAError, match="none of its 4 file names, as a.jpg, exists; give `data=ROOT`"):
        convert(source, tmp_path / "iuv")


def test_no_name_leads_out_of_dst(mimic, tmp_path, root, monkeypatch):
    monkeypatch.chdir(root / "query")
    write_images(root, "top.jpg")
    source = dump(mimic, tmp_path / "dump.pkl", {"../top.jpg": [], "../../data/query/a.jpg": []})
    convert(source, tmp_path / "deep/iuv")
    written = sorted(str(x.relative_to(tmp_path / "deep")) for x in tmp_path.rglob("*.png"))
    assert written == ["iuv/data/top.png", "iuv/query/a.png"]


def test_no_image_is_written_over(mimic, tmp_path, monkeypatch):
    root = write_images(tmp_path / "data", "query/a.png")
    before = (root / "query/a.png").read_bytes()
    source = dump(mimic, tmp_path / "dump.pkl", {"query/a.png": [person(mimic, (1, 1, 19, 39))]})
    monkeypatch.chdir(root)
    for data, words in (
        (root, "the maps would be taken for images"),
        (None, "a.png: this is an image, and its"),
    ):
        with pytest.raises(DSAError, match=words):
            convert(source, root, data, overwrite=True)
    assert (root / "query/a.png").read_bytes() == before


@pytest.mark.parametrize("out", ["", "query", "query/iuv", "query/new/maps", "link", "query/../query/x"])
def test_maps_among_the_images_are_refused(mimic, tmp_path, root, out):
    (root / "link").symlink_to("query")
    source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": [person(mimic, (1, 1, 19, 39))]})
    before = sorted(root.rglob("*"))
    with pytest.raises(
        DSAError, match="the maps would be taken for images of `data=.*/data`; write to .*iuv or"
    ):
        convert(source, root / out, root)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("out", ["iuv", "iuv/part", "maps", "maps/part", "../query", "../data-iuv"])
def test_maps_in_a_folder_of_their_own(mimic, tmp_path, root, out):
    write_images(root, "top.jpg")  # its map is in DST itself, where the next call finds it
    people = {name: [person(mimic, (1, 1, 19, 39))] for name in ("data/query/a.jpg", "data/top.jpg")}
    source = dump(mimic, tmp_path / "dump.pkl", people)
    assert convert(source, root / out, root).written == 2
    assert convert(source, root / out, root).kept == 2


# ---- lists and the sheet ----


def test_images_without_a_detection_are_listed(mimic, tmp_path, root):
    out, someone = tmp_path / "iuv", [person(mimic, (1, 1, 9, 9))]
    nothing = [person(mimic, (1, 1, 9, 9), part=0)]  # a box, and no part in it
    source = dump(mimic, tmp_path / "1.pkl", {"query/a.jpg": [], "query/b.jpg": someone})
    convert(source, out, root)
    assert lines(out / "no_detection.txt") == ["query/a.jpg"]
    assert np.array_equal(read_iuv(out / "query/a.png"), np.zeros((HEIGHT, WIDTH, 3)))
    convert(dump(mimic, tmp_path / "2.pkl", {"c.jpg": nothing}), out, root)  # the rest of the data set
    assert lines(out / "no_detection.txt") == ["bounding_box_test/c.jpg", "query/a.jpg"]
    again = dump(mimic, tmp_path / "3.pkl", {"query/a.jpg": someone, "c.jpg": someone})
    report = convert(again, out, root, overwrite=True)
    assert not (out / "no_detection.txt").exists() and not report.no_detection


def test_images_that_the_source_does_not_mention_are_listed(mimic, tmp_path, root):
    hidden = ".hidden/y.png", "query/.z.jpg"
    write_images(root, "query/d.jpg", *hidden, "query/-1_c1s1.jpg", "gt_bbox/a.jpg")
    write_images(root, "iuv/query/x.png", "query/b_IUV.png", "query/b_INDS.png")
    out = root / "iuv"
    source = dump(mimic, tmp_path / "1.pkl", {"data/query/a.jpg": []})
    report = convert(source, out, root)
    assert report.no_map == lines(out / "no_map.txt") == ["query/b.jpg", "query/d.jpg"]
    write_iuv(out / "query/d_IUV.png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    convert(dump(mimic, tmp_path / "2.pkl", {"query/b.jpg": []}), out, root)
    assert not (out / "no_map.txt").exists()


def test_the_contact_sheet_shows_a_sample_of_those_with_somebody(mimic, tmp_path):
    names = [f"query/{number:02d}.jpg" for number in range(20)]
    root = write_images(tmp_path / "data", *names)
    boxes = {name: [person(mimic, (1, 1, 15, 35), part=2 + i)] for i, name in enumerate(names)}
    heights = []
    for count in (1, 2, 20):
        out = tmp_path / f"iuv{count}"
        some = {name: boxes[name] if i < count else [] for i, name in enumerate(names)}
        report = convert(dump(mimic, tmp_path / "dump.pkl", some), out, root)
        assert report.sheet == out / "contact_sheet.png"
        heights.append(Image.open(report.sheet).height)
    row = heights[1] - heights[0]
    assert row > 300 and heights[2] - heights[0] == 7 * row
    nobody = dump(mimic, tmp_path / "dump.pkl", {names[0]: []})
    assert convert(nobody, tmp_path / "none", root).sheet is None
    assert not (tmp_path / "none/contact_sheet.png").exists()


def test_the_contact_sheet_tells_a_map_from_its_mirror_image(mimic, tmp_path):
    """What is drawn follows the map: other parts, other part images."""
    root = write_images(tmp_path / "data", "query/a.jpg")
    box = (2, 2, 18, 38)
    sheets = []
    for part in (3, 4):
        source = dump(mimic, tmp_path / "dump.pkl", {"a.jpg": [person(mimic, box, part)]})
        path = convert(source, tmp_path / str(part), root).sheet
        sheets.append(np.asarray(Image.open(path)).astype(int))
    changed = np.abs(sheets[0] - sheets[1]).sum(2) > 0
    assert changed[:, 230:520].any() and changed[:, 580:].any()  # the parts, the part images
    assert not changed[:, :200].any()  # the photograph


# ---- going on, and going wrong ----


def test_maps_that_are_there_are_kept(mimic, tmp_path, root):
    source = dump(mimic, tmp_path / "1.pkl", {"query/a.jpg": [person(mimic, (1, 1, 9, 9), part=3)]})
    both = {name: [person(mimic, (1, 1, 9, 9), part=9)] for name in ("query/a.jpg", "query/b.jpg")}
    other, out = dump(mimic, tmp_path / "2.pkl", both), tmp_path / "iuv"
    convert(source, out, root)
    report = convert(other, out, root)
    assert (report.written, report.kept) == (1, 1) and read_iuv(out / "query/a.png")[..., 0].max() == 3
    report = convert(other, out, root, overwrite=True)
    assert (report.written, report.kept) == (2, 0) and read_iuv(out / "query/a.png")[..., 0].max() == 9


def test_an_interrupted_call_leaves_whole_maps(mimic, tmp_path, root, monkeypatch, run):
    names = ["query/a.jpg", "query/b.jpg", "bounding_box_test/c.jpg"]
    source = dump(mimic, tmp_path / "dump.pkl", {name: [person(mimic, (1, 1, 19, 39))] for name in names})
    out, written = tmp_path / "iuv", []

    def interrupted(path, iuv):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write_iuv(path, iuv)

    monkeypatch.setattr(MODULE, "write_iuv", interrupted)
    status, _, err = run(source, out, "--data", root)
    assert status == 130 and "2 of 3 maps are in" in err and "the same command resumes" in err
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == ["a.png", "b.png"]
    monkeypatch.undo()
    status, printed, err = run(source, out, "--data", root)
    assert status == 0 and "1 map written, 2 kept as they were" in printed, err
    assert (out / "contact_sheet.png").exists()


def test_a_wrong_chart_ends_the_call_with_only_whole_maps(mimic, tmp_path, root, run):
    bad = person(mimic, (1, 1, 9, 9))
    bad[1].labels[3, 3] = 25
    good = person(mimic, (1, 1, 9, 9))
    source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": [good], "query/b.jpg": [bad]})
    status, _, err = run(source, tmp_path / "iuv", "--data", root)
    assert status == 1 and "dsareid densepose convert: error: " in err
    assert "query/b.jpg, person 1: a part must be 0..24, found 0..25" in err
    assert [p.name for p in (tmp_path / "iuv").rglob("*") if p.is_file()] == ["a.png"]


def test_other_failures(mimic, tmp_path, root):
    source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": [person(mimic, (1, 1, 9, 9))]})
    (tmp_path / "file").write_text("")
    with pytest.raises(DSAError, match="cannot create the folder"):
        convert(source, tmp_path / "file", root)
    (root / "query/a.jpg").write_text("no image")
    with pytest.raises(DSAError, match="a.jpg: not readable as an image"):
        convert(source, tmp_path / "iuv", root)
    (tmp_path / "kept/query").mkdir(parents=True)
    (tmp_path / "kept/query/b.png").write_text("half a map")
    other = dump(mimic, tmp_path / "dump.pkl", {"query/b.jpg": []})
    with pytest.raises(DSAError, match="b.png: not readable as an IUV map.*; `overwrite=True` replaces it"):
        convert(other, tmp_path / "kept", root)


def test_what_is_printed(mimic, tmp_path, root, run):
    write_images(root, "query/d.jpg")
    one = person(mimic, (1, 1, 9, 9))
    found = {"query/a.jpg": [one, one], "query/b.jpg": [], "c.jpg": [person(mimic, (5, 5, 90, 90))]}
    many = [f"gallery/{number}.jpg" for number in range(10)]
    write_images(root, *many)
    found |= {name: [one] for name in many}  # so that one box outside is no sign of another size
    missing = {f"query/z{number}.jpg": [] for number in range(4)}
    source = dump(mimic, tmp_path / "dump.pkl", found | missing)
    out = root / "iuv"
    status, printed, err = run(source, out, "--data", root)
    assert status == 0, err
    assert printed.splitlines() == [
        f"{out}: 13 maps written",
        "several people in 1 image (query/a.jpg): the one with the largest box was taken, among those with a "
        f"score of 0.5 or more; listed in {out}/several_people.csv",
        f"no detection in 1 image (query/b.jpg): all background, listed in {out}/no_detection.txt",
        "warning: boxes reach beyond 1 image (bounding_box_test/c.jpg): was DensePose run on images of "
        "another size (--scale)? They were cut off",
        "warning: no image found for 4 file names (query/z0.jpg, query/z1.jpg, query/z2.jpg, ...) of "
        f"{source}",
        f"warning: no map yet for 1 image (query/d.jpg) of {root}, listed in {out}/no_map.txt",
        f"look at {out}/contact_sheet.png before you train: do the parts lie on the bodies?",
    ]


def test_coco_results_from_the_command_line(as_png, tmp_path, root, run):
    chart = np.full((3, 8, 6), 7, np.uint8)
    person = {"image_id": 1, "bbox": [2, 3, 6, 8], "score": 1}
    results = [person | {"uv_shape": [3, 8, 6], "uv_data": as_png(chart)}]
    images = [{"id": 1, "file_name": "query/a.jpg"}, {"id": 2, "file_name": "query/b.jpg"}]
    (tmp_path / "r.json").write_text(json.dumps(results))
    (tmp_path / "names.json").write_text(json.dumps({"images": images}))
    status, _, err = run(tmp_path / "r.json", tmp_path / "iuv", "--data", root)
    assert status == 1 and "--images" in err
    status, printed, err = run(
        tmp_path / "r.json", tmp_path / "iuv", "--data", root, "--images", tmp_path / "names.json"
    )
    assert status == 0 and "no detection in 1 image (query/b.jpg)" in printed, err
    iuv = read_iuv(tmp_path / "iuv/query/a.png")
    assert (iuv[3:11, 2:8] == 7).all() and iuv.sum() == 3 * 48 * 7


def test_what_it_writes_is_what_a_data_set_needs(own_data, tmp_path):
    """The maps of a data set, taken away and written again, pack as before."""
    before = pack(own_data, tmp_path / "before")
    shutil.move(own_data / "iuv", tmp_path / "maps")
    report = convert(tmp_path / "maps", own_data / "iuv", own_data)
    after = pack(own_data, tmp_path / "after")
    assert report.written > 20 and not report.no_map
    assert after.has_iuv.all() and np.array_equal(before.iuv, after.iuv)


def test_people_may_come_from_elsewhere(tmp_path, root, monkeypatch):
    """Detections are plain data: a chart of whatever kind, made when it is asked for."""
    chart = np.full((3, 4, 4), 5, np.uint8)
    found = [Detections("query/a.jpg", [Person((0.0, 0.0, 4.0, 4.0), 1.0, lambda: chart)])]
    monkeypatch.setattr(MODULE, "read_source", lambda *_: found)
    convert("anything", tmp_path / "iuv", root)
    assert read_iuv(tmp_path / "iuv/query/a.png").sum() == 3 * 16 * 5
