"""The store: a data set's decoded pixels in plain .npy files, read through memory maps.

    STORE/images.npy    uint8 [N, H, W, 3] RGB
    STORE/iuv.npy       uint8 [N, H, W, 3] in the order I, U, V; absent where no image has a map
    STORE/has_iuv.npy   bool [N]; without a map the row of iuv.npy is all background
    STORE/ids.npy       int64 [N]; 0 is a distractor
    STORE/cameras.npy   int64 [N]; -1 where a distractor's is not known
    STORE/split.npy     uint8 [N]: 0 bounding_box_train, 1 query, 2 bounding_box_test, 3 gt_bbox, 255 skipped
    STORE/names.npy     bytes [N]: the file relative to the data set's root, UTF-8
    STORE/store.json    what the store holds and a checksum of each file, written last

`sha256sum` of a file gives the figure in store.json.
"""

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from dsareid.data.layouts.base import ALL_SPLITS, LAYOUT, NO_CAMERAS, TRAIN, missing_map
from dsareid.ground.errors import DSAError, first_problem
from dsareid.ground.files import readable_size

FORMAT, VERSION = "dsareid store", 2
HEADER = "store.json"
IMAGES, IUV = "images.npy", "iuv.npy"
SKIPPED = 255  # in split.npy: a file that could not be read; its row is zeros and in no split

_Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=1)]
MOST_PIXELS = 1 << 15  # rows or columns, as dsa_ext.assemble_batch takes them
_Side = Annotated[int, Field(ge=1, le=MOST_PIXELS)]


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


class Header(_Strict):
    """What store.json holds beside its own checksum."""

    format: Literal[FORMAT] = FORMAT
    version: Literal[VERSION] = VERSION
    height: _Side
    width: _Side
    images: _Count
    splits: dict[Literal[ALL_SPLITS], _Count]
    resized: bool
    """Whether some files were of another size than the stored one."""
    dataset: str
    """The name of the data set."""
    protocol: str
    """The one by which it is split; empty for the only or the plain one."""
    cameras: bool
    """Whether cameras are known; if not, those of query and gallery differ, and no image is left out."""
    synthetic: bool
    """Whether the images were rendered by dsareid synth."""
    source: _Checksum
    """The fingerprint of the listing that was packed."""
    skipped: list[SkippedFile]
    arrays: dict[str, ArrayFile]


@dataclass(eq=False, repr=False)
class Store:
    """An open store. Nothing of `images` and `iuv` is in memory until it is read."""

    path: Path
    header: Header
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

    def select(self, split: str, *, iuv: bool) -> "Split":
        """The images of a split, in the order of their names.

        Args:
            split: "bounding_box_train", "query", "bounding_box_test" or, of a store that was packed by the
                protocol multi-query, "gt_bbox".
            iuv: whether every image must have an IUV map.

        Raises:
            DSAError: the store does not hold the split, or a map is missing.
        """
        rows = np.flatnonzero(self.split == ALL_SPLITS.index(split))
        if not len(rows):
            raise DSAError(
                f"{self.path}: holds no {split}: the data set had no such folder, or none of its images is "
                f"of this split; {LAYOUT}"
            )
        missing = rows[~self.has_iuv[rows]]
        if iuv and len(missing):
            more = f"; {len(missing) - 1} more are missing" if len(missing) > 1 else ""
            raise DSAError(missing_map(self.path, self.names[missing[0]]) + more)
        return Split(split, rows, [self.names[i] for i in rows], self.ids[rows], self.cams[rows], self)

    def check_unchanged(self) -> None:
        """Raise DSAError where images.npy or iuv.npy is no longer as it was when it was opened."""
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

    Everything is checked but the checksums of images.npy and iuv.npy, which `verify` looks at.

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
        _read(_open_file(path / name, header), arrays[name])
        for name in ("has_iuv.npy", "ids.npy", "cameras.npy", "split.npy", "names.npy")
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
        raise DSAError(f"{path}: split.npy holds {counts}, but {HEADER} says {header.splits}")
    return store


def read_header(path: Path) -> Header:
    """Read STORE/store.json alone.

    Raises:
        DSAError: no store, one of another version, or a header that was altered.
    """
    file = path / HEADER
    try:
        content = json.loads(file.read_bytes())
        intact = isinstance(content, dict) and content.pop("checksum", None) == _checksum(content)
    except (FileNotFoundError, NotADirectoryError) as error:
        inside = sorted(path.glob(f"store-*x*/{HEADER}"))
        hint = f"; {inside[0].parent} is one" if inside else ""
        raise DSAError(f"{path}: not a store: there is no {HEADER} in it{hint}") from error
    except OSError as error:
        raise DSAError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DSAError(f"{file}: not readable as JSON; pack the data set again") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DSAError(f'{file}: not the header of a store (its "format" must be "{FORMAT}")')
    if content.get("version") != VERSION:
        raise DSAError(
            f"{file}: a store of version {content.get('version')!r}, but this dsareid reads version "
            f"{VERSION}; pack the data set again"
        )
    if not intact:
        raise DSAError(f"{file}: altered since it was written; pack the data set again")
    try:
        return Header.model_validate(content)
    except ValidationError as error:
        raise DSAError(f"{file}: not the header of a store: {first_problem(error)}") from error


def header_text(header: Header) -> str:
    """The contents of store.json: the header with its own checksum."""
    content = header.model_dump()
    return json.dumps(content | {"checksum": _checksum(content)}, indent=1) + "\n"


def array_layout(
    count: int, height: int, width: int, *, names: str, iuv: bool
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The dtype, as numpy writes it, and the shape of each file of a store; `names` is that of names.npy."""
    pixels = "|u1", (count, height, width, 3)
    per_image = {"has_iuv": "|b1", "ids": "<i8", "cameras": "<i8", "split": "|u1", "names": names}
    return {
        IMAGES: pixels,
        **({IUV: pixels} if iuv else {}),
        **{f"{name}.npy": (dtype, (count,)) for name, dtype in per_image.items()},
    }


def npy_header(dtype: str, shape: Sequence[int]) -> bytes:
    """What a .npy file of these begins with."""
    buffer = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue()


def verify(store: Store | str | os.PathLike) -> None:
    """Read every file of a store and compare its checksum, with a progress bar.

    Raises:
        DSAError: naming the file that is not as it was written; else as open_store.
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


def describe(store: Store) -> str:
    """What a store holds, for people, in a few lines."""
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
    if mapped < images:
        needed = f"(--model dsa needs those of {TRAIN}, fused features all others)"
        lines += [f"  {'without one':<18} {images - mapped:>9,}  {needed}"]
    if header.skipped:
        lines += [f"  {'skipped as broken':<18} {len(header.skipped):>9,}"]
        lines += [f"    {skipped.file}: {skipped.reason}" for skipped in header.skipped]
    return "\n".join(lines)


def sha256(path: Path, advance: Callable[[int], object] = lambda _: None) -> str:
    """The SHA-256 of a file, hex; `advance` is told the bytes read as it goes.

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


def _checksum(content: dict) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _stamp(file: io.FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _check_layout(path: Path, header: Header) -> None:
    """Raise DSAError where the arrays of a header are not those that its sizes ask for."""
    found = {name: (array.dtype, tuple(array.shape)) for name, array in header.arrays.items()}
    names = header.arrays["names.npy"].dtype if "names.npy" in header.arrays else ""
    names = names if re.fullmatch(r"\|S[1-9]\d*", names) else "|S1"
    expected = array_layout(header.images, header.height, header.width, names=names, iuv=IUV in found)
    if found != expected:
        raise DSAError(f"{path / HEADER}: not the header of a store: arrays {found}, but expected {expected}")


def _open_file(path: Path, header: Header) -> io.FileIO:
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
    """One of the large arrays, through the file that is open: what is watched is what is read."""
    header = npy_header(expected.dtype, expected.shape)
    _check_npy_header(file.name, file.read(len(header)), expected)
    return np.memmap(file, expected.dtype, "r", len(header), tuple(expected.shape))


def _read(file: io.FileIO, expected: ArrayFile) -> np.ndarray:
    """One of the small arrays, read whole and compared with its checksum."""
    with file:
        content = file.read()
    if hashlib.sha256(content).hexdigest() != expected.sha256:
        raise DSAError(f"{file.name}: altered since it was written; pack the data set again")
    header = npy_header(expected.dtype, expected.shape)
    _check_npy_header(file.name, content[: len(header)], expected)
    return np.frombuffer(content, expected.dtype, offset=len(header)).reshape(expected.shape).copy()


def _check_npy_header(path: str, found: bytes, expected: ArrayFile) -> None:
    """Compared, not parsed: numpy's parser was not made for files from outside."""
    if found != npy_header(expected.dtype, expected.shape):
        raise DSAError(
            f"{path}: altered: its header is another, but {HEADER} says {expected.dtype} {expected.shape}; "
            "pack the data set again"
        )
