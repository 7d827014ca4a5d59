"""What every benchmark shares: paired timing, so that a noisy machine disturbs all alike."""

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

PEERS = Path(__file__).parent / "peers"


def paired_runs(
    work: dict[str, Callable[[int], object]], rounds: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of each function in each round; in a round every one runs once, one after the other.

    A function is called with the number of the round, to rotate its buffers by.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(-warm_up, rounds):
        for name, function in work.items():
            start = time.perf_counter()
            function(turn)
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def thread_runs(function: Callable[[int], object], rounds: int) -> dict[str, list[float]]:
    """Seconds on one thread and on two, in alternating blocks of ten runs.

    Blocks, because the first runs after a change of threads pay for waking them.
    """
    usual = torch.get_num_threads()
    seconds: dict[str, list[float]] = {"one thread": [], "two threads": []}
    for _ in range(max(1, rounds // 10)):
        for threads, times in enumerate(seconds.values(), 1):
            torch.set_num_threads(threads)
            for turn in range(-3, 10):
                start = time.perf_counter()
                function(turn)
                if turn >= 0:
                    times.append(time.perf_counter() - start)
    torch.set_num_threads(usual)
    return seconds


def process_memory(key: str) -> int:
    """Bytes of this process on Linux: VmRSS in memory, VmHWM its peak, RssAnon what is of no file.

    getrusage would not do: its peak begins with that of the process which started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"this system does not tell {key} in /proc/self/status")


def made_data(folder: Path, identities: int = 96, images: int = 10) -> Path:
    """A synthetic data set in `folder`/data, of 128x64 files; half of the identities train."""
    from dsareid.synth import SynthConfig, generate

    generate(folder / "data", SynthConfig(identities=identities, images=images))
    return folder / "data"


def compile_peer(source: str, *flags: str) -> ctypes.CDLL:
    """Build benchmarks/peers/<source> with g++ -O3 and load it."""
    with tempfile.TemporaryDirectory(prefix="dsa-peer-") as folder:  # what is loaded needs no file any more
        library = Path(folder) / "peer.so"
        command = ["g++", "-std=c++20", "-O3", *flags, "-shared", "-fPIC", str(PEERS / source)]
        subprocess.run([*command, "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))
