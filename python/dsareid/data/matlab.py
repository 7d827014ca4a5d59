"""MATLAB 5 files, as far as data sets and DensePose use them: arrays of numbers, text, and cells of these.

SciPy reads them, but some damaged files end the process or take all memory. So another process,
matlab_worker.py, reads them; if it ends, that is an error here.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsareid.ground.errors import DSAError

PATIENCE = 20  # seconds for a file
_WORKER = Path(__file__).with_name("matlab_worker.py")


def read_matlab(path: str | os.PathLike, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Variables of a MATLAB 5 file (as `save -v6` and `save -v7` write them), read in another process.

    The process is started by the first call and ends with this one: starting it takes half a second.

    Args:
        path: the file.
        names: of the variables that are wanted.

    Returns:
        The variables that the file has, by name: each an array of numbers, of text (str, a row each), or of
        cells (object), which are such arrays themselves.

    Raises:
        DSAError: the file is damaged or something else, unpacks to too much, takes more than PATIENCE, or
            a variable is of another kind (a struct, a sparse or complex array).
        FileNotFoundError: there is none.
    """
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    with _lock:
        reply, data = _ask({"path": os.path.abspath(path), "names": list(names)})
    if "error" in reply:
        raise DSAError(f"{path}: not readable as a MATLAB 5 file: {reply['error']}")
    return {name: _array(value, data) for name, value in reply["variables"].items()}


# ---- the other process ----

_lock = threading.Lock()
_process: subprocess.Popen | None = None
_owner = 0  # the process that started it: a fork must not share it


def _ask(request: dict) -> tuple[dict, bytes]:
    """The answer of the worker: {"error": why not}, or {"variables": ...} and the bytes of their arrays."""
    worker = _running_worker()
    assert worker.stdin and worker.stdout
    timer = threading.Timer(PATIENCE, worker.kill)
    timer.start()
    try:
        worker.stdin.write(json.dumps(request).encode() + b"\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        reply = json.loads(line) if line.endswith(b"\n") else {}
        data = worker.stdout.read(reply.get("bytes", 0))
    except OSError:
        reply, data = {}, b""
    except BaseException:  # the rest of this answer must not be taken for the next one
        worker.kill()
        raise
    finally:
        slow = not timer.is_alive()
        timer.cancel()
    if reply and len(data) == reply.get("bytes", 0):
        return reply, data
    worker.kill()
    code = worker.wait()
    why = f"it takes more than {PATIENCE} s" if slow else f"its reader ended with exit status {code}"
    return {"error": why}, b""


def _running_worker() -> subprocess.Popen:
    global _process, _owner
    if _process is None or _owner != os.getpid() or _process.poll() is not None:
        _close_worker()
        _process, _owner = _start_worker(), os.getpid()
    return _process


def _start_worker() -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-P", str(_WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # its threads take address space, which is limited
        start_new_session=True,  # Ctrl-C is for this process
    )


def _close_worker() -> None:
    """Close the pipes to a worker that has ended, or that another process has started."""
    if _process is not None:
        for pipe in (_process.stdin, _process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()


def _array(value: dict, data: bytes) -> np.ndarray:
    """An array as matlab_worker describes it."""
    shape = tuple(value["shape"])
    if "cells" in value:
        cells = np.empty(len(value["cells"]), object)
        for index, cell in enumerate(value["cells"]):
            cells[index] = _array(cell, data)
        return cells.reshape(shape)
    if 0 in shape:
        return np.empty(shape, value["dtype"])
    return np.ndarray(shape, value["dtype"], data, value["at"]).copy()
