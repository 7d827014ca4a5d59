"""Run the CUDA kernels on this machine's GPU, against what one could use instead.

    python benchmarks/kernels.py [--rounds 50] [--batch 64]

The warp, the assembly of a batch, the merging of parts (forward, and forward with backward) and the
counting of ranks, each at its typical size, against torch operators, torch.compile of them, and for the
warp kernels that one writes in an hour (Triton, CuPy) and part images that were made before and are only
gathered. A peer that cannot run here (no Triton, no CuPy) is named with the reason. Every peer's result is
compared with ours before it is timed (of those that race or take means, on a map without collisions; resized
images within a step of 1/255, as torch does not round between the passes). One that differs is named and not
timed, and the exit code is 1.

Runs are paired and timed by events; the L2 cache is filled with other data before each, and buffers rotate.
The floor is the time of moving what must move at the speed of a measured copy.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator

import torch
from contests.contest import Contest, verified
from result import Result, parser

from dsa_ext.selftest import measure
from dsa_ext.selftest.operations import OPERATIONS


def report(result: Result, contest: Contest, seconds: dict[str, list[float]], copy: float) -> None:
    runs = seconds | {"floor": [contest.bytes / copy]}
    case = f"{contest.title}, {contest.bytes / 1e6:.1f} MB"
    result.add("Kernels", case, runs, unit="us", against="dsa_ext")


def contests(batch: int, device: str) -> Iterator[Contest]:
    """Those of every operation that has a file in benchmarks/contests."""
    for operation in OPERATIONS:
        if importlib.util.find_spec(f"contests.{operation.name}"):
            yield from importlib.import_module(f"contests.{operation.name}").contests(batch, device)


def main() -> int:
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=50, help="timed runs of each candidate")
    options.add_argument("--batch", type=int, default=64)
    arguments = options.parse_args()
    if not torch.cuda.is_available():
        print("kernels.py needs a CUDA device: torch.cuda.is_available() is False", file=sys.stderr)
        return 2
    with Result(arguments) as result:
        copy = measure.copy_bandwidth()
        result.note(f"A copy of 1 GiB moves {copy / 1e9:,.0f} GB/s, read and written bytes counted.")
        wrong = {}
        for contest in contests(arguments.batch, "cuda"):
            work, missing, differing = verified(contest)
            report(result, contest, measure.cuda_runs(work, arguments.rounds), copy)
            for name, reason in missing.items():
                result.note(f"{contest.title}, {name}: not run, {reason}.")
            for name, difference in differing.items():
                result.note(f"{contest.title}, {name}: not timed, its result is another one: {difference}")
            wrong |= differing
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
