"""Does this build compute what it should on this machine, and how fast?

    python -m dsa_ext.selftest [--device cuda|cpu] [--quick] [--json FILE]

Every operation and its gradients run over a table of cases: the CPU backend against the torch twins
and, where there is a GPU, the CUDA backend against the CPU backend, all bit for bit. On CUDA also streams,
devices, graph capture, tensors beyond 2^31 elements, and each operation's bandwidth beside that of a
measured copy. Needs torch alone. The exit code is 0 only if everything that ran passed.

--quick runs a part of the table and nothing else, for compute-sanitizer; --profile runs each operation
once at a typical size and checks nothing, for a profiler.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

import dsa_ext
from dsa_ext.selftest import measure
from dsa_ext.selftest.cuda import NotChecked, cuda_checks
from dsa_ext.selftest.operation import Case, Check, Typical, compare
from dsa_ext.selftest.operations import OPERATIONS
from dsa_ext.selftest.paths import paths, usual


@dataclass
class CheckGroup:
    """One line of the table: how many checks ran, what failed, what could not be checked."""

    name: str
    checks: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def line(self) -> str:
        if self.failures:
            result = f"{len(self.failures)} FAILED"
        elif self.notes:
            result = "ok; not checked: " if self.checks else "not checked: "
            result += "; ".join(self.notes)
        else:
            result = "ok"
        return f"  {self.name:52s} {self.checks:5d}  {result}"


def run_group(name: str, checks: Mapping[str, Check], device: str) -> CheckGroup:
    """Run checks. A check returns what is wrong, or None; an exception is a failure too."""
    group = CheckGroup(name)
    for label, check in checks.items():
        try:
            wrong = check(device)
        except NotChecked as reason:
            group.notes.append(f"{label} ({reason})")
            continue
        except Exception as error:  # whatever it is, the other checks must run
            wrong = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        group.checks += 1
        if wrong:
            group.failures.append(f"{name} [{label}]: {wrong}")
    return group


def table(quick: bool) -> dict[str, list[Case]]:
    """Groups of cases by title. The quick part still launches every path of every kernel."""
    groups = {name: cases for operation in OPERATIONS for name, cases in operation.cases().items()}
    if quick:
        return {name: cases[::5] for name, cases in groups.items()} | paths()
    return groups | usual() | paths()


def table_groups(device: str, quick: bool) -> Iterator[CheckGroup]:
    for name, cases in table(quick).items():
        checks = {case.label: partial(compare, case) for case in cases}
        if len(checks) < len(cases):
            raise ValueError(f"{name}: two cases have one label, and only one of them would run")
        yield run_group(name, checks, device)


def cuda_groups() -> Iterator[CheckGroup]:
    for name, checks in cuda_checks(OPERATIONS).items():
        yield run_group(name, checks, "cuda")


def typical(batch: int = 64) -> list[Typical]:
    """Every operation at the sizes at which it is timed."""
    return [row for operation in OPERATIONS for row in operation.typical(batch)]


def bandwidth(rounds: int) -> list[dict]:
    """Each operation at its typical size, beside the floor that the measured copy gives."""
    copy = measure.copy_bandwidth()
    rows: list[dict] = [
        {"name": "copy, 1 GiB", "seconds": None, "bytes_per_second": copy, "floor_seconds": None}
    ]
    for row in typical():
        run = row.prepare("cuda")
        runs = measure.cuda_runs({"": lambda _, run=run: run()}, rounds)[""]  # type: ignore[misc]
        seconds = statistics.median(runs)
        rows.append(
            {
                "name": row.name,
                "seconds": seconds,
                "bytes_per_second": row.bytes / seconds,
                "floor_seconds": row.bytes / copy,
            }
        )
    return rows


def bandwidth_lines(rows: Sequence[dict]) -> list[str]:
    copy = rows[0]["bytes_per_second"]
    lines = [
        f"\nbandwidth: a large copy moves {copy / 1e9:,.0f} GB/s (read + written)",
        f"  {'batch 64; medians, L2 emptied before each run':48s} {'us':>8s} {'floor us':>9s} "
        f"{'x floor':>8s} {'GB/s':>7s} {'of copy':>8s}",
    ]
    for row in rows[1:]:
        lines.append(
            f"  {row['name']:48s} {row['seconds'] * 1e6:8.1f} {row['floor_seconds'] * 1e6:9.1f} "
            f"{row['seconds'] / row['floor_seconds']:8.2f} {row['bytes_per_second'] / 1e9:7.0f} "
            f"{row['bytes_per_second'] / copy:8.0%}"
        )
    return lines


def describe() -> str:
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return f"torch {torch.__version__} ({cuda}), Python {platform.python_version()}, {platform.machine()}"


def describe_gpu() -> str:
    properties = torch.cuda.get_device_properties(0)
    return (
        f"GPU: {properties.name}, compute capability {properties.major}.{properties.minor}, "
        f"{properties.total_memory / 1e9:.0f} GB"
    )


def device_to_test(wanted: str | None) -> tuple[str, str | None]:
    """The device to test, and why it cannot be tested, or None."""
    if dsa_ext.CPU_ERROR:
        return "cpu", (
            f"there is nothing to check: {dsa_ext.CPU_ERROR}. Install a C++ compiler and rebuild: "
            "python setup.py build_ext --inplace"
        )
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        return "cuda", "no GPU was found: torch.cuda.is_available() is False"
    if wanted == "cpu" or not found:
        return "cpu", None
    if dsa_ext.CUDA_ERROR:
        return "cuda", (
            f"there is a GPU, but its kernels are missing: {dsa_ext.CUDA_ERROR}. Rebuild with the CUDA "
            "toolkit on this machine: DSA_CUDA=1 python setup.py build_ext --inplace, or make gpu"
        )
    return "cuda", None


def show(group: CheckGroup) -> CheckGroup:
    print(group.line(), flush=True)
    for failure in group.failures[:3]:
        print(f"      {failure}")
    return group


def check_all(device: str, quick: bool) -> Iterator[CheckGroup]:
    print(f"\n{'the CPU backend against the torch twins':54s} {'checks':5s} result")
    yield from map(show, table_groups("cpu", quick))
    if device == "cuda":
        print("\nthe CUDA backend against the CPU backend, bit for bit")
        yield from map(show, table_groups("cuda", quick))
        if not quick:
            print("\nCUDA alone")
            yield from map(show, cuda_groups())
    else:
        print(
            "\nThe CUDA backend was NOT checked: kernels, streams, graphs, tensors beyond 2^31 elements, "
            "bandwidth. " + ("" if torch.cuda.is_available() else "No GPU was found.")
        )


def profile(device: str) -> None:
    """Run each operation once, for a profiler."""
    for row in typical():
        row.prepare(device)()
        print(f"ran {row.name}", flush=True)
    if device == "cuda":
        torch.cuda.synchronize()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dsa_ext.selftest", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda if there is a GPU")
    parser.add_argument("--quick", action="store_true", help="a part of the table and nothing else")
    parser.add_argument("--profile", action="store_true", help="run each operation once, check nothing")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each operation")
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE as well")
    options = parser.parse_args(arguments)
    if options.json and not Path(options.json).resolve().parent.is_dir():
        parser.error(f"--json: there is no folder for {options.json}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")

    start = time.monotonic()
    print(f"dsa_ext self-test, {describe()}")
    device, problem = device_to_test(options.device)
    failures, groups, rows = [], [], []
    if problem:
        failures.append(problem)
    elif options.profile:
        profile(device)
        return 0
    else:
        print(describe_gpu() if device == "cuda" else "on the CPU")
        groups = list(check_all(device, options.quick))
        failures = [failure for group in groups for failure in group.failures]
        if device == "cuda" and not options.quick:
            try:
                rows = bandwidth(options.rounds)
                print("\n".join(bandwidth_lines(rows)))
            except Exception as error:
                failures.append(f"bandwidth: {type(error).__name__}: {error}")
    if options.json:
        result = {
            "passed": not failures,
            "device": describe_gpu() if device == "cuda" and not problem else device,
            "versions": describe(),
            "quick": options.quick,
            "groups": [vars(group) for group in groups],
            "failures": failures,
            "bandwidth": rows,
        }
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{sum(group.checks for group in groups)} checks in {time.monotonic() - start:.0f} s")
    if failures:
        print(f"self-test FAILED, {len(failures)} failures:")
        print("\n".join(f"  {failure}" for failure in failures[:50]))
        return 1
    print("self-test passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
