"""Pickles of NumPy arrays, as detectron2 publishes weights (.pkl), read without running what they name.

A pickle can call whatever it names. Here it may name a few things, and gets a stand-in for each that only
keeps what it is given: numbers and bytes. Arrays are made of them afterwards.
"""

import codecs
import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from dsareid.ground.errors import DSAError, first_line

KINDS = ("f2", "f4", "f8", "i4", "i8", "u1", "b1")  # of arrays that hold numbers


class _Kind:
    """Stands for numpy.dtype."""

    def __init__(self, name: Any, *options: Any):
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        name = self.name.decode("ascii") if isinstance(self.name, bytes) else self.name
        if name not in KINDS:
            raise ValueError(f"an array of {name!r}, not of numbers")
        return np.dtype(name).newbyteorder(">" if self.order in (">", b">") else "<")


class _Array:
    """Stands for an array while it is read."""

    state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        _, shape, kind, fortran, content = self.state
        content = content.encode("latin1") if isinstance(content, str) else content  # Python 2's bytes
        dtype = kind.dtype()
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"an array of {list(shape)} with {len(content)} bytes")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")


def _new_array(kind: Any, shape: Any, name: Any) -> _Array:
    return _Array()


def _array_of_buffer(content: Any, kind: _Kind, shape: Any, order: str) -> _Array:
    """As protocol 5 has arrays."""
    made = _Array()
    made.state = 1, shape, kind, order == "F", bytes(content)
    return made


def _scalar(kind: _Kind, content: Any = b"") -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(content, kind.dtype())[0].item()


_STAND_INS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): lambda text, encoding="latin1": codecs.encode(text, "latin1"),  # bytes, before 3
    ("__builtin__", "bytes"): lambda: b"",  # as protocol 2 has none
    ("numpy", "dtype"): _Kind,
    ("numpy", "ndarray"): _Array,
    **{
        (f"numpy.{core}.{module}", name): stand_in
        for core in ("core", "_core")
        for module, name, stand_in in (
            ("multiarray", "_reconstruct", _new_array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _array_of_buffer),
        )
    },
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise DSAError(f"it names {module}.{name}, which is no array; nothing in it was run")
        return _STAND_INS[module, name]


def read_array_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickle: of arrays, numbers, text, lists and dictionaries.

    Raises:
        DSAError: it holds anything else, or is damaged.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        try:
            found = _arrays(_Reader(file, encoding="latin1").load())
        except DSAError as error:
            raise DSAError(f"{path}: {error}") from error
        except Exception as error:  # damaged bytes lead pickle to raise whatever it may be
            raise DSAError(f"{path}: not readable as a pickle of arrays: {_short(error)}") from error
    if not isinstance(found, dict):
        raise DSAError(f"{path}: it holds a {type(found).__name__}, not a dictionary of weights")
    return found


def _arrays(found: Any) -> Any:
    """The same with arrays in place of their stand-ins."""
    if isinstance(found, _Array):
        return found.array()
    if isinstance(found, dict):
        return {key: _arrays(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_arrays(value) for value in found]
    if found is None or isinstance(found, (bool, int, float, str, bytes)):
        return found
    raise ValueError(f"a {type(found).__name__}")


def _short(error: Exception) -> str:
    if isinstance(error, EOFError) or "truncated" in str(error) or "exhausted" in str(error):
        return "its end is missing; was it downloaded to the end?"
    return first_line(error)
