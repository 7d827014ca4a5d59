"""DensePose output in the forms that users have, as one list.

    a folder                NAME_IUV.png of the classic Detectron, or NAME.png
    dump.pkl                apply_net.py dump of detectron2 (torch.save)
    *.pth                   coco_densepose_predictions.pth of detectron2's evaluation
    *.json                  COCO results: image_id, bbox, score, and uv_shape and uv_data, of the entry itself
                            or under "densepose"

A chart is decoded only when it is asked for, so that memory is bounded by the file's own size.
"""

import os
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from dsareid.data.iuv import read_iuv
from dsareid.densepose.charts import CSE, FLOATS, Box, CompressedChart, as_array, decode_chart
from dsareid.densepose.dump import LEGACY, load_dump
from dsareid.ground.errors import DSAError
from dsareid.ground.files import ZIP, read_json

FORMS = "a folder of NAME_IUV.png, a dump of detectron2 (.pkl), or COCO results (.json)"
Names = dict[int | str, str]  # the file name of each image_id


@dataclass(frozen=True)
class Person:
    """One detection."""

    box: Box | None  # x0, y0, x1, y1 in pixels; None: the chart is of the whole image
    score: float
    chart: Callable[[], np.ndarray]  # decodes: uint8 [3, h, w], I, U, V, from the box's corner; DSAError


@dataclass(frozen=True)
class Detections:
    """What was found in one image."""

    file_name: str  # as the source has it; of a folder, without the suffix
    people: list[Person]


def read_source(path: str | os.PathLike, images: str | os.PathLike | None = None) -> list[Detections]:
    """Read DensePose output of any form; charts stay undecoded.

    Args:
        path: a folder or file as listed above.
        images: COCO annotations whose list `images` names the image_id of COCO results. Images of the list
            that have no result are images without a detection. Results that hold such a list need none.

    Raises:
        DSAError: it is of no known form, damaged, or holds what a pickle must not; embeddings of CSE.
    """
    path = Path(path)
    names = {} if images is None else _image_names(images, _read_json(Path(images)))
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
    if head.startswith(b"\x80") or path.suffix in (".pkl", ".pickle"):
        raise DSAError(
            f"{path}: this is no file of torch.save. detectron2 before November 2022 wrote dumps with "
            "pickle.dump, and reading those would run what they hold; where detectron2 is installed, and if "
            "you trust the file: torch.save(pickle.load(open(OLD, 'rb')), NEW)"
        )
    if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"[", b"{")):
        raise DSAError(f"{path}: of no known form; expected {FORMS}")
    results = _read_json(path)
    if isinstance(results, dict):
        names = _image_names(path, results) | names
        results = results.get("annotations")
    return _read_entries(path, results, names, file_size)


def _read_folder(path: Path) -> list[Detections]:
    files = sorted(file for file in path.rglob("*.png") if not file.name.startswith("."))  # unfinished ones
    maps = [file for file in files if file.stem.endswith("_IUV")] or files
    if not maps:
        raise DSAError(f"{path}: no NAME_IUV.png or NAME.png in this folder or below; expected {FORMS}")
    found = []
    for file in maps:
        name = _checked_name(path, str(file.relative_to(path)))
        person = Person(None, 0.0, partial(_read_whole, file))
        found.append(Detections(name.removesuffix(".png").removesuffix("_IUV"), [person]))
    return found


def _read_whole(path: Path) -> np.ndarray:
    return read_iuv(path).transpose(2, 0, 1)


def _read_entries(path: Path, entries: object, names: Names, file_size: int) -> list[Detections]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DSAError(f"{path}: expected a list with a dictionary for each image or person; {FORMS}")
    if "bbox" in entries[0] if entries else names:
        return _read_coco(path, entries, names, file_size)
    _refuse_names(path, names)
    return [_dump_entry(path, entry, file_size) for entry in entries]


def _refuse_names(path: Path, names: Names) -> None:
    if names:
        raise DSAError(f"{path}: `images` is only for COCO results; this source names its images already")


# ---- detectron2's dump: an entry for each image ----


def _dump_entry(path: Path, entry: dict, file_size: int) -> Detections:
    name = _checked_name(path, entry.get("file_name"))
    where = f"{path}: {name}"
    charts = entry.get("pred_densepose")
    boxes = _numbers(entry, "pred_boxes_XYXY", (4,), where, file_size)
    scores = _numbers(entry, "scores", (), where, file_size) if "scores" in entry else [0.0] * len(boxes)
    charts = [] if charts is None else charts  # where nobody was found there may be no such key
    if not isinstance(charts, list) or not len(charts) == len(boxes) == len(scores):
        count = len(charts) if isinstance(charts, list) else type(charts).__name__
        raise DSAError(
            f"{where}: expected a score and a chart for each of {len(boxes)} boxes, not {len(scores)} scores "
            f"and for pred_densepose {count}; a dump of a DensePose model has them"
        )
    people = []
    for number, (chart, box, score) in enumerate(zip(charts, boxes, scores), start=1):
        of = f"{where}, person {number}"
        people.append(_person(chart, box, score, of, file_size))
    return Detections(name, people)


def _numbers(entry: dict, key: str, row: tuple[int, ...], where: str, file_size: int) -> list:
    """A tensor of an entry, a row for each person; a missing one and an empty list are an empty one."""
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


def _read_coco(path: Path, entries: list[dict], names: Names, file_size: int) -> list[Detections]:
    people: dict[str, list[Person]] = {name: [] for name in names.values()}
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: result {number}"
        name = _coco_name(entry, names, where)
        box = _box_of_xywh(entry.get("bbox"), where)
        person = _person(_coco_chart(entry, where), box, entry.get("score", 0.0), where, file_size)
        people.setdefault(_checked_name(path, name), []).append(person)
    return [Detections(name, found) for name, found in people.items()]


def _coco_name(entry: dict, names: Names, where: str) -> object:
    key = entry.get("image_id")
    if isinstance(key, (int, str)) and key in names:
        return names[key]
    if "file_name" in entry:
        return entry["file_name"]
    if isinstance(key, str) and not names:  # some programs take the file's name for its id
        return key
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


def _image_names(path: str | os.PathLike, annotations: object) -> Names:
    """The file name of each image_id, from the list `images` of COCO annotations."""
    listed = annotations.get("images") if isinstance(annotations, dict) else None
    if not isinstance(listed, list) or not all(isinstance(image, dict) for image in listed):
        raise DSAError(f"{path}: expected COCO annotations, with id and file_name of each image in images")
    names = {}
    for image in listed:
        key, name = image.get("id"), _checked_name(path, image.get("file_name"))
        if not isinstance(key, (int, str)) or key in names:
            raise DSAError(f"{path}: images: each image must have an id of its own, not {reprlib.repr(key)}")
        names[key] = name
    return names


def _read_json(path: Path) -> object:
    try:
        return read_json(path, object)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error


# ---- both ----


def _person(form: object, box: list, score: object, where: str, file_size: int) -> Person:
    numbers = [x for x in map(_finite, [*box, score]) if x is not None]
    if len(numbers) != 5:
        raise DSAError(f"{where}: box and score must be finite numbers")
    x0, y0, x1, y1, confidence = numbers
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
