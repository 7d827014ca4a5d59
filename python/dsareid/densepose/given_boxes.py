"""People in pictures as another program found them: boxes, from a table or from COCO's JSON.

A table (.csv) has the columns image, x0, y0, x1, y1 in any order, and may have score and others. JSON is
COCO's: `images` with id and file_name, `annotations` with image_id and bbox (x, y, width, height), and a
score where a detector wrote them. Coordinates are pixels; x1 and y1 are where the box ends.
"""

import csv
import os
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

from pydantic import BaseModel, Field

from dsareid.data.folders import nfc
from dsareid.densepose.people import MIN_SCORE
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import read_json

MOST_BOXES = 255  # of a picture: NAME_INDS.png has a byte for each pixel
_COLUMNS = ("image", "x0", "y0", "x1", "y1")
_PERSON = 1  # COCO's category, where a file does not name them
_Length = Annotated[float, Field(ge=-1e6, le=1e6)]  # NaN is not


class GivenBox(NamedTuple):
    """A person, in pixels of the picture."""

    left: float
    top: float
    right: float
    bottom: float
    score: float = 1.0

    def leaves(self, width: int, height: int) -> bool:
        """Whether it reaches beyond a picture of this size by more than a pixel."""
        return min(self.left, self.top) < -1 or self.right > width + 1 or self.bottom > height + 1


class _Image(BaseModel):
    id: int | str
    file_name: str


class _Category(BaseModel):
    id: int
    name: str


class _Annotation(BaseModel):
    image_id: int | str
    bbox: tuple[_Length, _Length, _Length, _Length]  # x, y, width, height
    category_id: int = _PERSON
    score: float = 1.0
    iscrowd: int = 0


class _File(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category] = []


def read_boxes(path: Path) -> dict[str, list[GivenBox]]:
    """The boxes of each picture that a file names, in the file's order; of COCO's categories people alone.

    Raises:
        DSAError: the file is missing, or is neither of the two; a box without an area or of no image; a score
            out of 0..1.
    """
    try:
        found = _read_coco(path) if path.suffix.lower() == ".json" else _read_table(path)
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror or error}") from error
    for name, boxes in found.items():
        for box in boxes:
            if not (box.left < box.right and box.top < box.bottom):
                raise DSAError(f"{path}: {name}: a box must have x0 < x1 and y0 < y1, not {_corners(box)}")
            if not 0 <= box.score <= 1:
                raise DSAError(f"{path}: {name}: a score must be 0..1, not {box.score:g}")
        people = sum(box.score >= MIN_SCORE for box in boxes)
        if people > MOST_BOXES:
            raise DSAError(f"{path}: {name} has {people:,} boxes of people, more than {MOST_BOXES}")
    if not any(found.values()):
        raise DSAError(f"{path}: it has no box of a person")
    return found


def find_boxes(path: Path, source: Path, names: Sequence[str]) -> dict[str, list[GivenBox]]:
    """The boxes in a file for the pictures of a source; a picture that the file does not name has none.

    A file name means the picture whose path ends so: a file name alone, or with folders, also those above the
    source.

    Args:
        path: of read_boxes.
        source: the folder of the pictures, or the one picture.
        names: of the pictures, relative to the source.

    Raises:
        DSAError: as read_boxes; no file name is that of a picture, or one may mean several, or several one.
    """
    root = source if source.is_dir() else source.parent
    paths = {name: _key(os.path.abspath(root / name)) for name in names}
    called: dict[str, list[str]] = {}
    for name, whole in paths.items():
        called.setdefault(PurePosixPath(whole).name, []).append(name)
    found: dict[str, list[GivenBox]] = {}
    named: dict[str, str] = {}
    unknown: list[str] = []
    for file_name, boxes in read_boxes(path).items():
        key = _key(file_name)
        same = [
            x for x in called.get(PurePosixPath(key).name, []) if paths[x].endswith("/" + key.lstrip("/"))
        ]
        exact = [name for name in same if _key(name) == key] or same
        if len(exact) > 1:
            raise DSAError(f"{path}: {file_name} may mean {exact[0]} or {exact[1]} of {source}")
        if not exact:
            unknown.append(file_name)
            continue
        if other := named.get(exact[0]):
            raise DSAError(f"{path}: {other} and {file_name} both mean {exact[0]} of {source}")
        named[exact[0]], found[exact[0]] = file_name, boxes
    if not found:
        raise DSAError(
            f"{path}: it names no picture of {source}: the first are {unknown[0]} there and {names[0]} here"
        )
    if unknown:
        logger.warning(f"{path}: names that no picture has, {len(unknown):,} in all, such as {unknown[0]}")
    return found


def _key(file_name: str) -> str:
    path = posixpath.normpath(nfc(file_name).replace("\\", "/"))
    while path.startswith("../"):  # from a folder that is not known
        path = path[3:]
    return path


def _corners(box: GivenBox) -> str:
    return ", ".join(f"{number:g}" for number in box[:4])


def _read_table(path: Path) -> dict[str, list[GivenBox]]:
    found: dict[str, list[GivenBox]] = {}
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        try:
            table = csv.DictReader(file, strict=True)
            _check_columns(path, table.fieldnames or ())
            for row in table:
                box = GivenBox(*(_number(path, table.line_num, row[column]) for column in _COLUMNS[1:]))
                if row.get("score") not in (None, ""):
                    box = box._replace(score=_number(path, table.line_num, row["score"]))
                if not row["image"]:
                    raise DSAError(f"{path}: line {table.line_num}: the name of the image is missing")
                found.setdefault(row["image"], []).append(box)
        except csv.Error as error:
            raise DSAError(f"{path}: not readable as a table: {error}") from error
    return found


def _check_columns(path: Path, columns: Iterable[str]) -> None:
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise DSAError(
            f"{path}: its first line must name the columns {', '.join(_COLUMNS)}, and score if it has that; "
            f"{missing[0]} is missing"
        )


def _number(path: Path, line: int, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) <= 1e6:
        raise DSAError(f"{path}: line {line}: expected a number of pixels or a score, not {text!r}")
    return value


def _read_coco(path: Path) -> dict[str, list[GivenBox]]:
    content = read_json(path, _File, "COCO's annotations with `images` and `annotations`")
    people = {each.id for each in content.categories if each.name == "person"}
    if not content.categories:
        people = {_PERSON}
    names = {image.id: image.file_name for image in content.images}
    if len(names) < len(content.images):
        raise DSAError(f"{path}: two of `images` have the same id")
    found: dict[str, list[GivenBox]] = {image.file_name: [] for image in content.images}
    others = 0
    for each in content.annotations:
        if each.image_id not in names:
            raise DSAError(f"{path}: a box is of image_id {each.image_id}, which `images` does not have")
        if each.category_id not in people or each.iscrowd:
            others += 1
            continue
        x, y, width, height = each.bbox
        found[names[each.image_id]].append(GivenBox(x, y, x + width, y + height, each.score))
    if others:
        logger.warning(f"{path}: boxes of crowds and of something else than people, left out: {others:,}")
    return found
