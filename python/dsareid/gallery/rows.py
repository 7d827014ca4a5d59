"""What is in a gallery: its rows, what holds for all of them, and words in a filter."""

import secrets
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dsareid.ground.errors import DSAError
from dsareid.inference.settings import Facts

LONGEST = 1024
"""Bytes of a word, and of a file's name, in UTF-8."""
MOST_TAGS = 64

IndexKind = Literal["FLAT", "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8"]
"""How Milvus looks for near vectors. FLAT compares with all of them: exact."""
RowPrecision = Literal["float32", "float16"]


class NoGallery(DSAError):
    """There is no gallery at a place."""


class GalleryInfo(BaseModel):
    """What holds for all rows of a gallery."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["dsareid gallery"] = "dsareid gallery"
    version: Literal[1] = 1
    gallery: Annotated[str, Field(default_factory=lambda: secrets.token_hex(8))]
    """The gallery's own name, drawn when it is made."""
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """The identity of the model that made the vectors."""
    dimension: Annotated[int, Field(ge=2, le=32_768)]
    features: str
    """A description of the features, for people."""
    facts: Facts | None = None
    """Of another network than ours, what its user stated."""
    index: IndexKind = "FLAT"
    parameters: dict[str, int] = {}
    """Of the index, such as M and efConstruction."""
    precision: RowPrecision = "float32"


class GalleryRow(NamedTuple):
    """A row: a picture or a track."""

    key: str
    """The row's own: the same picture has the same key whenever it is added."""
    stamp: str
    """What the vector was made of: changes if the picture does."""
    file: str
    vector: np.ndarray  # float32 [D]
    identity: str | None = None
    camera: str | None = None
    time: int | None = None  # seconds since 1970
    track: str | None = None
    mean: bool = False  # of a track's pictures; `file` is one of them
    tags: Sequence[str] = ()
    added: int = 0  # when, in seconds since 1970


FIELDS = ("key", "file", "identity", "camera", "time", "track", "mean", "tags", "added")
"""What a search returns of a row, beside its vector."""


def quote(word: str) -> str:
    """A word in a filter of Milvus.

    Raises:
        DSAError: it holds a control character, or is too long.
    """
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in word):
        raise DSAError(f"{word!r}: a gallery's words must not hold control characters")
    if len(word.encode()) > LONGEST:
        raise DSAError(f"{word[:60]!r}...: longer than {LONGEST} bytes")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
