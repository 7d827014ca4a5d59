"""Boxes of people from a table or from COCO's JSON."""

import json

import pytest

from dsareid.densepose.given_boxes import GivenBox, find_boxes, read_boxes
from dsareid.ground.errors import DSAError


def table(tmp_path, *lines):
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join(lines))
    return path


def coco(tmp_path, annotations, **more):
    path = tmp_path / "boxes.json"
    images = [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, **more}))
    return path


def test_a_table_in_any_order_of_columns(tmp_path):
    path = table(tmp_path, "x0,y0,x1,y1,camera,image,score", "1,2,3.5,4,c1,a.jpg,", "0,0,9,9,c2,a.jpg,0.25")
    assert read_boxes(path) == {"a.jpg": [GivenBox(1, 2, 3.5, 4, 1), GivenBox(0, 0, 9, 9, 0.25)]}


def test_coco_has_widths_and_other_categories(tmp_path, caplog):
    people = [
        {"image_id": 7, "bbox": [1, 2, 10, 20], "category_id": 3, "score": 0.5, "iscrowd": 0},
        {"image_id": 7, "bbox": [1, 2, 10, 20], "category_id": 1},
    ]
    categories = [{"id": 1, "name": "dog"}, {"id": 3, "name": "person"}]
    found = read_boxes(coco(tmp_path, people, categories=categories))
    assert found == {"a.jpg": [GivenBox(1, 2, 11, 22, 0.5)], "b.jpg": []}
    assert "something else than people, left out: 1" in caplog.text
    crowd = {"image_id": 8, "bbox": [0, 0, 99, 99], "category_id": 3, "iscrowd": 1}
    assert read_boxes(coco(tmp_path, [*people, crowd], categories=categories))["b.jpg"] == []
    assert read_boxes(coco(tmp_path, people))["a.jpg"] == [GivenBox(1, 2, 11, 22, 1)]


HEADER = "image,x0,y0,x1,y1"


def test_a_name_is_the_end_of_a_picture_s_path(tmp_path, caplog):
    source = tmp_path / "seq1"
    names = ["a.jpg", "deep/a.jpg", "deep/b.jpg", "c.jpg"]
    given = ("a.jpg", "deep\\a.jpg", f"{source}/deep/b.jpg", "seq1/c.jpg", "seq2/c.jpg", "d.jpg")
    source.mkdir()
    lines = [f"{name},0,0,{k + 1},9" for k, name in enumerate(given)]
    found = find_boxes(table(tmp_path, HEADER, *lines), source, names)
    assert {name: boxes[0].right for name, boxes in found.items()} == dict(zip(names, (1, 2, 3, 4)))
    (source / "x").mkdir()
    up = find_boxes(table(tmp_path, HEADER, f"{source}/./a.jpg,0,0,9,9"), source / "x/..", ["a.jpg"])
    assert list(up) == ["a.jpg"]
    assert "names that no picture has, 2 in all, such as seq2/c.jpg" in caplog.text


@pytest.mark.parametrize(
    "lines, words",
    [
        (["a.jpg,0,0,1,1"], "a.jpg may mean x/a.jpg or y/a.jpg of"),
        (["x/a.jpg,0,0,1,1", "seq1/x/a.jpg,0,0,1,1"], "x/a.jpg and seq1/x/a.jpg both mean x/a.jpg of"),
        (["z.png,0,0,1,1"], "it names no picture of"),
    ],
)
def test_names_that_mean_several_or_none(tmp_path, lines, words):
    (tmp_path / "seq1").mkdir()
    with pytest.raises(DSAError, match=words):
        find_boxes(table(tmp_path, HEADER, *lines), tmp_path / "seq1", ["x/a.jpg", "y/a.jpg"])


def test_what_leaves_a_picture():
    assert not GivenBox(-1, 0, 101, 50).leaves(100, 50)
    assert GivenBox(0, 0, 102, 50).leaves(100, 50) and GivenBox(0, -2, 9, 9).leaves(100, 50)


@pytest.mark.parametrize(
    "lines, words",
    [
        (["image,x0,y0,x1"], "its first line must name the columns image, x0, y0, x1, y1"),
        ([""], "image is missing"),
        (["image,x0,y0,x1,y1"], "it has no box of a person"),
        (["image,x0,y0,x1,y1", "a.jpg,5,0,5,9"], "a box must have x0 < x1 and y0 < y1, not 5, 0, 5, 9"),
        (["image,x0,y0,x1,y1", "a.jpg,1,2,x,4"], "line 2: expected a number of pixels or a score, not 'x'"),
        (["image,x0,y0,x1,y1", "a.jpg,1,2"], "line 2: expected a number of pixels or a score, not None"),
        (["image,x0,y0,x1,y1", "a.jpg,1,2,nan,4"], "not 'nan'"),
        (["image,x0,y0,x1,y1,score", "a.jpg,1,2,3,4,87"], "a score must be 0..1, not 87"),
        (["image,x0,y0,x1,y1", *["a.jpg,0,0,1,1"] * 256], "a.jpg has 256 boxes of people, more than 255"),
        (["x0,y0,x1,y1,image", "1,2,3,4"], "line 2: the name of the image is missing"),
        (["image,x0,y0,x1,y1", '"a.jpg,1,2,3,4'], "not readable as a table"),
    ],
)
def test_bad_tables(tmp_path, lines, words):
    with pytest.raises(DSAError, match=r"boxes\.csv") as error:
        read_boxes(table(tmp_path, *lines))
    assert words in str(error.value)


@pytest.mark.parametrize(
    "annotations, words",
    [
        ([{"image_id": 9, "bbox": [0, 0, 1, 1]}], "image_id 9, which `images` does not have"),
        ([{"image_id": 7, "bbox": [0, 0, 1]}], "not COCO's annotations"),
        ([{"image_id": 7, "bbox": [0, 0, -1, 1]}], "x0 < x1"),
        ("x", "not COCO's annotations"),
        ([], "it has no box of a person"),
    ],
)
def test_bad_annotations(tmp_path, annotations, words):
    with pytest.raises(DSAError, match=r"boxes\.json") as error:
        read_boxes(coco(tmp_path, annotations))
    assert words in str(error.value)


def test_many_boxes_of_low_scores_are_no_people(tmp_path):
    lines = ["image,x0,y0,x1,y1,score", *["a.jpg,0,0,1,1,.1"] * 300]
    assert len(read_boxes(table(tmp_path, *lines))["a.jpg"]) == 300


def test_two_images_of_one_id(tmp_path):
    path = tmp_path / "boxes.json"
    images = [{"id": 1, "file_name": name} for name in ("a.jpg", "b.jpg")]
    path.write_text(json.dumps({"images": images, "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}))
    with pytest.raises(DSAError, match="two of `images` have the same id"):
        read_boxes(path)


def test_no_such_file(tmp_path):
    for name in ("none.csv", "none.json"):
        with pytest.raises(DSAError, match=rf"{name}: cannot be read: No such file"):
            read_boxes(tmp_path / name)
