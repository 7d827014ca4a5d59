"""The processor: its name, its usable cores, work on threads, and processes that end with their parent."""

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

TAKEN = 0.5  # cores; if other processes use so many, training is slower
_LAUNCHER_POLL = 0.5  # seconds between two checks that the launcher is still there


def cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def yield_to_others() -> None:
    """Let OpenMP's threads hardly spin when they wait for each other, if other processes take cores now.

    Call it before torch is loaded. By default they spin for milliseconds, which is fastest on free cores; if
    another process takes a core, they keep another from the very thread that they wait for. Bits do not
    depend on it. OMP_WAIT_POLICY and GOMP_SPINCOUNT are left alone if they are set.
    benchmarks/contention.py measures it.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys() and cores_taken(0.1) >= TAKEN:
        os.environ["GOMP_SPINCOUNT"] = "300"


def cores_taken(seconds: float = 0.3) -> float:
    """How many of this process's cores other processes use while it sleeps; 0 if that cannot be told."""
    if cores() != os.cpu_count():  # the system tells it for all cores together
        return 0.0
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    if before is None or after is None or after[1] == before[1]:
        return 0.0
    return cores() * (after[0] - before[0]) / (after[1] - before[1])


def _ticks() -> tuple[int, int] | None:
    """Busy and all ticks of all cores since the system started; None without Linux's /proc."""
    try:
        user, nice, system, idle, iowait, *others = map(
            int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        )
    except (OSError, ValueError):
        return None
    busy = user + nice + system + sum(others)
    return busy, busy + idle + iowait


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
    """Yield work(item) for all items, in order, computed on `threads` threads; default: one a core.

    An exception is raised in place of its item's result. Then, or if the caller stops iterating, items that
    have not begun are dropped, and running ones are waited for.
    """
    with ThreadPoolExecutor(threads or cores()) as pool:
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """Make this process end when its parent ends or is killed: an initializer for workers.

    Without it a pool's worker waits for work for ever, because it holds both ends of the pool's pipe. If the
    parent has ended before this call, this process ends at once.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process was not started by multiprocessing")
    _end_after(parent.join)


@functools.cache  # one thread is enough, however often a group is joined
def end_with_launcher() -> None:
    """Make this process end when torchrun, its parent process, ends or is killed.

    If torchrun has ended before this call, the process that took over as the parent is watched instead.
    """
    launcher = os.getppid()

    def wait() -> None:
        while os.getppid() == launcher:
            time.sleep(_LAUNCHER_POLL)

    _end_after(wait)


def _end_after(wait: Callable[[], object]) -> None:
    """Call `wait` on another thread, and end this process without a word when it returns."""

    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()
