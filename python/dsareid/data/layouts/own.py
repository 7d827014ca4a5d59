"""One's own data, in one of two forms. Identities are any words.

    ROOT/train/anna/1.jpg       a folder for each identity, in train, query and gallery
    ROOT/data.csv               the header file,identity,split or file,identity,split,camera, and a line for
                                each image: its path below ROOT, any word, train, query or gallery, any word

The same word is the same person in all splits; words become the numbers 1, 2, ... in sorted order. The
camera of train/anna/hall_c2.jpg or train/anna/c2_17.jpg is 2. Where a name of query or gallery has none, or
the CSV has no such column, cameras are not known: those of query and gallery are set to differ, so that
nothing is left out.
"""

import csv
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dsareid.data.layouts.base import (
    GALLERY,
    QUERY,
    TRAIN,
    Entry,
    Found,
    Scan,
    check_not_empty,
    image_names,
    unknown_protocol,
)
from dsareid.data.layouts.datasets import OWN, OWN_LISTED
from dsareid.ground.errors import DSAError

FOLDERS = {"train": TRAIN, "query": QUERY, "gallery": GALLERY}
CSV = "data.csv"
_COLUMNS = ["file", "identity", "split", "camera"]
_CAMERA = re.compile(r"_c(\d{1,9})(?!\d)|^c(\d{1,9})_")
_UNKNOWN_CAMERA = {TRAIN: 0, QUERY: 0, GALLERY: 1}


class _Image(NamedTuple):
    split: str
    name: str  # relative to the root
    identity: str
    camera: str | None


def find_folders(root: Path, scan: Scan, protocol: str) -> Found:
    """The images in identity folders. Splits that are missing are simply not there.

    Raises:
        DSAError: a split without images, or a protocol.
    """
    if protocol:
        raise unknown_protocol(OWN, protocol)
    images, strays = [], []
    for folder, split in FOLDERS.items():
        found = [
            _Image(split, f"{folder}/{identity}/{name}", identity, _camera(name))
            for identity in sorted(scan(folder))
            if not identity.startswith(".") and (root / folder / identity).is_dir()
            for name in image_names(scan(f"{folder}/{identity}"))
        ]
        names = [f"{folder}/{name}" for name in image_names(scan(folder)) if (root / folder / name).is_file()]
        wrong = f"an image must be in the folder of its identity, as in {folder}/anna/1.jpg"
        lost = [Entry(split, name, -1, -1, misnamed=wrong) for name in names]
        check_not_empty(root, folder, found or lost)
        images += found
        strays += lost
    entries, cameras = _number(images)
    return Found(OWN, "", entries + strays, cameras)


def find_listed(root: Path, scan: Scan, protocol: str) -> Found:
    """The images that data.csv lists.

    Raises:
        DSAError: naming the line and the column that is wrong; a file that is not there; a protocol.
    """
    if protocol:
        raise unknown_protocol(OWN_LISTED, protocol)
    path = root / CSV
    header, lines = _read_lines(path)
    images: dict[str, _Image] = {}
    for line, cells in lines:
        where = f"{path}: line {line}"
        if len(cells) != len(header):
            raise DSAError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
        row = dict(zip(header, cells))
        for column, cell in row.items():
            if not cell:
                raise DSAError(f"{where}, column {column}: empty")
        if row["split"] not in FOLDERS:
            raise DSAError(f"{where}, column split: must be {', '.join(FOLDERS)}, not {row['split']!r}")
        name = _check_file(row["file"], scan, where)
        if name in images:
            raise DSAError(f"{where}, column file: {name} is listed twice")
        images[name] = _Image(FOLDERS[row["split"]], name, row["identity"], row.get("camera"))
    if not images:
        raise DSAError(f"{path}: it lists no images")
    return Found(OWN_LISTED, "", *_number(list(images.values())))


def _camera(file: str) -> str | None:
    """By the name of an image."""
    match = _CAMERA.search(os.path.splitext(file)[0])
    return match and (match[1] or match[2])


def _number(images: list[_Image]) -> tuple[list[Entry], bool]:
    """The images with numbers for identities and cameras, and whether cameras are known."""
    identity = _numbers(image.identity for image in images)
    known = all(image.camera is not None for image in images if image.split != TRAIN)
    camera = _camera_numbers({image.camera for image in images} - {None}) if known else {}
    entries = [
        Entry(x.split, x.name, identity[x.identity], camera.get(x.camera, _UNKNOWN_CAMERA[x.split]))
        for x in images
    ]
    return entries, known


def _numbers(words: Iterable[str]) -> dict[str, int]:
    """Each word's number: 1, 2, ... in sorted order."""
    return {word: number for number, word in enumerate(sorted(set(words)), 1)}


def _camera_numbers(words: set[str]) -> dict[str, int]:
    """The words themselves where all are numbers, else as _numbers."""
    if all(re.fullmatch("[0-9]{1,9}", word) for word in words):
        return {word: int(word) for word in words}
    return _numbers(words)


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a CSV file, and each further line with its number."""
    lines: list[tuple[int, list[str]]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                if cells:
                    lines.append((reader.line_num, [cell.strip() for cell in cells]))
    except csv.Error as error:
        raise DSAError(f"{path}: line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise DSAError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    header = lines[0][1] if lines else []
    if sorted(header) not in (sorted(_COLUMNS), sorted(_COLUMNS[:3])):
        raise DSAError(
            f"{path}: line 1 must be the header {','.join(_COLUMNS[:3])} or {','.join(_COLUMNS)}, "
            f"not {','.join(header)!r}"
        )
    return header, lines[1:]


def _check_file(file: str, scan: Scan, where: str) -> str:
    """The path of an image that is there, relative to the root."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\0" in file:
        raise DSAError(f"{where}, column file: must be a path inside the data set's folder, not {file!r}")
    folder = "" if path.parent == PurePosixPath(".") else str(path.parent)
    if path.name not in scan(folder):
        raise DSAError(f"{where}, column file: {file}: no such file")
    return str(path)
