"""People followed by another program: the boxes of tracks, as MOTChallenge's and YOLO's tools write them.

MOT    one text file: frame, track, left, top, width, height, ... a line, in pixels; frames from 1, the
       corner of the first pixel at 1, 1; in a gt.txt, of 9 columns, lines that do not count (flag 0) and
       classes other than 1, a pedestrian, are left out
YOLO   a folder of text files, NAME_FRAME.txt for a video (frames from 1) or NAME.txt for NAME.jpg:
       class, x and y of the centre, width, height, perhaps a confidence, track; fractions of the frame;
       of the classes 0 alone, a person
"""

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dsareid.ground.errors import DSAError

_PERSON = 0  # YOLO's class, by the order of COCO's
_PEDESTRIAN = 1  # MOT's class
_GROUND_TRUTH = 9  # columns
_LARGEST = 1e6  # of a coordinate; frames and tracks may be numbered higher
_HIGHEST = 1e12


class TrackedBox(NamedTuple):
    """A person in a frame."""

    frame: int | str
    """From 0, or the stem of its picture."""
    track: int
    left: float
    top: float
    right: float
    bottom: float
    relative: bool
    """Whether the four are fractions of the frame, not pixels."""

    def within(self, height: int, width: int) -> tuple[int, int, int, int] | None:
        """Left, top, right and bottom in whole pixels of a frame of this size; None if it lies outside."""
        scale = (width, height, width, height) if self.relative else (1, 1, 1, 1)
        sides = [side * x for side, x in zip(self[2:6], scale)]
        left, top = (max(0, math.floor(x + 0.5)) for x in sides[:2])
        right, bottom = (min(most, math.floor(x + 0.5)) for x, most in zip(sides[2:], (width, height)))
        return (left, top, right, bottom) if left < right and top < bottom else None


class TrackedBoxes(NamedTuple):
    """All boxes of a file or folder."""

    boxes: list[TrackedBox]
    """In their order: by file and line."""
    others: int
    """How many boxes of other classes, or that do not count, are left out."""


def read_tracks(path: Path) -> TrackedBoxes:
    """Read the boxes of tracks: a MOT file, or a folder that YOLO wrote.

    Raises:
        DSAError: it is missing or something else, a box has no area, or a person has no track.
    """
    try:
        found = _read_yolo(path) if path.is_dir() else _read_mot(path)
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not found.boxes:
        raise DSAError(f"{path}: no box of a person in it")
    return found


def _read_mot(path: Path) -> TrackedBoxes:
    boxes, others = [], 0
    for line, row in _lines(path):
        if len(row) < 6:
            raise DSAError(
                f"{path}, line {line}: expected frame,track,left,top,width,height, not {len(row)} numbers"
            )
        frame, track = (_whole(path, line, value) for value in row[:2])
        if frame < 1:
            raise DSAError(f"{path}, line {line}: frames count from 1, not {frame}")
        if track < 0:
            raise DSAError(f"{path}, line {line}: track {track}: these boxes are detections, not tracks")
        if len(row) == _GROUND_TRUTH and (row[6] == 0 or row[7] != _PEDESTRIAN):
            others += 1
            continue
        left, top, width, height = row[2:6]
        _check_area(path, line, width, height)
        corner = left - 1, top - 1
        boxes.append(TrackedBox(frame - 1, track, *corner, corner[0] + width, corner[1] + height, False))
    return TrackedBoxes(boxes, others)


def _read_yolo(folder: Path) -> TrackedBoxes:
    boxes, others = [], 0
    files = sorted(file for file in folder.iterdir() if file.suffix == ".txt" and file.name != "classes.txt")
    if not files:
        raise DSAError(
            f"{folder}: no .txt file in it; expected a folder of labels that YOLO wrote, or a MOT file"
        )
    for file in files:
        for line, row in _lines(file):
            if len(row) not in (6, 7):
                raise DSAError(
                    f"{file}, line {line}: expected class, x, y, width, height, perhaps a confidence, and a "
                    f"track, not {len(row)} numbers"
                )
            if _whole(file, line, row[0]) != _PERSON:
                others += 1
                continue
            track = _whole(file, line, row[-1])
            x, y, width, height = row[1:5]
            _check_area(file, line, width, height)
            if not (-1 <= x <= 2 and -1 <= y <= 2 and width <= 2 and height <= 2):
                raise DSAError(f"{file}, line {line}: expected fractions of the frame, not {row[1:5]}")
            sides = x - width / 2, y - height / 2, x + width / 2, y + height / 2
            boxes.append(TrackedBox(file.stem, track, *sides, True))
    return TrackedBoxes(boxes, others)


def _lines(path: Path) -> Iterator[tuple[int, list[float]]]:
    """The numbers of each line that has any."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for line, text in enumerate(file, 1):
            cells = re.split(r"[,\s]+", text.strip().strip(","))
            if cells == [""]:
                continue
            try:
                row = [float(cell) for cell in cells]
            except ValueError as error:
                raise DSAError(f"{path}, line {line}: expected numbers, not {text.strip()[:80]!r}") from error
            bounds = itertools.chain(
                (_HIGHEST, _HIGHEST), itertools.repeat(_LARGEST, 4), itertools.repeat(_HIGHEST)
            )
            if not all(abs(value) <= bound for value, bound in zip(row, bounds)):
                raise DSAError(f"{path}, line {line}: a number is out of range: {text.strip()[:80]!r}")
            yield line, row


def _whole(path: Path, line: int, value: float) -> int:
    if value != int(value):
        raise DSAError(f"{path}, line {line}: expected a whole number, not {value:g}: is there no track?")
    return int(value)


def _check_area(path: Path, line: int, width: float, height: float) -> None:
    if not (width > 0 and height > 0):
        raise DSAError(f"{path}, line {line}: a box must have an area, not {width:g} x {height:g}")


def video_frame(video: str, stem: str) -> int | None:
    """The frame, from 0, that a file VIDEO_FRAME is of; None if it is of none of this video.

    Args:
        video, stem: names without their suffixes.
    """
    name, _, frame = stem.rpartition("_")
    return int(frame) - 1 if name == video and frame.isdecimal() and int(frame) > 0 else None


def frame_places(names: Sequence[str]) -> dict[int, int]:
    """Which picture of a folder is frame 0, 1, ... of a MOT file, whose frames count from 1.

    Pictures whose names end in numbers are taken in the order of these. If the numbers are 0, 1, ... or 1, 2,
    ... without a gap, the first picture is the first frame; otherwise frame N is the picture of number N.
    Other pictures are taken in the order of their names.

    Args:
        names: of the pictures, sorted.

    Returns:
        By the frame, from 0, the place in `names`.

    Raises:
        ValueError: two pictures have one number.
    """
    ends = [re.search(r"(\d+)$", os.path.splitext(name)[0]) for name in names]
    if not names or not all(ends):
        return {place: place for place in range(len(names))}
    numbers = [int(end[1]) for end in ends if end]
    places = sorted(range(len(names)), key=lambda place: numbers[place])
    if twice := [place for place, after in zip(places, places[1:]) if numbers[place] == numbers[after]]:
        raise ValueError(f"two pictures are of frame {numbers[twice[0]]}, one of them {names[twice[0]]}")
    first = min(numbers)
    if first in (0, 1) and max(numbers) - first + 1 == len(names):
        return dict(enumerate(places))
    return {numbers[place] - 1: place for place in places}
