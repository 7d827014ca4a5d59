"""Which processes are still running: found by a variable of the environment, which children inherit."""

import os
import signal
import time
from pathlib import Path

MARK = "DSAREID_TESTS_MARK"
PATIENCE = 60  # seconds for processes to end by themselves; a worker may have torch to load before it can


def running(mark: str) -> dict[int, str]:
    """By their ids the command lines of all processes started with this mark, and of those they started."""
    found = {}
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and f"{MARK}={mark}".encode() in _words(process / "environ"):
                found[int(process.name)] = b" ".join(_words(process / "cmdline")).decode(errors="replace")
        except OSError:  # it has ended, or is another user's
            continue
    return found  # without those that have ended and are not waited for: their environment is gone


def left_behind(mark: str) -> dict[int, str]:
    """Those that are still running after PATIENCE, which are killed."""
    until = time.monotonic() + PATIENCE
    while (left := running(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


def _words(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\0")
