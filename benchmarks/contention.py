"""Train alone and while another process takes a core, by how threads wait and where freed memory goes.

    python benchmarks/contention.py [--rounds 3]

The demo preset on all cores, one cached batch, in a process for each run. libgomp's default lets a
waiting thread spin for milliseconds; with GOMP_SPINCOUNT=300 hardly, `passive` not at all. If other
processes take cores when it starts, `dsareid` computes on as many threads less, here one, unless
OMP_NUM_THREADS is set. "freed memory given back" is glibc's default, which `dsareid` changes: each step's
memory is mapped anew. The other process computes without end on one core.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import made_data
from result import Result, parser

WAYS = {
    "libgomp's default": {},
    "GOMP_SPINCOUNT=300": {"GOMP_SPINCOUNT": "300"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "freed memory given back": {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"},  # set, so left alone
}
CASES = ("nothing else runs", "another process takes a core")


@contextmanager
def a_core_taken(taken: bool) -> Iterator[None]:
    if not taken:
        yield
        return
    core = str(min(os.sched_getaffinity(0)))
    other = subprocess.Popen(["taskset", "-c", core, sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        other.kill()
        other.wait()


def speed(data: Path, environment: dict[str, str], file: Path) -> float:
    """Images a second of a short training in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("training.py")), "--data", str(data)]
    usual = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    subprocess.run(
        [*command, "--rounds", "2", "--json", str(file)],
        env=usual | environment,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (cells,) = json.loads(file.read_text())["tables"][0]["cases"].values()
    return cells["one cached batch"]["median"]


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    with Result(arguments) as result, tempfile.TemporaryDirectory() as folder:
        data, file = made_data(Path(folder)), Path(folder, "found.json")
        for case in CASES:
            found: dict[str, list[float]] = {name: [] for name in WAYS}
            with a_core_taken(case != CASES[0]):
                for _ in range(arguments.rounds):
                    for name, environment in WAYS.items():
                        found[name].append(speed(data, environment, file))
            result.add("Training", case, found, unit="images/s", against="libgomp's default")
