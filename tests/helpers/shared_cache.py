"""What tests make once and share: compiled programs, what nvcc says, built sites, trained runs.

    made(name, key, make)       a folder
    compiled(source, flags)     an object file
    program(name, jobs, link)   a program of several objects

All of it lies in build/tests-cache, under a digest of what it was made from, so a change makes it anew.
Whoever comes first makes it, under a lock; other workers of pytest-xdist wait, and later calls find it there.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "build" / "tests-cache"
KEPT_DAYS = 7  # that nobody asked for an entry, before it goes


def digest(*parts: object) -> str:
    """The content of paths, the text of all else."""
    result = hashlib.sha256()
    for part in parts:
        content = (
            part.name.encode() + b"\0" + part.read_bytes() if isinstance(part, Path) else repr(part).encode()
        )
        result.update(str(len(content)).encode() + b"\0" + content)
    return result.hexdigest()[:16]


def made(name: str, key: Iterable[object], make: Callable[[Path], object]) -> Path:
    """The folder that `make(folder)` fills, if there is none of this name and key yet. It is read only.

    Args:
        key: all that the content depends on, for `digest`.
    """
    folder = CACHE / f"{name}-{digest(*key)}"
    if not folder.exists():
        (CACHE / "locks").mkdir(parents=True, exist_ok=True)
        with FileLock(CACHE / "locks" / name):
            if not folder.exists():
                unfinished = CACHE / f"{folder.name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(folder)  # only what is whole has the name that is looked for
                remove_old()
    os.utime(folder)
    return folder


def remove_old() -> None:
    oldest = time.time() - KEPT_DAYS * 86400
    for path in CACHE.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another worker has finished or removed it since
            if path.name != "locks" and path.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)


def run(command: list, text: str | None = None) -> None:
    """Raises RuntimeError with the command's words where it fails."""
    done = subprocess.run(list(map(str, command)), input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr[:4000]}")


def compiled(source: Path, flags: list, headers: Iterable[Path], text: str | None = None) -> Path:
    """The object file of a C++ source, which g++ reads as `text` where that is given.

    Args:
        headers: all files that an #include may find, the system's apart.

    Raises:
        RuntimeError: with the compiler's words.
    """
    text = source.read_text() if text is None else text
    # From standard input: a changed text never lies beside the sources. #line: errors name the file.
    text = f'#line 1 "{source}"\n{text}'
    command = ["g++", *flags, f"-I{source.parent}", "-x", "c++", "-c", "-"]
    key = (command, text, *sorted(headers))
    folder = made(f"object-{source.name}", key, lambda place: run([*command, "-o", place / "object.o"], text))
    return folder / "object.o"


def program(name: str, jobs: list[tuple], flags: list[str]) -> Path:
    """The program that links the objects of several calls of `compiled`, given by their arguments."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(lambda job: compiled(*job), jobs))
    command = ["g++", "-pthread", *flags, *objects]
    key = (command, [path.parent.name for path in objects])
    return made(f"program-{name}", key, lambda place: run([*command, "-o", place / name])) / name
