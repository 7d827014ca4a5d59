"""MATLAB 5 files, as far as data sets and DensePose use them: arrays of numbers, text, and cells of these.

SciPy's reader ends the process on some damaged files; this one refuses them, and a small file that unpacks
to a large one too.
"""

import math
import os
import struct
import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from dsareid.ground.errors import DSAError

MOST_BYTES = 1 << 28  # of all that a file unpacks to; DensePose's UV_symmetry_transforms.mat is 25 MB
_MATRIX, _COMPRESSED = 14, 15
_CELL, _CHAR = 1, 4
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MOST_AXES, _DEEPEST = 8, 2  # an array in a cell is 1 deep


def read_mat5(path: str | os.PathLike, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The variables of a MATLAB 5 file (as `save -v6` and `save -v7` write them).

    Args:
        path: the file.
        names: of the variables that are wanted; all of them unless given.

    Returns:
        By its name each variable that is there: an array of numbers, of text (str, a row each), or of cells
        (object), which are such arrays themselves.

    Raises:
        DSAError: the file is damaged or something else, unpacks to more than MOST_BYTES, or a variable that
            is wanted is of another kind (a struct, a sparse or complex array).
        FileNotFoundError: there is none.
    """
    try:
        data = Path(path).read_bytes()
        order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
        if order is None or len(data) < 128:
            raise ValueError("it does not begin as one")
        found, at, left = {}, 128, MOST_BYTES
        while at < len(data):
            kind, body, at = _element(data, at, order)
            if kind == _COMPRESSED:
                body = _unpacked(body, left)
                left -= len(body)
                kind, body, _ = _element(body, 0, order)
            if kind != _MATRIX:
                raise ValueError(f"an element of type {kind} where a variable was expected")
            name, value = _variable(body, order, names)
            if value is not None:
                found[name] = value
    except (FileNotFoundError, DSAError):
        raise
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # what damaged bytes lead struct, zlib and NumPy to
        raise DSAError(f"{path}: not readable as a MATLAB 5 file: {error}") from error
    return found


def _element(data: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """The type and the bytes of the element at a place, and where the next one is."""
    kind, size = struct.unpack_from(f"{order}II", data, at)
    if kind >> 16:  # a small one: its size is beside its type, its bytes follow at once
        kind, size = kind & 0xFFFF, kind >> 16
        start, end = at + 4, at + 8
        if size > 4:
            raise ValueError("a small element of more than 4 bytes")
    else:
        start = at + 8
        end = start + size + (0 if kind == _COMPRESSED else -size % 8)
    if start + size > len(data):
        raise ValueError("it is cut short")
    return kind, data[start : start + size], end


def _unpacked(body: bytes, most: int) -> bytes:
    stream = zlib.decompressobj()
    unpacked = stream.decompress(body, most)
    if stream.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
    return unpacked


def _variable(
    body: bytes, order: str, names: Collection[str] | None, depth: int = 0
) -> tuple[str, np.ndarray | None]:
    """The name and the value of a variable; None in place of one that is not wanted."""
    if not body:  # how an empty cell may be written
        return "", np.empty((0, 0))
    _, flags, at = _element(body, 0, order)
    kind = struct.unpack_from(f"{order}I", flags)[0]
    _, axes, at = _element(body, at, order)
    shape = tuple(np.frombuffer(axes, f"{order}i4").tolist())
    _, name, at = _element(body, at, order)
    name = name.decode("latin-1")
    if depth == 0 and names is not None and name not in names:
        return name, None
    if not 2 <= len(shape) <= _MOST_AXES or min(shape) < 0:
        raise ValueError(f"{name}: an array of the shape {list(shape)}")
    is_complex, kind = bool(kind & 0x800), kind & 0xFF
    if kind == _CELL and depth < _DEEPEST:
        return name, _cells(body, at, order, shape, depth)
    if is_complex or kind not in {_CHAR, *_CLASSES}:
        if names is None and depth == 0:
            return name, None
        raise ValueError(f"{name}: neither real numbers nor text nor cells of these (class {kind})")
    how, content, _ = _element(body, at, order)
    if kind == _CHAR:
        return name, _rows_of_text(how, content, order, shape)
    values = np.frombuffer(content, f"{order}{_TYPES[how]}")
    return name, values.astype(_CLASSES[kind]).reshape(shape, order="F")


def _cells(body: bytes, at: int, order: str, shape: tuple[int, ...], depth: int) -> np.ndarray:
    count = math.prod(shape)
    if 8 * count > len(body) - at:  # each has at least a head
        raise ValueError(f"{count:,} cells are more than it holds")
    cells = np.empty(count, object)
    for k in range(count):
        kind, content, at = _element(body, at, order)
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} in a cell")
        cells[k] = _variable(content, order, None, depth + 1)[1]
    return cells.reshape(shape, order="F")


def _rows_of_text(how: int, content: bytes, order: str, shape: tuple[int, ...]) -> np.ndarray:
    if how in _TEXTS:
        wide = {"<": "-le", ">": "-be"}[order] if how > 16 else ""
        letters = list(content.decode(_TEXTS[how] + wide))
    else:
        letters = list(map(chr, np.frombuffer(content, f"{order}{_TYPES[how]}").tolist()))
    table = np.array(letters, "U1").reshape(shape[0], math.prod(shape[1:]), order="F")
    return np.array(["".join(row) for row in table.tolist()], str)
