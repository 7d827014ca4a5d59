"""Boxes of tracks, as MOTChallenge's and YOLO's tools write them."""

import pytest

from dsareid.data.tracked_boxes import TrackedBox, frame_places, read_tracks, video_frame
from dsareid.ground.errors import DSAError


def test_mot(tmp_path):
    file = tmp_path / "gt.txt"
    file.write_text("1,3,11,21,30,60,1,1,0.9\n\n2, 3, 12.5, 21, 30, 60, -1, -1, -1, -1\n2 4 1 1 5 5\n")
    boxes, others = read_tracks(file)
    assert boxes == [
        TrackedBox(0, 3, 10, 20, 40, 80, False),
        TrackedBox(1, 3, 11.5, 20, 41.5, 80, False),
        TrackedBox(1, 4, 0, 0, 5, 5, False),
    ]
    assert others == 0 and boxes[1].within(100, 100) == (12, 20, 42, 80)


def test_yolo(tmp_path):
    (tmp_path / "walk_1.txt").write_text("0 0.5 0.5 0.2 0.4 7\n2 0.1 0.1 0.1 0.1 8\n")
    (tmp_path / "walk_2.txt").write_text("0 0.5 0.5 0.2 0.4 0.93 7\n")
    (tmp_path / "classes.txt").write_text("person\n")
    boxes, others = read_tracks(tmp_path)
    assert [(box.frame, box.track) for box in boxes] == [("walk_1", 7), ("walk_2", 7)] and others == 1
    assert boxes[0].within(100, 200) == (80, 30, 120, 70)
    names = ("walk_1", "walk_120", "walk", "walk_0", "other_1", "walk_x")
    assert [video_frame("walk", x) for x in names] == [0, 119, None, None, None, None]
    assert video_frame("a_b", "a_b_7") == 6


def test_ground_truth_of_mot(tmp_path):
    """Of 9 columns: what does not count, and what is no pedestrian, is left out."""
    rows = ["1,1,1,1,5,5,1,1,0.5", "1,2,1,1,5,5,0,1,0.5", "1,3,1,1,5,5,1,3,0.5", "2000000,1,1,1,5,5,1,1,1"]
    (tmp_path / "gt.txt").write_text("\n".join(rows))
    boxes, others = read_tracks(tmp_path / "gt.txt")
    assert [(box.frame, box.track) for box in boxes] == [(0, 1), (1_999_999, 1)] and others == 2


@pytest.mark.parametrize(
    "names, expected",
    [
        (["000001.jpg", "000002.jpg"], {0: 0, 1: 1}),
        (["000000.jpg", "000001.jpg"], {0: 0, 1: 1}),
        (["1.jpg", "10.jpg", "2.jpg"], {0: 0, 9: 1, 1: 2}),  # with gaps: by their numbers
        (
            [f"{x}.jpg" for x in sorted(map(str, range(1, 12)))],
            {x - 1: k for k, x in enumerate([1, 10, 11, *range(2, 10)])},
        ),
        (["f100.jpg", "f101.jpg"], {99: 0, 100: 1}),
        (["a.jpg", "b.jpg"], {0: 0, 1: 1}),
    ],
)
def test_which_picture_is_which_frame(names, expected):
    assert frame_places(names) == expected
    with pytest.raises(ValueError, match="two pictures are of frame 1"):
        frame_places(["1.jpg", "01.jpg"])


def test_boxes_are_cut_at_the_frame():
    def within(*sides):
        return TrackedBox(0, 1, *sides, False).within(50, 40)

    assert within(-10, -5, 20, 60) == (0, 0, 20, 50) and within(30, 10, 90, 20) == (30, 10, 40, 20)
    assert within(40, 0, 50, 10) is None and within(0, -20, 10, 0) is None and within(0.1, 0, 0.4, 9) is None


@pytest.mark.parametrize(
    "text, message",
    [
        ("1,3,11,21,30\n", "line 1: expected frame,track,left,top,width,height, not 5 numbers"),
        ("1,3,11,21,30,x\n", "line 1: expected numbers, not '1,3,11,21,30,x'"),
        ("1,3,11,21,0,60\n", "line 1: a box must have an area, not 0 x 60"),
        ("1,3,11,21,30,nan\n", "line 1: a number is out of range"),
        ("1,3,1e300,21,30,60\n", "out of range"),
        ("1,-1,11,21,30,60\n", "track -1: these boxes are detections, not tracks"),
        ("0,1,11,21,30,60\n", "frames count from 1, not 0"),
        ("1,1.5,11,21,30,60\n", "expected a whole number, not 1.5"),
        ("", "no box of a person in it"),
    ],
)
def test_mot_that_does_not_do(tmp_path, text, message):
    (tmp_path / "gt.txt").write_text(text)
    with pytest.raises(DSAError, match=message):
        read_tracks(tmp_path / "gt.txt")


@pytest.mark.parametrize(
    "text, message",
    [
        ("0 0.5 0.5 0.2 0.4\n", "a.txt, line 1: .*not 5 numbers"),
        ("0 0.5 0.5 0.2 0.4 0.93\n", "expected a whole number, not 0.93: is there no track"),
        ("0 50 50 20 40 3\n", "expected fractions of the frame"),
        ("1 0.5 0.5 0.2 0.4 3\n", "no box of a person in it"),
    ],
)
def test_yolo_that_does_not_do(tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DSAError, match=message):
        read_tracks(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(DSAError, match="no .txt file in it"):
        read_tracks(tmp_path)
    with pytest.raises(DSAError, match="missing.txt: cannot be read"):
        read_tracks(tmp_path / "missing.txt")
