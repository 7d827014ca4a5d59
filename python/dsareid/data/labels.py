"""Who is in an image and which camera took it, whatever command asks: the one rule.

An image of a data set has the labels that the data set gives it, by its name, its folder or its line in
data.csv; so `extract` and `search` know what `train` and `eval` know. Any other image is labelled by its name
alone, where that begins as Market-1501's names do, 0002_c1s1_000451_03.jpg. In a folder of another name that
is not enough: of anna/0001_c2.jpg 1 may be a frame. Then the labels are not known.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dsareid.data.layouts import cuhk01, find_labels
from dsareid.data.layouts.base import ALL_SPLITS, CSV
from dsareid.data.layouts.market_naming import DISTRACTORS, NAME
from dsareid.data.layouts.own_labels import SPLIT_NAMES, canonical_label
from dsareid.ground.errors import DSAError, logger

_FOLDERS = {*ALL_SPLITS, *SPLIT_NAMES, DISTRACTORS, cuhk01.FOLDER}  # in which data sets have their images
_WHOLE_NAME = re.compile(r"-?\d{1,9}_c\d{1,9}(s\d+_\d+|_f\d+)")  # of Market-1501 and DukeMTMC-reID


class ImageLabel(NamedTuple):
    """Who and where, as words: "-1" is junk and "0" a distractor; None where it is not known."""

    identity: str | None
    camera: str | None


NOT_KNOWN = ImageLabel(None, None)


def image_labels(folder: Path, files: Sequence[str]) -> list[ImageLabel]:
    """The labels of images.

    Args:
        folder: a data set's root, a folder inside of one, or any other.
        files: the images, relative to it.
    """
    place = folder.absolute()
    known: dict[str, ImageLabel] = {}
    for root in (place, *place.parents):
        if len(known) == len(files):
            break
        inner = place.relative_to(root).as_posix()
        if inner != "." and inner.partition("/")[0] not in _FOLDERS and not (root / CSV).exists():
            continue  # not of this data set, if it is one: it need not be listed
        names = {(file if inner == "." else f"{inner}/{file}"): file for file in files if file not in known}
        try:
            found = find_labels(root, names)
        except DSAError as error:
            logger.warning(f"no labels are taken from the data set {root}: {error}")
            continue
        known |= {names[name]: ImageLabel(*label) for name, label in found.items()}
    return [known.get(file) or label_in_name(file) for file in files]


def label_in_name(file: str) -> ImageLabel:
    """By an image's name, relative to a folder that is no data set's."""
    folder, name = os.path.split(file)
    match = NAME.match(name)
    if not match:
        return NOT_KNOWN
    label = ImageLabel(*map(canonical_label, match.groups()))
    if folder and not _WHOLE_NAME.match(name) and canonical_label(os.path.basename(folder)) != label.identity:
        return NOT_KNOWN
    return label
