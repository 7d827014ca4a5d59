"""Reading a store; format.py says what it is."""

import hashlib
import io
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from dsareid.data.layouts.base import (
    ALL_SPLITS,
    LAYOUT,
    NO_CAMERAS,
    TRAIN,
    Count,
    MissingMaps,
    different_counts,
)
from dsareid.data.store.format import (
    CAMERAS,
    FORMAT,
    HAS_IUV,
    HEADER,
    IDS,
    IMAGES,
    IUV,
    NAMES,
    SPLIT,
    VERSION,
    ArrayFile,
    StoreHeader,
    header_checksum,
    layout_of,
    npy_header,
    sha256,
)
from dsareid.ground.errors import DSAError, first_problem
from dsareid.ground.files import read_json, readable_size

_MAKE_MAPS = "make them for the folder that was packed (dsareid densepose estimate ROOT), and pack it again"


@dataclass(eq=False, repr=False)
class Store:
    """An open store. `images` and `iuv` are memory maps: their pixels are read when they are used."""

    path: Path
    header: StoreHeader
    images: np.memmap  # uint8 [N, H, W, 3] RGB, read-only
    iuv: np.memmap | None  # uint8 [N, H, W, 3] in the order I, U, V, read-only
    has_iuv: np.ndarray  # bool [N]
    ids: np.ndarray  # int64 [N]; 0 is a distractor
    cams: np.ndarray  # int64 [N]
    split: np.ndarray  # uint8 [N]
    names: list[str]  # N
    files: list[io.FileIO]  # images.npy and, where there is one, iuv.npy; closed with the store
    stamps: list[tuple[int, int]] = field(init=False)  # bytes and mtime in ns of each when it was opened

    def __post_init__(self):
        self.stamps = [_stamp(file) for file in self.files]

    @property
    def height(self) -> int:
        return self.header.height

    @property
    def width(self) -> int:
        return self.header.width

    @property
    def descriptors(self) -> list[int]:
        """The file descriptors of `files`, open as long as the store is."""
        return [file.fileno() for file in self.files]

    def at(self, split: str) -> np.ndarray:
        """The rows of a split, int64 [n], in the order of their names."""
        return np.flatnonzero(self.split == ALL_SPLITS.index(split))

    def pairs(self, split: str) -> list[tuple[int, int]]:
        """Identity and camera of each image of a split."""
        rows = self.at(split)
        return list(zip(self.ids[rows].tolist(), self.cams[rows].tolist()))

    def select(self, split: str, *, iuv: bool) -> "Split":
        """The images of a split, in the order of their names.

        Args:
            split: "bounding_box_train", "query", "bounding_box_test" or, of a store that was packed by the
                protocol multi-query, "gt_bbox".
            iuv: whether every image must have an IUV map.

        Raises:
            MissingMaps: an image without the map it needs.
            DSAError: the store does not hold the split.
        """
        rows = self.at(split)
        if not len(rows):
            raise DSAError(
                f"{self.path}: holds no {split}: the data set had no such folder, or none of its images is "
                f"of this split; {LAYOUT}"
            )
        missing = rows[~self.has_iuv[rows]]
        if iuv and len(missing):
            raise MissingMaps(self.path, [self.names[row] for row in missing], _MAKE_MAPS)
        return Split(split, rows, [self.names[i] for i in rows], self.ids[rows], self.cams[rows], self)

    def count(self, split: str) -> Count:
        """The images of a split and their identities, (0, 0) where the store does not hold it."""
        ids = self.ids[self.at(split)]
        return Count(len(ids), len(set(ids.tolist()) - {0}))

    def different_counts(self) -> list[tuple[str, Count, Count]]:
        """The splits whose counts are not the known ones, each with the expected and the found count."""
        return different_counts({str(x): count for x, count in self.header.expected.items()}, self.count)

    @property
    def skipped_note(self) -> str:
        """A note on files that were left out when it was packed; empty if there are none."""
        skipped = self.header.skipped
        if not skipped:
            return ""
        return f"images left out as broken when it was packed: {len(skipped):,}, the first {skipped[0].file}"

    def check_unchanged(self) -> None:
        """Raise DSAError if images.npy or iuv.npy has changed since the store was opened."""
        for file, stamp in zip(self.files, self.stamps):
            if _stamp(file) != stamp:
                raise DSAError(f"{file.name}: changed while it was being read")


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split of a data set, in a store."""

    name: str  # "bounding_box_train", "query", "bounding_box_test" or "gt_bbox"
    rows: np.ndarray  # int64 [n], into store.images
    names: list[str]  # n, relative to the data set's root
    ids: np.ndarray  # int64 [n]; 0 is a distractor
    cams: np.ndarray  # int64 [n]
    store: Store = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)


def open_store(path: str | os.PathLike) -> Store:
    """Open a store that `dsareid pack` wrote.

    Checks everything but the checksums of images.npy and iuv.npy; `verify` checks those too.

    Raises:
        DSAError: no store, one of another version, or a file that is missing, cut short or altered.
    """
    path = Path(path)
    header = read_header(path)
    _check_layout(path, header)
    arrays = header.arrays
    files = [_open_file(path / name, header) for name in (IMAGES, IUV) if name in arrays]
    pixels = [_map(file, arrays[name]) for name, file in zip((IMAGES, IUV), files)]
    has_iuv, ids, cams, split, names = (
        _read(_open_file(path / name, header), arrays[name]) for name in (HAS_IUV, IDS, CAMERAS, SPLIT, NAMES)
    )
    store = Store(
        path=path,
        header=header,
        images=pixels[0],
        iuv=pixels[1] if len(pixels) > 1 else None,
        has_iuv=has_iuv,
        ids=ids,
        cams=cams,
        split=split,
        files=files,
        names=[name.decode("utf-8", "replace") for name in names.tolist()],
    )
    counts = {name: int((split == code).sum()) for code, name in enumerate(ALL_SPLITS)}
    if {name: count for name, count in counts.items() if count} != header.splits:
        raise DSAError(f"{path}: {SPLIT} holds {counts}, but {HEADER} says {header.splits}")
    return store


def read_header(path: Path) -> StoreHeader:
    """Read STORE/store.json alone.

    Raises:
        DSAError: no store, one of another version, or a header that was altered.
    """
    file = path / HEADER
    try:
        content = read_json(file, object)
    except (FileNotFoundError, NotADirectoryError) as error:
        inside = sorted(path.glob(f"store-*x*/{HEADER}"))
        hint = f"; {inside[0].parent} is one" if inside else ""
        raise DSAError(f"{path}: not a store: there is no {HEADER} in it{hint}") from error
    except DSAError as error:
        raise DSAError(f"{error}; pack the data set again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DSAError(f'{file}: not the header of a store (its "format" must be "{FORMAT}")')
    if content.get("version") != VERSION:
        raise DSAError(
            f"{file}: a store of version {content.get('version')!r}, but this dsareid reads version "
            f"{VERSION}; pack the data set again"
        )
    if content.pop("checksum", None) != header_checksum(content):
        raise DSAError(f"{file}: altered since it was written; pack the data set again")
    try:
        return StoreHeader.model_validate_json(json.dumps(content))  # from JSON a list may be a tuple
    except ValidationError as error:
        raise DSAError(f"{file}: not the header of a store: {first_problem(error)}") from error


def verify(store: Store | str | os.PathLike) -> None:
    """Read every file of a store and compare its checksum, with a progress bar.

    Raises:
        DSAError: a file is not as it was written; the message names it. Otherwise as open_store.
    """
    store = store if isinstance(store, Store) else open_store(store)
    arrays = store.header.arrays
    total = sum(array.bytes for array in arrays.values())
    with tqdm(total=total, desc="checking", unit="B", unit_scale=True, leave=False, disable=None) as progress:
        for name, array in arrays.items():
            found = sha256(store.path / name, progress.update)
            if found != array.sha256:
                raise DSAError(
                    f"{store.path / name}: altered since it was written: its SHA-256 is {found}, "
                    f"expected {array.sha256}; pack the data set again"
                )


def store_summary(store: Store) -> str:
    """What `dsareid pack` and `dsareid check` print of a store."""
    header, images = store.header, sum(store.header.splits.values())
    size = sum(array.bytes for array in header.arrays.values())
    how = ", to which some were resized" if header.resized else ""
    by = f", protocol {header.protocol}" if header.protocol else ""
    lines = [
        f"{store.path}: {images:,} images of {header.height} rows x {header.width} columns{how}, "
        f"{readable_size(size)}",
        f"  {header.dataset}{by}",
    ]
    lines += [] if header.cameras else [f"  {NO_CAMERAS}"]
    lines += [f"  {name:<18} {count:>9,}" for name, count in header.splits.items()]
    mapped = int(store.has_iuv.sum())
    lines += [f"  {'with an IUV map':<18} {mapped:>9,}"]
    lines += [f"    {found.note(split)}" for split, found in header.maps.items()]
    if mapped < images:
        needed = f"(the model dsa needs those of {TRAIN} in training, fused features all others)"
        lines += [f"  {'without one':<18} {images - mapped:>9,}  {needed}"]
    if header.skipped:
        lines += [f"  {'skipped as broken':<18} {len(header.skipped):>9,}"]
        lines += [f"    {skipped.file}: {skipped.reason}" for skipped in header.skipped[:10]]
        lines += ["    ..."] if len(header.skipped) > 10 else []
    return "\n".join(lines)


def _stamp(file: io.FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _check_layout(path: Path, header: StoreHeader) -> None:
    """Raise DSAError if the arrays of a header are not those that follow from its sizes."""
    found = {name: (array.dtype, tuple(array.shape)) for name, array in header.arrays.items()}
    expected = layout_of(header).arrays
    if found != expected:
        raise DSAError(f"{path / HEADER}: not the header of a store: arrays {found}, but expected {expected}")


def _open_file(path: Path, header: StoreHeader) -> io.FileIO:
    """Open one of the arrays, of the length that the header says."""
    expected = header.arrays[path.name].bytes
    try:
        file = path.open("rb", buffering=0)
        found = os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise DSAError(f"{path}: this file of the store is missing; pack the data set again") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    if found != expected:
        file.close()
        raise DSAError(
            f"{path}: {found:,} bytes long, but {expected:,} were written: cut short or altered; pack the "
            "data set again"
        )
    return file


def _map(file: io.FileIO, expected: ArrayFile) -> np.memmap:
    """Map a large array through the open file, so that check_unchanged watches the file that is read."""
    header = npy_header(expected.dtype, expected.shape)
    _check_npy_header(file.name, file.read(len(header)), expected)
    return np.memmap(file, expected.dtype, "r", len(header), tuple(expected.shape))


def _read(file: io.FileIO, expected: ArrayFile) -> np.ndarray:
    """Read a small array whole, and compare it with its checksum."""
    with file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise DSAError(f"{file.name}: altered since it was written; pack the data set again")
    header = npy_header(expected.dtype, expected.shape)
    _check_npy_header(file.name, content[: len(header)], expected)
    return np.frombuffer(content, expected.dtype, offset=len(header)).reshape(expected.shape).copy()


def _check_npy_header(path: str, found: bytes, expected: ArrayFile) -> None:
    """Compare an .npy header without parsing it: numpy's parser is not made for untrusted files."""
    if found != npy_header(expected.dtype, expected.shape):
        raise DSAError(
            f"{path}: altered: its header differs from {HEADER}, which says {expected.dtype} "
            f"{expected.shape}; pack the data set again"
        )
