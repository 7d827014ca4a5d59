"""The CUDA kernels against what one could use instead, on the GPU of this machine.

    python benchmarks/kernels.py [--rounds 50] [--batch 64] [--json FILE]

The warp, the assembly of a batch, the merging of parts (forward, and forward with backward) and the
counting of ranks, each at its typical size, against torch operators, torch.compile of them, and for the
warp a CuPy kernel. A peer that cannot run here (no Triton, no CuPy) is named with the reason. Every
peer's result is compared with ours before anything is timed (of the one that races, on a map without
collisions; resized images within a step of 1/255, as torch does not round between the passes).

Medians of paired runs, timed by events; the L2 cache is filled with other data before each, and
buffers rotate. Beside each time stand its ratio to ours, and how often it holds the time of moving
what must move at the speed of a measured copy (x floor).
"""

import argparse
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from contests.contest import SETS, Contest
from torch import Tensor

from dsa_ext.selftest import measure
from dsa_ext.selftest.operations import OPERATIONS


def verify(contest: Contest) -> None:
    for turn in range(SETS):
        expected = contest.work["dsa_ext"](turn)
        expected = expected.clone() if isinstance(expected, Tensor) else expected  # it may be reused
        for name, function in contest.work.items():
            if name == "torch index_put_ (racing)":
                continue  # was compared on a map without collisions
            try:
                contest.agree(function(turn), expected)
            except AssertionError as error:
                raise SystemExit(f"{contest.title}: {name} does not agree with dsa_ext: {error}") from error


def show(contest: Contest, seconds: dict[str, float], copy: float) -> dict:
    floor = contest.bytes / copy
    print(f"\n{contest.title}: {contest.bytes / 1e6:.1f} MB must move, floor {floor * 1e6:.1f} us")
    print(f"  {'':32s} {'us':>9s} {'against dsa_ext':>16s} {'x floor':>8s}")
    for name, time in sorted(seconds.items(), key=lambda item: -item[1]):
        print(
            f"  {name:32s} {time * 1e6:9.1f} {time / seconds['dsa_ext']:14.2f} x {time / floor:8.2f}",
            flush=True,
        )
    for name, reason in contest.missing.items():
        print(f"  {name:32s} not run: {reason}")
    return {
        "title": contest.title,
        "bytes": contest.bytes,
        "floor_seconds": floor,
        "seconds": seconds,
        "not_run": contest.missing,
    }


def contests(batch: int, device: str) -> Iterator[Contest]:
    """Those of every operation that has a file in benchmarks/contests."""
    for operation in OPERATIONS:
        if importlib.util.find_spec(f"contests.{operation.name}"):
            yield from importlib.import_module(f"contests.{operation.name}").contests(batch, device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each candidate")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE as well")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("kernels.py needs a CUDA device: torch.cuda.is_available() is False", file=sys.stderr)
        return 2
    properties = torch.cuda.get_device_properties(0)
    print(f"{properties.name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    copy = measure.copy_bandwidth()
    print(f"a copy of 1 GiB moves {copy / 1e9:,.0f} GB/s, read and written bytes counted")
    results = []
    for contest in contests(options.batch, "cuda"):
        verify(contest)
        results.append(show(contest, measure.cuda_medians(contest.work, options.rounds), copy))
    if options.json:
        document = {"device": properties.name, "torch": torch.__version__, "copy": copy, "results": results}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
