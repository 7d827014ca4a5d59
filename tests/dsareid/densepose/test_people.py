"""Which person an image is of, and what is said about the others."""

import csv
import json
import math

import numpy as np
import pytest
from densepose_sources import HEIGHT, WIDTH, dump, person, write_images

from dsareid.data.iuv import read_iuv
from dsareid.densepose import Person, convert
from dsareid.densepose.people import choose_person
from dsareid.ground.errors import DSAError

LARGE, MIDDLE, SMALL = (0.0, 0.0, 19.0, 39.0), (2.0, 2.0, 16.0, 36.0), (2.0, 2.0, 8.0, 8.0)


def chosen(people, min_score=0.5):
    found = [Person(box, score, lambda: None) for box, score in people]
    return choose_person(found, (WIDTH, HEIGHT), min_score)


def part(path):
    return read_iuv(path)[..., 0].max()


def table(out):
    with open(out / "several_people.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def three(mimic, tmp_path):
    """A large box of score 0.085 before two people, in a.jpg; the middle one alone is right."""
    people = [person(mimic, box, part) for box, part in ((LARGE, 9), (MIDDLE, 3), (SMALL, 4))]
    return dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": people}, {"query/a.jpg": [0.085, 0.8, 1.0]})


@pytest.mark.parametrize(
    "people, min_score, expected",
    [
        ([(LARGE, 0.085), (MIDDLE, 0.8), (SMALL, 1.0)], 0.5, (1, True, False, 1)),
        ([(LARGE, 0.085), (MIDDLE, 0.8), (SMALL, 1.0)], 0.9, (2, True, False, 2)),
        ([(LARGE, 0.085), (MIDDLE, 0.8), (SMALL, 1.0)], 0, (0, True, False, 0)),
        ([(LARGE, 0.5), (SMALL, 1.0)], 0.5, (0, True, False, 0)),  # at least
        ([(LARGE, 0.1), (MIDDLE, 0.4), (SMALL, 0.4)], 0.5, (1, True, True, 2)),  # the best, then the larger
        ([(LARGE, 0.1)], 0.5, (0, False, True, 0)),
        ([(LARGE, None), (SMALL, 0.9)], 1, (0, True, False, 1)),  # a source without scores
        ([(None, None)], 1, (0, False, False, 0)),  # a whole map
        ([((50, 50, 90, 90), 0.9), (SMALL, 0.1)], 0.5, (1, False, True, 0)),  # one is not in the image
        ([((50, 50, 90, 90), 0.9)], 0.5, (None, False, False, 0)),
        ([], 0.5, (None, False, False, 0)),
    ],
)
def test_the_largest_of_those_with_a_minimum_score(people, min_score, expected):
    found = chosen(people, min_score)
    place = next((i for i, each in enumerate(found.candidates) if each is found.chosen), None)
    assert (place, found.several, found.below, found.refused) == expected


def test_a_large_box_of_a_low_score_is_not_taken(three, tmp_path, root, run):
    status, printed, err = run(three, tmp_path / "iuv", "--data", root)
    assert status == 0 and part(tmp_path / "iuv/query/a.png") == 3, err
    path = tmp_path / "iuv/several_people.csv"
    assert printed.splitlines()[1:3] == [
        "several people in 1 image (query/a.jpg): the one with the largest box was taken, among those with a "
        f"score of 0.5 or more; listed in {path}",
        "1 detection refused for a score below 0.5",
    ]
    assert path.read_text().splitlines() == [
        "image,box,score,share,chosen",
        "query/a.jpg,0.0 0.0 19.0 39.0,0.085,0.926,no",
        "query/a.jpg,2.0 2.0 16.0 36.0,0.800,0.595,yes",
        "query/a.jpg,2.0 2.0 8.0 8.0,1.000,0.045,no",
    ]


def test_the_best_where_nobody_has_the_score(three, mimic, tmp_path, root, run):
    alone = dump(mimic, tmp_path / "2.pkl", {"b.jpg": [person(mimic, LARGE, 7)]}, {"b.jpg": [0.3]})
    status, printed, _ = run(alone, tmp_path / "iuv", "--data", root)
    path = tmp_path / "iuv/several_people.csv"
    assert status == 0 and part(tmp_path / "iuv/query/b.png") == 7
    assert (
        f"warning: no score of 0.5 or more in 1 image (query/b.jpg): the best was taken; listed in {path}"
    ) in printed
    assert "several people" not in printed and "refused" not in printed
    assert [(row["image"], row["chosen"]) for row in table(tmp_path / "iuv")] == [("query/b.jpg", "yes")]


def test_two_people_below_the_score_are_said_once(mimic, tmp_path, root, run):
    people = [person(mimic, LARGE, 7), person(mimic, SMALL, 8)]
    source = dump(mimic, tmp_path / "2.pkl", {"b.jpg": people}, {"b.jpg": [0.2, 0.3]})
    status, printed, _ = run(source, tmp_path / "iuv", "--data", root)
    assert status == 0 and part(tmp_path / "iuv/query/b.png") == 8
    assert "several people" not in printed
    assert "warning: no score of 0.5 or more in 1 image (query/b.jpg): the best was taken" in printed
    assert [row["chosen"] for row in table(tmp_path / "iuv")] == ["no", "yes"]


def test_no_score_is_spoken_of_where_there_is_none(as_png, tmp_path, root, run):
    result = {"image_id": "a.jpg", "uv_shape": [3, 8, 6], "uv_data": as_png(np.full((3, 8, 6), 7, np.uint8))}
    people = [result | {"bbox": [2, 3, 6, 8]}, result | {"bbox": [3, 30, 6, 8]}]
    (tmp_path / "r.json").write_text(json.dumps(people))
    status, printed, err = run(tmp_path / "r.json", tmp_path / "iuv", "--data", root)
    assert status == 0, err
    assert "the one with the largest box was taken; listed in" in printed


def test_an_empty_map_is_not_called_no_detection(mimic, tmp_path, root, run):
    out = tmp_path / "iuv"
    outside, background = person(mimic, (50, 60, 70, 90)), person(mimic, LARGE, 0)
    fitting = {f"x/{number}.jpg": [person(mimic, LARGE)] for number in range(20)}
    write_images(root, *fitting)
    found = {"query/a.jpg": [background, person(mimic, SMALL, 4)], "query/b.jpg": [outside], "c.jpg": []}
    source = dump(mimic, tmp_path / "2.pkl", found | fitting)
    status, printed, err = run(source, out, "--data", root)
    assert status == 0, err
    assert "no detection in 1 image (bounding_box_test/c.jpg): all background" in printed
    words = "warning: the map is empty although somebody was detected in"
    assert f"{words} 2 images (query/a.jpg, query/b.jpg): no part of that person lies" in printed
    listed = ["bounding_box_test/c.jpg", "query/a.jpg", "query/b.jpg"]
    assert (out / "no_detection.txt").read_text().splitlines() == listed
    somebody = dump(mimic, tmp_path / "3.pkl", {"query/a.jpg": [], "c.jpg": [person(mimic, LARGE)]})
    status, printed, _ = run(somebody, out, "--data", root)  # the blank maps are kept
    assert "no detection in 1 image (query/a.jpg)" in printed
    assert f"{words} 1 image (bounding_box_test/c.jpg)" in printed


def test_sources_without_scores(mimic, as_png, tmp_path, root):
    chart = np.full((3, 8, 6), 7, np.uint8)
    result = {"image_id": "a.jpg", "bbox": [2, 3, 6, 8], "uv_shape": [3, 8, 6], "uv_data": as_png(chart)}
    (tmp_path / "r.json").write_text(json.dumps([result, result | {"image_id": "b.jpg", "score": 0.2}]))
    report = convert(tmp_path / "r.json", tmp_path / "iuv", root, min_score=1)
    assert report.below == ["query/b.jpg"] and not report.several
    assert [row["score"] for row in table(tmp_path / "iuv")] == ["0.200"]


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True, "0.5"])
def test_the_bounds_of_the_score(three, tmp_path, root, value):
    with pytest.raises(DSAError, match=r"`min_score=.*`: expected a number from 0 to 1"):
        convert(three, tmp_path / "iuv", root, min_score=value)
    assert not (tmp_path / "iuv").exists()


def test_the_bounds_on_the_command_line(three, tmp_path, root, run):
    for value in ("nan", "-1", "2"):
        status, _, err = run(three, tmp_path / "iuv", "--data", root, "--min-score", value)
        assert status == 1 and "--min-score" in err and "expected a number from 0 to 1" in err


def test_scores_in_percent_are_told(mimic, tmp_path, root, caplog):
    for score, told in ((1.0, False), (85.0, True)):
        source = dump(mimic, tmp_path / "dump.pkl", {"a.jpg": [person(mimic, LARGE)]}, {"a.jpg": [score]})
        convert(source, tmp_path / "iuv", root, overwrite=True)
        assert (
            "scores reach 85, but `min_score=0.5` is one of 0..1: are they percent?" in caplog.text
        ) == told


def test_the_table_is_of_all_calls(three, mimic, tmp_path, root):
    out, two = tmp_path / "iuv", [person(mimic, LARGE), person(mimic, SMALL)]
    convert(three, out, root)
    convert(dump(mimic, tmp_path / "2.pkl", {"c.jpg": two}), out, root)
    assert [row["image"] for row in table(out)] == ["bounding_box_test/c.jpg"] * 2 + ["query/a.jpg"] * 3
    convert(dump(mimic, tmp_path / "2.pkl", {"c.jpg": two}), out, root)  # all is kept
    assert len(table(out)) == 5
    convert(dump(mimic, tmp_path / "3.pkl", {"a.jpg": two[:1]}), out, root, overwrite=True)
    assert [row["image"] for row in table(out)] == ["bounding_box_test/c.jpg"] * 2
    convert(dump(mimic, tmp_path / "3.pkl", {"c.jpg": two[:1]}), out, root, overwrite=True)
    assert not (out / "several_people.csv").exists()


def test_the_table_after_an_interruption(three, mimic, tmp_path, root):
    """The maps are there, the lists are not, as these are written last."""
    out = tmp_path / "iuv"
    convert(three, out, root)
    (out / "several_people.csv").unlink()
    assert convert(three, out, root).kept == 1
    assert len(table(out)) == 3


def test_a_kept_map_of_another_minimum_score_is_told(three, mimic, tmp_path, root, run):
    out = tmp_path / "iuv"
    convert(three, out, root, min_score=0)
    assert part(out / "query/a.png") == 9
    status, printed, _ = run(three, out, "--data", root)
    assert status == 0 and part(out / "query/a.png") == 9
    assert f"warning: {three} now gives other maps than were kept for 1 image (query/a.jpg)" in printed
    assert "--overwrite rewrites them" in printed
    assert [row["chosen"] for row in table(out)] == ["yes", "no", "no"]  # as it was made
    status, printed, _ = run(three, out, "--data", root, "--overwrite")
    assert part(out / "query/a.png") == 3 and "now gives" not in printed
    assert [row["chosen"] for row in table(out)] == ["no", "yes", "no"]
    status, printed, _ = run(three, out, "--data", root)
    assert "now gives" not in printed


def test_a_kept_map_of_another_size_is_refused(three, tmp_path, root):
    convert(three, tmp_path / "iuv", root)
    write_images(root, "query/a.jpg", size=(WIDTH + 1, HEIGHT))
    with pytest.raises(
        DSAError, match="a.png: this map is 20x40, but its image .*21x40; `overwrite=True` rep"
    ):
        convert(three, tmp_path / "iuv", root)


@pytest.mark.parametrize("text", ["image,score\n", "image,box,score,share,chosen\na,b\n", '"', "\xff"])
def test_a_table_of_something_else_is_not_overwritten(three, tmp_path, root, text):
    (tmp_path / "iuv").mkdir()
    path = tmp_path / "iuv/several_people.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DSAError, match="cannot read .*several_people.csv"):
        convert(three, tmp_path / "iuv", root)
    assert path.read_bytes() == text.encode("latin-1")
    assert [x.name for x in (tmp_path / "iuv").rglob("*.*")] == [path.name]  # before the work
