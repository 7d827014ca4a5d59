"""The process that reads MATLAB files for matlab.py; it needs NumPy and SciPy, and nothing of this package.

stdin has a line for each file, {"path": ..., "names": [...]}. stdout has one of these lines for each, and the
bytes of its arrays behind it:

    {"error": why it cannot be read}
    {"bytes": how many follow, "variables": {name: array}}

An array is {"dtype", "shape", "at": its place in these bytes} or, of cells, {"shape", "cells": [array, ...]}.
"""

import contextlib
import json
import signal
import sys

import numpy as np
from scipy.io.matlab import loadmat, matfile_version

MOST_BYTES = 1 << 28  # of the wanted variables of a file; DensePose's UV_symmetry_transforms.mat is 25 MB
ADDRESSES = 1 << 31  # bytes of this process's address space; its code takes 170 MB of them
LONGEST = 25  # seconds for a file; matlab.py waits for less
_DEEPEST = 2  # an array in a cell is 1 deep


def main() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = sys.stdout.buffer
    sys.stdout = sys.stderr
    for line in sys.stdin.buffer:
        data, reply = bytearray(), {}
        _end_in(LONGEST)
        try:
            variables = _read(**json.loads(line), data=data)
            reply = {"bytes": len(data), "variables": variables}
        except MemoryError:
            reply = {"error": "it takes too much memory"}
        except Exception as error:  # what damaged bytes lead SciPy to raise
            reply = {"error": str(error) or type(error).__name__}
        _end_in(0)
        answer.write(json.dumps(reply).encode() + b"\n")
        if "error" not in reply:
            answer.write(data)
        answer.flush()


def _end_in(seconds: int) -> None:
    """End this process after some seconds: its parent, which should do so, may be gone. 0: cancel that."""
    if hasattr(signal, "alarm"):  # not on every system
        signal.alarm(seconds)


def _read(path: str, names: list[str], data: bytearray) -> dict[str, dict]:
    with open(path, "rb") as file:
        if matfile_version(file)[0] != 1:
            raise ValueError("it does not begin as one")
        file.seek(0)
        found = loadmat(file, variable_names=names)
    return {name: _array(name, found[name], data, 0) for name in names if name in found}


def _array(name: str, value: object, data: bytearray, depth: int) -> dict:
    """Describe an array, and append its bytes to the data."""
    if isinstance(value, np.ndarray) and value.dtype == object and depth < _DEEPEST:
        cells = [_array(name, cell, data, depth + 1) for cell in value.flat]
        return {"shape": value.shape, "cells": cells}
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biufU":
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise ValueError(f"{name}: neither real numbers nor text nor cells of these ({kind})")
    at = len(data)
    if at + value.nbytes > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
    data += value.tobytes()
    return {"dtype": value.dtype.str, "shape": value.shape, "at": at}


if __name__ == "__main__":
    main()
