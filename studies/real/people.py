"""The study's data sets, made of links to CUHK03's files: the people that training saw and those held out.

Nothing is copied but masked pictures, and all of it stays below --work.
"""

import csv
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from dsareid.data.iuv import read_iuv
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import TRAIN
from dsareid.ground.files import atomic_path
from dsareid.models.options import MEAN

HELD_OUT = 100
PICTURES = "people"


def held_out(identities: set[int]) -> set[int]:
    """The HELD_OUT people on whom settings are tuned: those whose identity's SHA-256 is smallest."""
    digests = sorted(
        (hashlib.sha256(str(identity).encode()).hexdigest(), identity) for identity in identities
    )
    return {identity for _, identity in digests[:HELD_OUT]}


def tuning_split(cuhk03: Path, out: Path) -> None:
    """The training people of CUHK03 as a data set: those held out are its test.

    The first image of each held-out person and camera is its query, as in the 767/700 protocol; the study
    takes every image as a query.
    """
    entries = [entry for entry in list_data(cuhk03).entries if entry.split == TRAIN]
    test = held_out({entry.identity for entry in entries})
    rows, asked = [], set()
    for entry in entries:
        split, key = "train", (entry.identity, entry.camera)
        if entry.identity in test:
            split = "gallery" if key in asked else "query"
            asked.add(key)
        rows.append((f"{PICTURES}/{Path(entry.name).name}", f"{entry.identity:04d}", split, entry.camera))
    for folder in ("", "iuv"):  # under another name, by which data.csv alone says what the pictures are
        link(out / folder / PICTURES, cuhk03 / folder / "bounding_box_train")
    _write_list(out, rows)


def masked(data: Path, out: Path) -> None:
    """A data set of the same pictures with ImageNet's mean colour wherever the map has no part."""
    colour = np.round(255 * np.array(MEAN)).astype(np.uint8)
    for entry in list_data(data).entries:
        if entry.iuv is None:
            raise SystemExit(f"{data}: {entry.name} has no map; run dsareid densepose estimate {data} first")
        target = (out / entry.name).with_suffix(".png")
        if target.exists():
            continue
        with Image.open(data / entry.name) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        seen = read_iuv(data / entry.iuv)[..., 0] > 0
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            Image.fromarray(np.where(seen[..., None], pixels, colour)).save(temporary, "PNG")
    with (data / "data.csv").open() as file, atomic_path(out / "data.csv") as temporary:
        temporary.write_text(file.read().replace(".jpg,", ".png,"))


def pku_sides(pku: Path, out: Path) -> None:
    """PKU-Reid's people as a data set: camera 1 has the queries, camera 2 the gallery; none train.

    Its files are ID/CC_O.png, CC camera 01 or 02, O the side that is seen, 1 to 8.
    """
    rows = []
    for path in sorted(pku.rglob("*_?.png")):
        camera = int(path.stem[:2])
        split = ("query", "gallery")[camera - 1]
        rows.append((str(path.relative_to(pku)), path.parent.name, split, camera))
    for folder in {Path(row[0]).parts[0] for row in rows}:
        link(out / folder, pku / folder)
    _write_list(out, rows)


def _write_list(out: Path, rows: list[tuple[str, str, str, int]]) -> None:
    with atomic_path(out / "data.csv") as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "identity", "split", "camera"), *rows])


def link(path: Path, target: Path) -> None:
    """Make a symbolic link, and its folder, unless it is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(target.resolve(strict=True))
