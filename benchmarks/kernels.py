"""Run the CUDA kernels on this machine's GPU, against what one could use instead.

    python benchmarks/kernels.py [--rounds 50] [--batch 64]

The warp, the assembly of a batch, the merging of parts (forward, and forward with backward) and the
counting of ranks, each at its typical size, against torch operators, torch.compile of them, and for the
warp a CuPy kernel. A peer that cannot run here (no Triton, no CuPy) is named with the reason. Every
peer's result is compared with ours before anything is timed (of the one that races, on a map without
collisions; resized images within a step of 1/255, as torch does not round between the passes).

Runs are paired and timed by events; the L2 cache is filled with other data before each, and buffers rotate.
The floor is the time of moving what must move at the speed of a measured copy.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator

import torch
from contests.contest import SETS, Contest
from result import Result, parser
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


def report(result: Result, contest: Contest, seconds: dict[str, list[float]], copy: float) -> None:
    runs = seconds | {"floor": [contest.bytes / copy]}
    case = f"{contest.title}, {contest.bytes / 1e6:.1f} MB"
    result.add("Kernels", case, runs, unit="us", against="dsa_ext")
    for name, reason in contest.missing.items():
        result.note(f"{contest.title}, {name}: not run, {reason}.")


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
        for contest in contests(arguments.batch, "cuda"):
            verify(contest)
            report(result, contest, measure.cuda_runs(contest.work, arguments.rounds), copy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
