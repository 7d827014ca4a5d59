"""The note in the PNG comment of an estimated map: from which picture and by which settings it was made."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image

_FRAME = "frame:"


class MapNote(NamedTuple):
    """The comment of an estimated map, as JSON."""

    by: str  # note_digest of what made it: estimator, weights and settings
    of: str  # picture_digest of the picture, or frame_digest
    person: bool  # whether somebody was seen
    others: float  # share of the people's pixels that belong to other people and were left out
    unsure: bool = False  # the person was the best of those below the least score


def note_digest(data: bytes) -> str:
    """16 hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def frame_digest(pixels: np.ndarray) -> str:
    """The digest of a video's frame, which no file of a picture has."""
    return _FRAME + note_digest(pixels.tobytes())


def is_of(note: MapNote, image_path: str | os.PathLike) -> bool:
    """Whether a map may be of a picture: it is of the file, or of a frame, which may lie in any file.

    Raises:
        OSError: the picture cannot be read.
    """
    return note.of.startswith(_FRAME) or note.of == picture_digest(image_path)


def picture_digest(path: str | os.PathLike) -> str:
    """note_digest of a picture's file.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def read_note(path: str | os.PathLike) -> MapNote | None:
    """The note of a map, from its header; None if it has none or cannot be read."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return note_in(image.info)
    except Exception:  # what damaged bytes lead Pillow to raise
        return None


def note_in(info: Mapping) -> MapNote | None:
    """The note in the `info` of a PIL image; None if there is none."""
    try:
        content = json.loads(info["Comment"])
        by, of, person, others = (content[name] for name in ("by", "of", "person", "others"))
        unsure = content.get("unsure", False)
    except Exception:  # what other programs' comments lead to
        return None
    known = isinstance(by, str) and isinstance(of, str) and isinstance(person, bool)
    if not (known and isinstance(others, (int, float)) and isinstance(unsure, bool)):
        return None
    return MapNote(by, of, person, float(others), unsure)
