"""One's own data in identity folders: an image's identity is its folder, any word (see own_labels).

    ROOT/train/anna/1.jpg       a folder for each identity, in train, query and gallery

The camera of train/anna/hall_c2.jpg or train/anna/c2_17.jpg is 2. If a name in query or gallery has none,
cameras are not known (see own_labels).
"""

import os
import re
from pathlib import Path

from dsareid.data.folders import image_names, is_hidden
from dsareid.data.layouts.base import (
    JUNK,
    OWN_DATA,
    Dataset,
    Entry,
    Found,
    Scan,
    check_not_empty,
    unknown_protocol,
)
from dsareid.data.layouts.own_labels import SPLIT_NAMES, LabelledFile, number_labels
from dsareid.ground.errors import DSAError

DATASET = Dataset(OWN_DATA, "train, query, gallery; a folder for each identity, as train/anna/1.jpg")
_CAMERA = re.compile(r"_c(\d{1,9})(?!\d)|^c(\d{1,9})_")


def recognise(root: Path, scan: Scan) -> bool:
    """Whether one of the three folders is there."""
    return any(os.path.lexists(root / folder) for folder in SPLIT_NAMES)


def find(root: Path, scan: Scan, protocol: str) -> Found:
    """The images in identity folders. A split may be missing.

    Raises:
        DSAError: a split's folder without images; any protocol, because this layout has none.
    """
    if protocol:
        raise unknown_protocol(DATASET, protocol)
    images: list[LabelledFile] = []
    strays: list[Entry] = []
    for folder, split in SPLIT_NAMES.items():
        found = [
            LabelledFile(split, f"{folder}/{identity}/{name}", identity, _camera(name))
            for identity in sorted(scan(folder))
            if not is_hidden(identity) and (root / folder / identity).is_dir()
            for name in image_names(scan(f"{folder}/{identity}"))
        ]
        names = [f"{folder}/{name}" for name in image_names(scan(folder)) if (root / folder / name).is_file()]
        wrong = f"an image must be in the folder of its identity, as in {folder}/anna/1.jpg"
        lost = [Entry(split, name, JUNK, -1, misnamed=wrong) for name in names]
        check_not_empty(root, folder, [*found, *lost])
        images += found
        strays += lost
    try:
        numbered = number_labels(DATASET, images)
    except DSAError as error:
        raise DSAError(f"{root}: {error}") from error
    return numbered._replace(entries=numbered.entries + strays)


def _camera(file: str) -> str | None:
    """The camera in the name of an image; None if there is none."""
    match = _CAMERA.search(os.path.splitext(file)[0])
    return match and (match[1] or match[2])
