"""A folder of features, kept for ranking and searching.

    OUT/features.npy     float32 [N, D], an image a row; mapped into memory, never read whole
    OUT/images.csv       file,identity,camera, a line for each row; any words, empty if not known
    OUT/features.json    which model made them, how many there are, from which folder; written last

If rows are means of tracks, images.csv has a fourth column, track, and a file is one picture of its track.
`dsareid extract` writes one; write_features makes one from arrays of your own.
"""

import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dsareid.data.labels import ImageLabel, label_in_name
from dsareid.data.layouts.base import JUNK
from dsareid.data.layouts.own_labels import canonical_label, is_below_junk
from dsareid.data.store.format import npy_header
from dsareid.ground.errors import DSAError, first_problem
from dsareid.ground.files import atomic_path, make_folder
from dsareid.inference.settings import Facts

FEATURES, IMAGES, HEADER = "features.npy", "images.csv", "features.json"
SKIPPED = "skipped.txt"  # written by extract: images that could not be read and why, a line each
_COLUMNS = ["file", "identity", "camera"]
_TRACK = "track"  # the column that may follow


def _check_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


class FeatureFolderInfo(BaseModel):
    """The contents of features.json."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["dsareid features"] = "dsareid features"
    version: Literal[1] = 1
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """The identity of the model: features of two models cannot be compared."""
    count: Annotated[int, Field(ge=1, lt=1 << 40)]
    dimension: Annotated[int, Field(ge=1, lt=1 << 24)]
    images: Annotated[Any, AfterValidator(_check_text)]
    """The folder that `file` is relative to, a str. Pydantic's check would refuse names that are no UTF-8."""
    features: str
    """A description of the features, for people."""
    facts: Facts | None = None
    """Of another network than ours, what its user stated."""


@dataclass(frozen=True, eq=False)
class FeatureFolder:
    """Features of N images. `features` stay on the disk until they are read."""

    path: Path
    model: str
    features: np.ndarray = field(repr=False)  # float32 [N, D], mapped, read-only
    files: list[str] = field(repr=False)  # N, relative to `images`
    labels: list[ImageLabel] = field(repr=False)  # N
    images: Path
    """The folder that the images were read from."""
    facts: Facts | None = None
    """Of another network than ours, what its user stated."""
    tracks: list[str] | None = field(default=None, repr=False)
    """If rows are means of tracks, their names, N."""
    described: str = ""
    """A description of the features, for people."""

    def __len__(self) -> int:
        return len(self.files)


def open_features(folder: str | os.PathLike) -> FeatureFolder:
    """Open a folder of features. Everything is checked except the values of the features.

    Raises:
        DSAError: no such folder, or a file of it that is missing, cut short, or does not fit the others.
    """
    folder = Path(folder)
    info = _read_info(folder)
    features = _map(folder / FEATURES, info)
    files, labels, tracks = _read_images(folder / IMAGES, info.count)
    return FeatureFolder(
        path=folder,
        model=info.model,
        features=features,
        files=files,
        labels=labels,
        images=Path(info.images),
        facts=info.facts,
        tracks=tracks,
        described=info.features,
    )


def check_same_model(a: FeatureFolder, b: FeatureFolder) -> None:
    """Raise DSAError if two folders hold features of different models."""
    dimensions = a.features.shape[1], b.features.shape[1]
    for name, of_a, of_b in (("model", a.model, b.model), ("dimension", *dimensions)):
        if of_a != of_b:
            raise DSAError(
                f"{b.path}: features of {name} {of_b}, but those of {a.path} are of {name} {of_a}: they "
                "cannot be compared; extract both with one model"
            )


def write_features(
    folder: str | os.PathLike,
    features: np.ndarray,
    files: Sequence[str],
    *,
    model: str,
    images: str | os.PathLike = "",
    ids: Sequence[int | str | None] | None = None,
    cams: Sequence[int | str | None] | None = None,
    described: str = "",
) -> None:
    """Make a folder of features from an array.

    Args:
        folder: created if it does not exist; it must not hold features yet.
        features: float32 [N, D].
        files: N names, relative to `images`.
        model: any text that identifies the model that made the features.
        ids, cams: N each, numbers or words, None if not known; -1 is junk, 0 a distractor.
            Default: read from the files' names.
        described: a description of the features, for people.

    Raises:
        ValueError: features of another shape or type, lists of another length, or labels below -1.
        DSAError: there are features already, or the folder cannot be written.
    """
    folder = make_folder(folder)
    if (folder / HEADER).exists():
        raise DSAError(f"{folder}: holds features already; choose another folder")
    if features.dtype != np.float32 or features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features must be float32 [N, D], not {features.dtype} {list(features.shape)}")
    labels = [label_in_name(file) for file in files]
    ids = [label.identity for label in labels] if ids is None else ids
    cams = [label.camera for label in labels] if cams is None else cams
    for name, values in (("files", files), ("ids", ids), ("cams", cams)):
        if len(values) != len(features):
            raise ValueError(f"{name} must have {len(features)} entries, as features do, not {len(values)}")
    words = [tuple(None if x is None else str(x) for x in pair) for pair in zip(ids, cams)]
    for pair in words:
        if any(is_below_junk(word) for word in pair if word):
            raise ValueError(f"ids and cams must be words or numbers of at least {JUNK}, not {pair}")
    with atomic_path(folder / FEATURES) as temporary:
        np.save(temporary, np.ascontiguousarray(features))
    count, dimension = features.shape
    info = FeatureFolderInfo(
        model=model, count=count, dimension=dimension, images=str(images), features=described
    )
    write_index(folder, info, files, (ImageLabel(*pair) for pair in words))


def write_index(
    folder: Path,
    info: FeatureFolderInfo,
    files: Iterable[str],
    labels: Iterable[ImageLabel],
    tracks: Iterable[str] | None = None,
) -> None:
    """Write images.csv, then features.json, into a folder that has its features.npy.

    Args:
        files, labels, tracks: the image of each row, its label, and its track if rows are tracks.

    Raises:
        DSAError: they cannot be written.
    """
    with atomic_path(folder / IMAGES) as temporary:
        with temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            plain = csv.writer(file, lineterminator="\n")
            plain.writerow(_COLUMNS if tracks is None else [*_COLUMNS, _TRACK])
            # For names with a \r, which the plain writer does not quote.
            quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
            more: Iterable[list[str]] = itertools.repeat([]) if tracks is None else ([x] for x in tracks)
            for name, label, track in zip(files, labels, more):
                row = [name, *(word or "" for word in label), *track]
                (quoting if "\r" in "".join(row) else plain).writerow(row)
    with atomic_path(folder / HEADER) as temporary:
        temporary.write_text(
            json.dumps(info.model_dump(exclude_none=True), indent=1) + "\n", encoding="utf-8"
        )


def _read_info(folder: Path) -> FeatureFolderInfo:
    path = folder / HEADER
    try:
        return FeatureFolderInfo.model_validate(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DSAError(
            f"{folder}: not a folder of features: there is no {HEADER} in it; dsareid extract writes one"
        ) from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DSAError(f"{path}: not what dsareid extract writes: {first_problem(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DSAError(f"{path}: not what dsareid extract writes: not readable as JSON") from error


def _map(path: Path, info: FeatureFolderInfo) -> np.ndarray:
    """Map features.npy. Its header is compared, not parsed: numpy's parser is not for untrusted files."""
    shape = (info.count, info.dimension)
    begin = npy_header("<f4", shape)
    expected = len(begin) + 4 * info.count * info.dimension
    try:
        with path.open("rb") as file:
            found, size = file.read(len(begin)), os.fstat(file.fileno()).st_size
            if found == begin and size == expected:
                return np.memmap(file, "<f4", "r", len(begin), shape)
    except FileNotFoundError as error:
        raise DSAError(f"{path}: missing from this folder of features") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    what = "its header differs" if size == expected else f"it is {size:,} bytes long"
    raise DSAError(
        f"{path}: expected float32 {list(shape)} in C order, {expected:,} bytes, as {HEADER} says, but {what}"
    )


def _read_images(path: Path, count: int) -> tuple[list[str], list[ImageLabel], list[str] | None]:
    """The files and labels of images.csv, and the tracks if it has them."""
    files: list[str] = []
    labels: list[ImageLabel] = []
    tracks: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            if (columns := next(reader, [])) not in (_COLUMNS, [*_COLUMNS, _TRACK]):
                expected, found = ",".join(_COLUMNS), ",".join(columns)[:80]
                raise DSAError(f"{path}: the first line must be {expected}, not {found!r}")
            for row in filter(any, reader):  # Excel may write lines that hold only commas
                if len(files) == count:
                    raise DSAError(f"{path}: more images than the {count:,} that {HEADER} says")
                where = f"{path}, line {reader.line_num}"
                if len(row) != len(columns) or not row[0]:
                    raise DSAError(f"{where}: expected {','.join(columns)}, not {','.join(row)[:80]!r}")
                files.append(row[0])
                labels.append(ImageLabel(*(_word(where, *cell) for cell in zip(_COLUMNS[1:], row[1:3]))))
                tracks += row[3:]
    except FileNotFoundError as error:
        raise DSAError(f"{path}: missing from this folder of features") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except csv.Error as error:
        raise DSAError(f"{path}: not readable as CSV: {error}") from error
    if len(files) != count:
        raise DSAError(f"{path}: {len(files):,} images, but {HEADER} says {count:,}")
    return files, labels, tracks or None


def _word(where: str, column: str, text: str) -> str | None:
    """A cell's label; None if the cell is empty. Interned, so that each word is in memory once."""
    word = canonical_label(text)
    if is_below_junk(word):
        raise DSAError(
            f"{where}: the {column} must be a word, a number of at least -1, or empty, not {text[:40]!r}"
        )
    return sys.intern(word) or None
