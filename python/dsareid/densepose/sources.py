"""DensePose output in the forms that users have, as one list.

    a folder                NAME_IUV.png of the classic Detectron, or NAME.png
    dump.pkl                apply_net.py dump of detectron2 (torch.save)
    *.pth                   coco_densepose_predictions.pth of detectron2's evaluation
    *.json                  COCO results: image_id, bbox, score, and uv_shape and uv_data, in the entry itself
                            or under "densepose"

A chart is decoded only when it is asked for, so that memory is bounded by the file's own size.
"""

import os
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dsareid.densepose.charts import CSE, FLOATS, Box, CompressedChart, as_array, decode_chart
from dsareid.densepose.dump import LEGACY, load_dump
from dsareid.densepose.map_folder import list_maps
from dsareid.ground.errors import DSAError
from dsareid.ground.files import ZIP, read_json

FORMS = "a folder of NAME_IUV.png, a dump of detectron2 (.pkl), or COCO results (.json)"


class CocoImage(NamedTuple):
    """What COCO annotations say of an image."""

    name: str
    size: tuple[int, int] | None  # width, height


CocoImages = dict[int | str, CocoImage]  # by image_id

# Files that are easily taken for one of these, by how they begin.
_OTHER_FILES = (
    (b"\x93NUMPY", "an .npy of NumPy"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB", "a MATLAB file"),
    (b"\x89PNG", "one picture; give the folder that it is in"),
    (b"\xff\xd8\xff", "one picture, a JPEG, which does not keep part indices"),
    (b"\x1f\x8b", "packed with gzip; unpack it"),
)


@dataclass(frozen=True)
class Person:
    """One detection."""

    box: Box | None  # x0, y0, x1, y1 in pixels; None: the chart is of the whole image
    score: float | None  # None: the source has none
    chart: Callable[[], np.ndarray]  # decodes: uint8 [3, h, w], I, U, V, from the box's corner; DSAError


@dataclass(frozen=True)
class Detections:
    """What was found in one image."""

    file_name: str  # as the source has it; of a folder, without the suffix
    people: list[Person]
    size: tuple[int, int] | None = None
    """Width and height of what DensePose saw, if the source tells them."""


def read_source(path: str | os.PathLike, images: str | os.PathLike | None = None) -> list[Detections]:
    """Read DensePose output of any form; charts stay undecoded.

    Args:
        path: a folder or file as listed above.
        images: COCO annotations whose list `images` names the image_id of COCO results. Images of the list
            that have no result are images without a detection. Not needed if the results hold such a list.

    Raises:
        DSAError: it is of no known form, damaged, or holds what a pickle must not; embeddings of CSE.
    """
    path = Path(path)
    names = {} if images is None else _coco_images(images, _read_json(Path(images)))
    if path.is_dir():
        _refuse_names(path, names)
        return _read_folder(path)
    try:
        with open(path, "rb") as file:
            head = file.read(len(LEGACY))
        file_size = path.stat().st_size
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}; expected {FORMS}") from error
    if head.startswith((ZIP, LEGACY)):
        return _read_entries(path, load_dump(path), names, file_size)
    _refuse_others(path, head)
    results = _read_json(path)
    if isinstance(results, dict):
        if "annotations" not in results:
            raise DSAError(
                f"{path}: expected COCO results, a list or an object with images and annotations, but it is "
                f"an object without annotations: {_in_words(results)}; known: {FORMS}"
            )
        names = _coco_images(path, results) | names
        results = results.get("annotations")
    return _read_entries(path, results, names, file_size)


def _refuse_others(path: Path, head: bytes) -> None:
    """Raise DSAError if a file, by its first bytes, is not JSON; files of torch.save do not come here."""
    if not head:
        raise DSAError(f"{path}: it is empty (0 bytes); expected {FORMS}")
    for start, kind in _OTHER_FILES:
        if head.startswith(start):
            raise DSAError(f"{path}: it is {kind}; expected {FORMS}")
    if head.startswith(b"\x80") or path.suffix in (".pkl", ".pickle"):
        new = path.with_name(f"{path.stem}-new.pkl")
        raise DSAError(
            f"{path}: this is no file of torch.save. detectron2 before November 2022 wrote dumps with "
            "pickle.dump, and reading those would run what they hold; if you trust the file, convert it "
            f"where detectron2 is installed: torch.save(pickle.load(open({str(path)!r}, 'rb')), {str(new)!r})"
        )
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"[", b"{")):
        raise DSAError(f"{path}: of no known form; expected {FORMS}")


def _read_folder(path: Path) -> list[Detections]:
    maps, others = list_maps(path)
    if not maps:
        other = f" ({len(others):,} other files, as {others[0]})" if others else ", which is empty"
        raise DSAError(
            f"{path}: no NAME_IUV.png or NAME.png in this folder or below{other}; expected {FORMS}"
        )
    return [Detections(_checked_name(path, found.name), [Person(None, None, found.chart)]) for found in maps]


def _read_entries(path: Path, entries: object, names: CocoImages, file_size: int) -> list[Detections]:
    wanted = "a list with a dictionary for each image or person"
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DSAError(f"{path}: expected {wanted}, but it holds {_in_words(entries)}; known: {FORMS}")
    if "bbox" in entries[0] if entries else names:
        return _read_coco(path, entries, names, file_size)
    _refuse_names(path, names)
    if not entries:
        raise DSAError(f"{path}: it holds an empty list; expected {wanted}; known: {FORMS}")
    return [_dump_entry(path, entry, file_size) for entry in entries]


def _in_words(value: object) -> str:
    """A description of a value that is not a list of dictionaries."""
    if isinstance(value, dict):
        return (
            f"a dictionary with {', '.join(reprlib.repr(key) for key in list(value)[:3]) or 'nothing'} in it"
        )
    if isinstance(value, list):
        other = next(entry for entry in value if not isinstance(entry, dict))
        return f"a list with something else in it ({type(other).__name__})"
    return f"something else ({type(value).__name__})"


def _refuse_names(path: Path, names: CocoImages) -> None:
    if names:
        raise DSAError(f"{path}: `images` is only for COCO results; this source names its images already")


# ---- detectron2's dump: an entry for each image ----


def _dump_entry(path: Path, entry: dict, file_size: int) -> Detections:
    name = _checked_name(path, entry.get("file_name"))
    where = f"{path}: {name}"
    charts = entry.get("pred_densepose")
    boxes = _numbers(entry, "pred_boxes_XYXY", (4,), where, file_size)
    scored = entry.get("scores") is not None
    scores = _numbers(entry, "scores", (), where, file_size) if scored else [None] * len(boxes)
    charts = [] if charts is None else charts  # the key may be missing if nobody was found
    if not isinstance(charts, list) or not len(charts) == len(boxes) == len(scores):
        count = len(charts) if isinstance(charts, list) else type(charts).__name__
        raise DSAError(
            f"{where}: expected a score and a chart for each box, but there are: boxes {len(boxes)}, scores "
            f"{len(scores)}, pred_densepose {count}; a dump of a DensePose model has them"
        )
    people = []
    for number, (chart, box, score) in enumerate(zip(charts, boxes, scores), start=1):
        people.append(_person(chart, box, score, f"{where}, person {number}", file_size))
    return Detections(name, people)


def _numbers(entry: dict, key: str, row: tuple[int, ...], where: str, file_size: int) -> list:
    """A tensor of an entry, a row for each person; a missing tensor or an empty list gives an empty list."""
    value = entry.get(key)
    if value is None or (isinstance(value, list) and not value):
        return []
    try:
        array = as_array(value, key, FLOATS, file_size)
    except DSAError as error:
        raise DSAError(f"{where}: {error}") from error
    if array.ndim != 1 + len(row) or array.shape[1:] != row:
        raise DSAError(f"{where}: {key} must be {['N', *row]}, not {list(array.shape)}")
    return array.tolist()


# ---- COCO results: an entry for each person ----


def _read_coco(path: Path, entries: list[dict], names: CocoImages, file_size: int) -> list[Detections]:
    people: dict[str, list[Person]] = {image.name: [] for image in names.values()}
    sizes = {image.name: image.size for image in names.values()}
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: result {number}"
        name = _coco_name(entry, names, where)
        box = _box_of_xywh(entry.get("bbox"), where)
        person = _person(_coco_chart(entry, where), box, entry.get("score"), where, file_size)
        people.setdefault(_checked_name(path, name), []).append(person)
    return [Detections(name, found, sizes.get(name)) for name, found in people.items()]


def _coco_name(entry: dict, names: CocoImages, where: str) -> object:
    key = entry.get("image_id")
    if isinstance(key, (int, str)) and key in names:
        return names[key].name
    if "file_name" in entry:
        return entry["file_name"]
    if isinstance(key, str) and not names:  # some programs take the file's name for its id
        return key
    if isinstance(key, (int, str)) and str(key) in map(str, names):
        one, other = ("text", "a number") if isinstance(key, str) else ("a number", "text")
        raise DSAError(
            f"{where}: the image_id {reprlib.repr(key)} is {one}, but the id of this image is "
            f"{other}; make them alike"
        )
    raise DSAError(
        f"{where}: the image_id {reprlib.repr(key)} has no file name; give the COCO annotations that name it "
        "with `images`"
    )


def _coco_chart(entry: dict, where: str) -> object:
    if "embedding" in entry:
        raise DSAError(f"{where}: it holds embedding, {CSE}")
    form = entry.get("densepose", entry)
    if not isinstance(form, dict):
        return form
    if "uv_data" not in form:
        raise DSAError(f"{where}: no uv_shape and uv_data; is this the result of a DensePose model?")
    return CompressedChart(form.get("uv_shape"), form["uv_data"])


def _box_of_xywh(box: object, where: str) -> list[float]:
    numbers = [x for x in map(_finite, box) if x is not None] if isinstance(box, list) else []
    if not isinstance(box, list) or len(box) != 4 or len(numbers) != 4:
        raise DSAError(f"{where}: bbox must be x, y, width, height, not {reprlib.repr(box)}")
    x, y, width, height = numbers
    return [x, y, x + width, y + height]


def _coco_images(path: str | os.PathLike, annotations: object) -> CocoImages:
    """What the list `images` of COCO annotations says of each image_id."""
    listed = annotations.get("images") if isinstance(annotations, dict) else None
    if not isinstance(listed, list) or not all(isinstance(image, dict) for image in listed):
        raise DSAError(f"{path}: expected COCO annotations, with id and file_name of each image in images")
    images: CocoImages = {}
    ids: dict[str, int | str] = {}
    for image in listed:
        key, name = image.get("id"), _checked_name(path, image.get("file_name"))
        if not isinstance(key, (int, str)) or key in images:
            raise DSAError(f"{path}: images: each image must have an id of its own, not {reprlib.repr(key)}")
        if name in ids:  # people of two images would become those of one
            raise DSAError(
                f"{path}: images: {name} is the file_name of the id {ids[name]!r} and of {key!r}; write it "
                "with its folder"
            )
        images[key], ids[name] = CocoImage(name, _size(image)), key
    return images


def _size(image: dict) -> tuple[int, int] | None:
    """Width and height; None if they are missing, 0 or null."""
    width, height = (_finite(image.get(key)) for key in ("width", "height"))
    return (int(width), int(height)) if width and height and min(width, height) >= 1 else None


def _read_json(path: Path) -> object:
    try:
        if not path.stat().st_size:
            raise DSAError(f"{path}: it is empty (0 bytes)")
        return read_json(path, object)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error


# ---- both ----


def _person(form: object, box: list, score: object, where: str, file_size: int) -> Person:
    numbers = [x for x in map(_finite, box) if x is not None]
    confidence = None if score is None else _finite(score)
    if len(numbers) != 4 or (score is not None and confidence is None):
        raise DSAError(f"{where}: box and score must be finite numbers")
    x0, y0, x1, y1 = numbers
    person = (x0, y0, x1, y1)
    return Person(person, confidence, partial(decode_chart, form, person, where, file_size))


def _finite(value: object) -> float | None:
    """A number as float; None if it is none, or too large for pixels."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if -(2**31) < value < 2**31 else None  # NaN is not


def _checked_name(path: str | os.PathLike, name: object) -> str:
    """A file name that can be looked for and printed."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise DSAError(f"{path}: file_name must be the name of an image, not {reprlib.repr(name)}")
    return name
