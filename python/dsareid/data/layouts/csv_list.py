"""One's own data, listed in a CSV file: an image's identity is in its line, any word (see own_labels).

    ROOT/data.csv               the header file,identity,split or file,identity,split,camera, and a line for
                                each image: its path below ROOT, any word, train, query or gallery, any word

Without the column camera, cameras are not known (see own_labels).
"""

import csv
import os
from pathlib import Path, PurePosixPath

from dsareid.data.layouts.base import CSV, OWN_DATA, Dataset, Found, Scan, unknown_protocol
from dsareid.data.layouts.own_labels import SPLIT_NAMES, LabelledFile, number_labels
from dsareid.ground.errors import DSAError

DATASET = Dataset(OWN_DATA, f"{CSV} with the columns file, identity, split and, optionally, camera")
_COLUMNS = ["file", "identity", "split", "camera"]


def recognise(root: Path, scan: Scan) -> bool:
    """Whether data.csv is there."""
    return os.path.lexists(root / CSV)


def find(root: Path, scan: Scan, protocol: str) -> Found:
    """The images that data.csv lists.

    Raises:
        DSAError: a wrong cell, which the message names by line and column; a file that is not there; any
            protocol, because this layout has none.
    """
    if protocol:
        raise unknown_protocol(DATASET, protocol)
    path = root / CSV
    header, lines = _read_lines(path)
    images: dict[str, LabelledFile] = {}
    for line, cells in lines:
        where = f"{path}: line {line}"
        if len(cells) != len(header):
            raise DSAError(f"{where}: {len(cells)} cells, but the header has {len(header)}")
        row = dict(zip(header, cells))
        for column, cell in row.items():
            if not cell:
                raise DSAError(f"{where}, column {column}: empty")
        if row["split"] not in SPLIT_NAMES:
            raise DSAError(f"{where}, column split: must be {', '.join(SPLIT_NAMES)}, not {row['split']!r}")
        name = _check_file(row["file"], scan, where)
        if name in images:
            raise DSAError(f"{where}, column file: {name} is listed twice")
        images[name] = LabelledFile(SPLIT_NAMES[row["split"]], name, row["identity"], row.get("camera"))
    if not images:
        raise DSAError(f"{path}: it lists no images")
    try:
        return number_labels(DATASET, list(images.values()))
    except DSAError as error:
        raise DSAError(f"{path}, column identity: {error}") from error


def _read_lines(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header of a CSV file, and each further line with its number."""
    lines: list[tuple[int, list[str]]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if any(cells):  # Excel leaves lines that hold nothing but commas
                    lines.append((reader.line_num, cells))
    except csv.Error as error:
        raise DSAError(f"{path}: line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        raise DSAError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    header = lines[0][1] if lines else []
    if sorted(header) not in (sorted(_COLUMNS), sorted(_COLUMNS[:3])):
        raise DSAError(
            f"{path}: line 1 must be the header {','.join(_COLUMNS[:3])} or {','.join(_COLUMNS)}, "
            f"not {','.join(header)!r}"
        )
    return header, lines[1:]


def _check_file(file: str, scan: Scan, where: str) -> str:
    """The path of an image that is there, relative to the root."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or "\0" in file:
        raise DSAError(f"{where}, column file: must be a path inside the data set's folder, not {file!r}")
    found = scan.find(str(path))
    if found is None:
        raise DSAError(f"{where}, column file: {file}: no such file")
    return found
