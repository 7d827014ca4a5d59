"""Who is in an image and which camera took it: one rule for every command.

An image of a data set has the labels that the data set gives it, by its name, its folder or its line in
data.csv; so `extract` and `search` know what `train` and `eval` know. Any other image is labelled by its name
alone, if that is a whole name of Market-1501 or DukeMTMC-reID, 0002_c1s1_000451_03.jpg. A shorter name is not
enough, unless its folder is called after the identity too: in anna/0001_c2.jpg, 1 may be a frame. Otherwise
the labels are not known.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dsareid.data.layouts import cuhk01, find_labels
from dsareid.data.layouts.base import ALL_SPLITS, CSV, JUNK
from dsareid.data.layouts.market_naming import DISTRACTORS, NAME
from dsareid.data.layouts.own_labels import SPLIT_NAMES, canonical_label
from dsareid.ground.errors import DSAError, logger

_FOLDERS = {*ALL_SPLITS, *SPLIT_NAMES, DISTRACTORS, cuhk01.FOLDER}  # with a data set's images
_WHOLE_NAME = re.compile(r"-?\d{1,9}_c\d{1,9}(s\d+_\d+|_f\d+)")  # of Market-1501 and DukeMTMC-reID


class ImageLabel(NamedTuple):
    """Identity and camera, as words: "-1" is junk and "0" a distractor; None if not known."""

    identity: str | None
    camera: str | None


NOT_KNOWN = ImageLabel(None, None)


def image_labels(folder: Path, files: Sequence[str]) -> list[ImageLabel]:
    """The labels of images. Logs from which data set they are.

    Args:
        folder: a data set's root, a folder inside a data set, or any other.
        files: the images, relative to it.
    """
    known: dict[str, ImageLabel] = {}
    for place in dict.fromkeys((folder.absolute(), folder.resolve())):
        for root in (place, *place.parents):
            if len(known) < len(files) and _may_hold(root, place):
                known |= _labels_by(root, place, [file for file in files if file not in known])
    return [known.get(file) or label_in_name(f"{folder.absolute().name}/{file}") for file in files]


def _may_hold(root: Path, place: Path) -> bool:
    """Whether `place` may belong to a data set in `root`; if not, `root` need not be listed."""
    inner = place.relative_to(root).parts
    return not inner or inner[0] in _FOLDERS or _is_list(root / CSV)


def _is_list(path: Path) -> bool:
    """Whether the first line of a data.csv is that of a data set."""
    try:
        with path.open("rb") as file:
            return b"identity" in file.readline(1000)
    except OSError:
        return False


def _labels_by(root: Path, place: Path, files: Sequence[str]) -> dict[str, ImageLabel]:
    """The labels that the data set in `root` gives to images below `place`."""
    inner = place.relative_to(root).as_posix()
    names = {(file if inner == "." else f"{inner}/{file}"): file for file in files}
    try:
        found = find_labels(root, names)
    except DSAError as error:
        logger.warning(f"no labels are taken from the data set {root}: {error}")
        return {}
    if found:
        logger.info(f"labels are those of the data set {root}")
    if found and len(found) < len(names):
        other = next(file for name, file in names.items() if name not in found)
        logger.warning(
            f"images in no split of this data set, {len(names) - len(found):,} in all, such as {other}, are "
            "labelled by their names"
        )
    return {names[name]: ImageLabel(*label) for name, label in found.items()}


def label_in_name(file: str) -> ImageLabel:
    """The labels in the name of an image, which is given with its folder."""
    folder, name = os.path.split(file)
    match = NAME.match(name)
    if not match or int(match[1]) < JUNK:
        return NOT_KNOWN
    label = ImageLabel(*map(canonical_label, match.groups()))
    certain = _WHOLE_NAME.match(name) or canonical_label(os.path.basename(folder)) == label.identity
    return label if certain else NOT_KNOWN
