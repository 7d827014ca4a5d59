"""What a benchmark found: printed case by case, and written as JSON with machine, commit and date.

    with Result(parser(__doc__).parse_args()) as result:
        result.add("the warp", "15 % foreground", {"ours": [...], "peer": [...]}, unit="ms", against="peer")

It imports nothing but torch and the library's own files: a machine with a GPU may have no more.
"""

import argparse
import dataclasses
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dsareid.ground.files import atomic_path, check_writable
from dsareid.ground.machine import cores, processor

ROOT = Path(__file__).parents[1]
SECONDS = {"s": 1.0, "ms": 1e3, "us": 1e6}  # how many of the unit are a second


@dataclass
class Cell:
    """The runs of one candidate in one case, in the table's unit.

    Attributes:
        median: of the runs.
        low, high: the quartiles: half of the runs lie between them.
        runs: how many.
        ratio: median of this candidate over that of the table's `against`, by rounds where both ran in each.
    """

    median: float
    low: float
    high: float
    runs: int
    ratio: float | None = None

    @property
    def spread(self) -> float:
        """Half of the distance between the quartiles, as a share of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@dataclass
class Table:
    """Candidates that do the same work, in several cases.

    Attributes:
        unit: "s", "ms" or "us" for times, and anything else for what is not a time.
        against: the candidate that the ratios refer to; None: no ratios.
        cases: for each case the candidates' cells.
    """

    title: str
    unit: str
    against: str | None
    cases: dict[str, dict[str, Cell]] = field(default_factory=dict)


def parser(doc: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes: --json FILE."""
    made = argparse.ArgumentParser(description=doc.splitlines()[0])
    made.add_argument("--json", type=Path, metavar="FILE", help="write the result to FILE as well")
    return made


class Result:
    """The result of one run of a benchmark; a context that writes `--json`'s file if nothing failed.

    Until then NAME-unfinished.json beside it has the cases that are done, for a run that is cut off.

    Args:
        arguments: as parsed; its `json` is the file or None.

    Raises:
        DSAError: the file cannot be written. This is found before anything is measured.
    """

    def __init__(self, arguments: argparse.Namespace):
        self.file = arguments.json
        if self.file:
            check_writable(self.file)
        self.tables: dict[str, Table] = {}
        self.notes: list[str] = []
        self.machine, self.commit = _machine(), _commit()
        print(f"{self.machine}\n")

    def __enter__(self) -> "Result":
        return self

    def __exit__(self, kind: type | None, *details: object) -> None:
        if kind is None and self.file:
            self._write(self.file)
            self._unfinished.unlink(missing_ok=True)

    def add(
        self,
        table: str,
        case: str,
        runs: Mapping[str, Sequence[float]],
        unit: str = "ms",
        against: str | None = None,
    ) -> dict[str, Cell]:
        """Add a case to a table, which begins with its first one, print it, and return its cells.

        Args:
            runs: for each candidate what its runs gave: seconds where the unit is one of time.
        """
        own = self.tables.setdefault(table, Table(table, unit, against))
        if (own.unit, own.against) != (unit, against):
            raise ValueError(f"{table} is in {own.unit} against {own.against}, not {unit} against {against}")
        own.cases[case] = cells = {
            name: _cell([x * SECONDS.get(unit, 1) for x in found], _ratio(found, runs.get(against)))
            for name, found in runs.items()
        }
        _print_case(own, case)
        if self.file:
            self._write(self._unfinished)
        return cells

    def note(self, text: str) -> None:
        """Print a line that a reader of the figures should see, and keep it with them."""
        print(text, flush=True)
        self.notes.append(text)

    @property
    def _unfinished(self) -> Path:
        return self.file.with_name(f"{self.file.stem}-unfinished.json")

    def _write(self, file: Path) -> None:
        with atomic_path(file) as path:
            path.write_text(json.dumps(self.document(), indent=1) + "\n")

    def document(self) -> dict:
        """All of it, as it is written."""
        return {
            "command": _command(),
            "machine": self.machine,
            "commit": self.commit,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "notes": self.notes,
            "tables": [dataclasses.asdict(table) for table in self.tables.values()],
        }


def number(value: float) -> str:
    """Three digits, or all those before the point."""
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _cell(runs: list[float], ratio: float | None) -> Cell:
    if len(runs) == 1:
        return Cell(runs[0], runs[0], runs[0], 1, ratio)
    low, median, high = statistics.quantiles(runs, n=4, method="inclusive")
    return Cell(median, low, high, len(runs), ratio)


def _ratio(runs: Sequence[float], base: Sequence[float] | None) -> float | None:
    if base is None:
        return None
    if len(runs) == len(base):
        return statistics.median(own / other for own, other in zip(runs, base))
    return statistics.median(runs) / statistics.median(base)


def _print_case(table: Table, case: str) -> None:
    against = f"   against {table.against}" if table.against else ""
    print(f"{table.title}, {case}".ljust(60) + f"{table.unit:>10s}   spread{against}")
    for name, cell in table.cases[case].items():
        spread = f"±{cell.spread:.0%}" if cell.runs > 1 else ""
        ratio = f"{cell.ratio:10.2f} x" if cell.ratio is not None else ""
        print(f"  {name:58s}{number(cell.median):>10s}   {spread:>6s}{ratio}")
    print(flush=True)


def _machine() -> str:
    """The processor, or the GPU where there is one, and the versions of what computes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{processor()}, {cores()} cores, {memory:.0f} GiB"]
    if torch.cuda.is_available():
        parts.append(f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}")
    return ", ".join([*parts, f"torch {torch.__version__}", f"Python {platform.python_version()}"])


def _command() -> str:
    """What was typed, without --json."""
    words = [word for word in sys.argv[1:] if not word.startswith("--json=")]
    if "--json" in words:
        at = words.index("--json")
        del words[at : at + 2]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])


def _commit() -> str | None:
    """The commit that was measured, with a + behind it where the code had been changed; None: not known."""
    code = ["csrc", "dsa_ext", "python", "benchmarks/*.py", "benchmarks/contests", "benchmarks/peers"]
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.strip()
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], cwd=ROOT).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+" if changed else head
