"""The labels of own data: any words, which become numbers.

The same word is the same person in all splits; words become the numbers 1, 2, ... in sorted order. -1 is junk
and 0 (or 0000) a distractor, as in Market-1501. If cameras are not known, query and gallery get different
ones, so that the same-camera rule leaves nothing out.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from dsareid.data.folders import nfc
from dsareid.data.layouts.base import DISTRACTOR, GALLERY, JUNK, QUERY, TRAIN, Dataset, Entry, Found
from dsareid.ground.errors import DSAError

SPLIT_NAMES = {"train": TRAIN, "query": QUERY, "gallery": GALLERY}  # as users write them
_UNKNOWN_CAMERA = {TRAIN: 0, QUERY: 0, GALLERY: 1}
NOBODY: dict[str | None, int] = {str(JUNK): JUNK, str(DISTRACTOR): DISTRACTOR}
"""The labels of junk and distractors, and their numbers."""
_NUMBER = re.compile("-?[0-9]{1,18}")


class LabelledFile(NamedTuple):
    """An image with its labels as words."""

    split: str  # of base.SPLITS
    name: str  # relative to the root
    identity: str
    camera: str | None  # None if not known


def canonical_label(word: str) -> str:
    """The form in which labels are compared: a number without leading zeros, any other word in NFC."""
    word = nfc(word.strip())
    return str(int(word)) if _NUMBER.fullmatch(word) else word


def is_below_junk(word: str) -> bool:
    """Whether a label is a number below -1, which means nothing."""
    return bool(_NUMBER.fullmatch(word)) and int(word) < JUNK


def number_labels(dataset: Dataset, images: list[LabelledFile]) -> Found:
    """The images with numbers for identities and cameras.

    Cameras are known if every image of a person in query and gallery has one; training needs none.

    Raises:
        DSAError: an identity written in two ways, as 1 and 0001, which may be two people; a number below -1.
    """
    identity = _identity_numbers(image.identity for image in images)
    tested = [image for image in images if identity[image.identity] > 0 and image.split != TRAIN]
    without = [image.name for image in tested if image.camera is None]
    camera = {} if without else _camera_numbers({canonical_label(x.camera) for x in images if x.camera})
    entries = []
    for image in images:
        number = identity[image.identity]
        unknown = _UNKNOWN_CAMERA[image.split] if without or number > 0 else -1
        label = canonical_label(image.camera or "")
        entries.append(Entry(image.split, image.name, number, camera.get(label, unknown)))
    words = {number: canonical_label(word) for word, number in identity.items()}
    some = ""
    if 0 < len(without) < len(tested):
        some = f"{len(without):,} of {len(tested):,} images have none, the first {without[0]}"
    camera_words = {number: word for word, number in camera.items()}
    return Found(dataset, "", entries, not without, words, camera_words, some)


def _identity_numbers(words: Iterable[str]) -> dict[str, int]:
    """Each word's number."""
    canonical = {word: canonical_label(word) for word in set(words)}
    for word, label in canonical.items():
        if is_below_junk(label):
            raise DSAError(f"the identity {word} is not valid: the lowest is {JUNK}, which is junk")
    people = {nfc(word): label for word, label in canonical.items() if label not in NOBODY}
    first: dict[str, str] = {}
    for word in sorted(people):
        if (other := first.setdefault(people[word], word)) != word:
            raise DSAError(
                f"the identities {other!r} and {word!r} differ in zeros or spaces only: write the identity "
                "of a person in one way everywhere"
            )
    numbers = {people[word]: number for number, word in enumerate(sorted(people), 1)} | NOBODY
    return {word: numbers[label] for word, label in canonical.items()}


def _camera_numbers(words: set[str]) -> dict[str, int]:
    """The words as numbers if all are numbers, else 1, 2, ... in sorted order."""
    if all(re.fullmatch("[0-9]{1,9}", word) for word in words):
        return {word: int(word) for word in words}
    return {word: number for number, word in enumerate(sorted(words), 1)}
