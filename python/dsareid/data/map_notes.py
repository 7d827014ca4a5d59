"""What an estimated map says of its making, in its PNG's comment: of which picture, by which settings."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import NamedTuple

from PIL import Image


class MapNote(NamedTuple):
    """The comment of an estimated map, as JSON."""

    by: str  # 16 hex digits: what made it, see note_digest
    of: str  # the same of the picture's file
    person: bool  # whether somebody was seen
    others: float  # share of the people's pixels that were left out as others'


def note_digest(data: bytes) -> str:
    """16 hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def picture_digest(path: str | os.PathLike) -> str:
    """That of a picture's file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_note(path: str | os.PathLike) -> MapNote | None:
    """The note of a map, by the beginning of its file; None where it has none, or cannot be read."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return note_in(image.info)
    except Exception:  # what damaged bytes lead Pillow to raise
        return None


def note_in(info: Mapping) -> MapNote | None:
    """The note among what Pillow read of a file beside its pixels; None where there is none."""
    try:
        content = json.loads(info["Comment"])
        by, of, person, others = (content[name] for name in MapNote._fields)
    except Exception:  # what other programs' comments lead to
        return None
    known = isinstance(by, str) and isinstance(of, str) and isinstance(person, bool)
    return MapNote(by, of, person, float(others)) if known and isinstance(others, (int, float)) else None
