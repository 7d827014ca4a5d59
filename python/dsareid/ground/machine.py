"""The processor: its name, its usable cores, work on threads, and processes that end with their parent."""

import contextlib
import ctypes
import functools
import multiprocessing
import os
import platform
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dsareid.ground.errors import logger

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 4  # items a thread that on_threads takes before the first of them is asked for
_LAUNCHER_POLL = 0.5  # seconds between two checks that the launcher is still there


def cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def leave_cores_to_others() -> None:
    """Compute on fewer threads if other processes take cores now, and say so.

    Call it before torch is loaded; OMP_NUM_THREADS is left alone if it is set. OpenMP's threads wait for each
    other many times in a step: if another process keeps one of them from its core, all wait for it.
    benchmarks/contention.py measures it.
    """
    if "OMP_NUM_THREADS" in os.environ or "torch" in sys.modules:
        return
    taken = cores_taken(0.2)
    threads = max(1, cores() - int(taken + 0.5))
    if threads < cores():
        os.environ["OMP_NUM_THREADS"] = str(threads)
        logger.info(
            f"other processes take {taken:.1f} of {cores()} cores: computing on {threads}, so that no thread "
            "waits for theirs (OMP_NUM_THREADS decides otherwise)"
        )


def keep_freed_memory() -> None:
    """Let the C library keep what is freed for what is allocated next, if it is glibc.

    By default it gives large blocks back to the system, which maps and clears every page of them again when
    the next step allocates them. The process stays as large as it ever was until it ends.
    MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ and GLIBC_TUNABLES are left alone if one is set.
    benchmarks/contention.py measures it.
    """
    own = {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"}
    if own & os.environ.keys() or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    trim_threshold, mmap_threshold, never = -1, -3, 1 << 30  # malloc.h; bytes that no block of ours has
    mallopt(trim_threshold, never)
    mallopt(mmap_threshold, never)


def cores_taken(seconds: float) -> float:
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
    work: Callable[[Item], Result], items: Iterable[Item], threads: int | None = None
) -> Iterator[Result]:
    """Yield work(item) for all items, in order, computed on `threads` threads; default: one a core.

    Only a few items are taken ahead of what the caller has asked for. An exception is raised in place of its
    item's result. Then, or if the caller stops iterating, items that have not begun are dropped, and running
    ones are waited for.
    """
    threads = threads or cores()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= _AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def one_thread_an_operation() -> Iterator[None]:
    """Compute torch's operations on one thread each, for work that runs on several threads itself."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
