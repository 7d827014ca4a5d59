"""Train in another checkout and in this one, in turns: what the commits between them did to training.

    python benchmarks/against.py TREE [--presets demo study] [--rounds 5]

TREE is a checkout of this repository, built in place (`python setup.py build_ext --inplace`). In each round
both run their own benchmarks/training.py on one synthetic data set, in a process each. The images a second
from the store count.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import made_data
from result import ROOT, Result, parser

from dsareid.engine.presets import PRESETS
from dsareid.ground.errors import DSAError


def speed(tree: Path, preset: str, data: Path, file: Path) -> float:
    """Images a second of training in a checkout, by its own benchmark.

    Raises:
        DSAError: it has no such benchmark, or that failed.
    """
    command = [sys.executable, "benchmarks/training.py", "--preset", preset, "--data", data, "--rounds", "3"]
    own = os.pathsep.join(map(str, (tree, tree / "python")))
    done = subprocess.run(
        [*command, "--json", file], cwd=tree, env=os.environ | {"PYTHONPATH": own}, capture_output=True
    )
    if done.returncode:
        raise DSAError(f"{tree}: benchmarks/training.py fails: {done.stderr.decode(errors='replace')[-300:]}")
    ((cells),) = json.loads(file.read_text())["tables"][0]["cases"].values()
    return cells["batches from the store"]["median"]


def commit_of(tree: Path) -> str:
    command = ["git", "log", "-1", "--format=commit %h of %cs"]
    try:
        return subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise DSAError(f"{tree}: not a checkout of this repository") from error


def main() -> None:
    options = parser(__doc__)
    options.add_argument("tree", type=Path, help="another checkout, built in place")
    options.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=["demo", "study"])
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    trees = {commit_of(tree): tree for tree in (arguments.tree.resolve(), ROOT)}
    before = next(iter(trees))
    if len(trees) < 2:
        raise DSAError(f"{arguments.tree}: is at {before} too; there is nothing to compare")
    with Result(arguments) as result, tempfile.TemporaryDirectory() as folder:
        data = made_data(Path(folder))
        for preset in arguments.presets:
            speeds: dict[str, list[float]] = {name: [] for name in trees}
            for _ in range(arguments.rounds):
                for name, tree in trees.items():
                    speeds[name].append(speed(tree, preset, data, Path(folder) / "training.json"))
            result.add("Training in two checkouts", preset, speeds, unit="images/s", against=before)


if __name__ == "__main__":
    try:
        main()
    except DSAError as error:
        sys.exit(f"against.py: {error}")
