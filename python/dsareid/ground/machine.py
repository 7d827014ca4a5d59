"""The processor: what it is, how many of its cores there are to use, and worker processes."""

import functools
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_LAUNCHER_LOOKED_AT = 0.5  # seconds between looks at whether it is still there


def cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def on_threads(
    work: Callable[[Item], Result], items: Sequence[Item], threads: int | None = None
) -> Iterator[Result]:
    """The results of the work on all items, in order, on as many threads as there are cores.

    The first exception of the work is raised where its result stands. What has not begun by then, or when
    the caller stops asking, is dropped, and what has begun is waited for.
    """
    with ThreadPoolExecutor(threads or cores()) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Make this process end as soon as the one that started it has, even killed: an initializer for workers.

    A worker of a pool waits for work for ever otherwise, as it holds both ends of the pool's pipe. Where the
    parent has ended before this call, this process ends now.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process was not started by multiprocessing")
    _end_after(parent.join)


@functools.cache  # one thread is enough, however often a group is joined
def end_with_launcher() -> None:
    """The same for a process that torchrun has started, and that does not know it but as its parent.

    Where torchrun has ended before this call, its successor as the parent is taken for it.
    """
    launcher = os.getppid()

    def wait() -> None:
        while os.getppid() == launcher:
            time.sleep(_LAUNCHER_LOOKED_AT)

    _end_after(wait)


def _end_after(wait: Callable[[], object]) -> None:
    """Make this process end, without a word, when a function returns that another thread calls."""

    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
