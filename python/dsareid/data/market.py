"""Data sets in Market-1501's layout: which files there are, by name alone.

    ROOT/bounding_box_train/0002_c1s1_000451_03.jpg     identity 2, camera 1
    ROOT/query, ROOT/bounding_box_test                  the same
    ROOT/iuv/<folder>/0002_c1s1_000451_03.png           its IUV map (NAME_IUV.png is found too)
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dsareid.errors import DSAError

TRAIN, QUERY, GALLERY = SPLITS = ("bounding_box_train", "query", "bounding_box_test")
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
LAYOUT = f"a data set is a folder with {TRAIN}, {QUERY} and {GALLERY}"
_NAME = re.compile(r"(-?\d{1,9})_c(\d{1,9})(?!\d)")


class Entry(NamedTuple):
    """An image file of a data set."""

    split: str
    name: str  # relative to the root, as query/0005_c1s1_000001_00.jpg
    identity: int  # 0 is a distractor; -1 where the file is misnamed
    camera: int  # -1 where the file is misnamed
    iuv: str | None  # its IUV map, relative to the root; None where there is none
    misnamed: str | None  # what is wrong with the name


@dataclass(frozen=True)
class Listing:
    """The files of a data set at one moment."""

    root: Path
    entries: list[Entry]  # by split, then by name; junk (identity -1) is left out
    fingerprint: str  # hex SHA-256 of the path, size and time of change of every file that is listed


def list_data(root: str | os.PathLike) -> Listing:
    """List the images of a data set and their IUV maps. Folders that are missing are simply not there.

    Raises:
        DSAError: there is no such folder, none of its folders holds an image, or one cannot be listed.
    """
    root = Path(root)
    if not root.is_dir():
        raise DSAError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {LAYOUT}")
    if (root / "store.json").exists():
        raise DSAError(f"{root}: this is a store; give the folder that it was packed from")
    entries, lines = [], []
    for split in SPLITS:
        images, maps = _scan(root, split), _scan(root, f"iuv/{split}")
        for name in sorted(images):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in IMAGE_SUFFIXES or name.startswith("."):
                continue
            chart = next((x for x in (f"{stem}.png", f"{stem}_IUV.png") if x in maps), None)
            entry = _entry(split, name, chart)
            if entry.identity < 0 and not entry.misnamed:
                continue
            entries.append(entry)
            lines.append(f"{split}/{name}\0{images[name]}")
            if chart:
                lines.append(f"{entry.iuv}\0{maps[chart]}")
    if not entries:
        raise DSAError(f"{root}: no images in its folders (expected *.jpg or *.png); {LAYOUT}")
    text = "\n".join(sorted(lines)).encode("utf-8", "surrogateescape")
    return Listing(root, entries, hashlib.sha256(text).hexdigest())


def missing_map(root: Path, name: str) -> str:
    """The sentence about an image, relative to the root, that has no IUV map."""
    stem, _ = os.path.splitext(name)
    other = f"{os.path.basename(stem)}_IUV.png"
    return (
        f"{root}: iuv/{stem}.png: the IUV map of {name} is missing, and so is {other} (an image "
        "without a detection needs an all-background map)"
    )


def _scan(root: Path, folder: str) -> dict[str, str]:
    """Each file of a folder with its size and its time of change; empty where there is no folder."""
    try:
        with os.scandir(root / folder) as files:
            return {file.name: _stamp(file) for file in files}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DSAError(f"{root / folder}: cannot be listed: {error.strerror}") from error


def _stamp(file: os.DirEntry) -> str:
    try:
        status = file.stat()
    except OSError:  # a dangling link: reading it will say so
        return "unreadable"
    return f"{status.st_size}\0{status.st_mtime_ns}"


def _entry(split: str, file: str, chart: str | None) -> Entry:
    """The entry of a file by its name; one with identity -1 that is not misnamed is junk."""
    name, chart = f"{split}/{file}", chart and f"iuv/{split}/{chart}"
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError:
            name = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            return Entry(split, name, -1, -1, None, "the name is not UTF-8")
    if match := _NAME.match(file):
        return Entry(split, name, int(match[1]), int(match[2]), chart, None)
    wrong = "the name must begin with identity and camera, as in 0002_c1s1_000451_03.jpg"
    return Entry(split, name, -1, -1, chart, wrong)
