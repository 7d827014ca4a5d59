"""The store: a data set's decoded pixels in plain .npy files, read through memory maps.

    STORE/images.npy    uint8 [N, H, W, 3] RGB
    STORE/iuv.npy       uint8 [N, H, W, 3] in the order I, U, V; absent if no image has a map
    STORE/has_iuv.npy   bool [N]; without a map the row of iuv.npy is all background
    STORE/ids.npy       int64 [N]; 0 is a distractor
    STORE/cameras.npy   int64 [N]; -1: a distractor's that is not known
    STORE/split.npy     uint8 [N]: 0 bounding_box_train, 1 query, 2 bounding_box_test, 3 gt_bbox, 255 skipped
    STORE/names.npy     bytes [N]: the file relative to the data set's root, UTF-8
    STORE/store.json    what the store holds and a checksum of each file, written last

`sha256sum` of a file gives the figure in store.json.
"""

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from dsareid.data.images import LONGEST_SIDE
from dsareid.data.layouts.base import Count
from dsareid.ground.errors import DSAError

FORMAT: Literal["dsareid store"] = "dsareid store"
VERSION: Literal[4] = 4
HEADER = "store.json"
IMAGES, IUV = "images.npy", "iuv.npy"
HAS_IUV, IDS, CAMERAS, SPLIT, NAMES = LABELS = (
    "has_iuv.npy",
    "ids.npy",
    "cameras.npy",
    "split.npy",
    "names.npy",
)
SKIPPED = 255  # in split.npy: a file that could not be read; its row is zeros and in no split

Kind = tuple[str, tuple[int, ...]]
"""The dtype, as numpy writes it, and the shape of an array."""
_Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Number = Annotated[int, Field(ge=1)]
_Side = Annotated[int, Field(ge=1, le=LONGEST_SIDE)]
_Split = Literal["bounding_box_train", "query", "bounding_box_test", "gt_bbox"]  # base.ALL_SPLITS


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ArrayFile(_Strict):
    """One .npy file of a store."""

    dtype: str  # as in the file, e.g. "|u1"
    shape: list[int]
    bytes: int
    sha256: _Checksum  # of the whole file


class SkippedFile(_Strict):
    """A file that was left out as broken."""

    file: str  # relative to the data set's root
    reason: str


class MapCounts(_Strict):
    """What the IUV maps of a split show."""

    maps: _Number
    people: Annotated[int, Field(ge=0)]
    """Maps with somebody in them; the others are all background."""
    flat: Annotated[int, Field(ge=0)]
    """Maps with somebody, but U = V = 0 everywhere: a segmentation, not DensePose."""

    def note(self, split: str) -> str:
        """How many of a split's maps a guide can learn from."""
        useful = self.people - self.flat
        text = f"{useful:,} of {self.maps:,} IUV maps of {split} show a person"
        if empty := self.maps - self.people:
            text += f"; all background: {empty:,}"
        if self.flat:
            text += f"; U = V = 0 everywhere, as in a segmentation, not DensePose: {self.flat:,}"
        return text

    @property
    def mostly_empty(self) -> bool:
        """Whether more than half of the maps have nothing to learn from."""
        return 2 * (self.people - self.flat) < self.maps


class Contents(_Strict):
    """What a store holds, as its header says."""

    splits: dict[_Split, _Number]
    """The number of images in each split that has any."""
    expected: dict[_Split, Count]
    """The counts that the data set is known to have by its protocol, [images, identities] in the file; empty
    if not known."""
    maps: dict[_Split, MapCounts]
    """What the maps of each split show, for splits that have some."""
    resized: bool
    """Whether some files were of another size than the stored one."""
    dataset: str
    """The name of the data set."""
    protocol: str
    """The protocol by which it is split; empty for the only or the plain one."""
    cameras: bool
    """Whether cameras are known; if not, those of query and gallery differ, and no image is left out."""
    synthetic: bool
    """Whether the images were rendered by dsareid synth."""


class StoreHeader(Contents):
    """What store.json holds beside its own checksum."""

    format: Literal["dsareid store"] = FORMAT
    version: Literal[4] = VERSION
    height: _Side
    width: _Side
    images: _Number
    source: _Checksum
    """The fingerprint of the listing that was packed."""
    skipped: list[SkippedFile]
    arrays: dict[str, ArrayFile]


@dataclass(frozen=True)
class StoreLayout:
    """The numbers that determine the arrays of a store."""

    images: int
    height: int
    width: int
    iuv: bool  # whether there is iuv.npy
    name_bytes: int  # of the longest name

    @cached_property
    def arrays(self) -> dict[str, Kind]:
        """Each file with its kind."""
        pixels = "|u1", (self.images, self.height, self.width, 3)
        dtypes = {HAS_IUV: "|b1", IDS: "<i8", CAMERAS: "<i8", SPLIT: "|u1", NAMES: f"|S{self.name_bytes}"}
        return {
            IMAGES: pixels,
            **({IUV: pixels} if self.iuv else {}),
            **{name: (dtypes[name], (self.images,)) for name in LABELS},
        }

    @property
    def pixels(self) -> list[str]:
        """The files that hold pixels."""
        return [IMAGES, IUV] if self.iuv else [IMAGES]

    @property
    def bytes(self) -> int:
        """The size of all files but the header."""
        return sum(npy_size(*kind) for kind in self.arrays.values())


def layout_of(header: StoreHeader) -> StoreLayout:
    """The layout that follows from the sizes in a header."""
    names = header.arrays[NAMES].dtype if NAMES in header.arrays else ""
    width = int(names[2:]) if re.fullmatch(r"\|S[1-9]\d{0,8}", names) else 1
    return StoreLayout(header.images, header.height, header.width, IUV in header.arrays, width)


def npy_header(dtype: str, shape: Sequence[int]) -> bytes:
    """The header of an array's .npy file."""
    buffer = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def npy_size(dtype: str, shape: Sequence[int]) -> int:
    """Bytes of the .npy file of an array."""
    return len(npy_header(dtype, shape)) + math.prod(shape) * np.dtype(dtype).itemsize


def header_text(header: StoreHeader) -> str:
    """The contents of store.json: the header with its own checksum."""
    content = {"format": FORMAT, "version": VERSION} | header.model_dump()
    return json.dumps(content | {"checksum": header_checksum(content)}, indent=1) + "\n"


def header_checksum(content: dict) -> str:
    """The checksum that belongs to the rest of store.json."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sha256(path: Path, advance: Callable[[int], object] = lambda _: None) -> str:
    """The SHA-256 of a file, hex; `advance` is called with the bytes of each block read.

    Raises:
        DSAError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while block := file.read(1 << 20):
                digest.update(block)
                advance(len(block))
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()
