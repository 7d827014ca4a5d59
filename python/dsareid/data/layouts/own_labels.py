"""The labels of one's own data: any words, which become numbers.

The same word is the same person in all splits; words become the numbers 1, 2, ... in sorted order. Where
cameras are not known, those of query and gallery are set to differ, so that nothing is left out.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN, Entry

SPLIT_NAMES = {"train": TRAIN, "query": QUERY, "gallery": GALLERY}  # as users write them
_UNKNOWN_CAMERA = {TRAIN: 0, QUERY: 0, GALLERY: 1}


class LabelledFile(NamedTuple):
    """An image with its labels as words."""

    split: str  # of base.SPLITS
    name: str  # relative to the root
    identity: str
    camera: str | None  # None where it is not known


def number_labels(images: list[LabelledFile]) -> tuple[list[Entry], bool]:
    """The images with numbers for identities and cameras, and whether cameras are known.

    They are where those of query and gallery are; the training does not need them.
    """
    identity = _numbers(image.identity for image in images)
    known = all(image.camera is not None for image in images if image.split != TRAIN)
    words = {image.camera for image in images if image.camera is not None}
    camera = _camera_numbers(words) if known else {}
    entries = [
        Entry(x.split, x.name, identity[x.identity], camera.get(x.camera or "", _UNKNOWN_CAMERA[x.split]))
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
