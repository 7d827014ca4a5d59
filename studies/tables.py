"""Tables of a study's finished runs, and their place in its page."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from dsareid.ground.files import atomic_path

Runs = dict[str, dict[int, dict]]  # arm -> seed -> what the run wrote
BEGIN, END = "<!-- made by run.py report -->", "<!-- end -->"


def write_into(page: Path, parts: Sequence[str]) -> None:
    """Put tables and the like into a page, between its two marks, and print them."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    made = "\n\n".join(parts)
    with atomic_path(page) as temporary:
        temporary.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")
    print(made)


def read_runs(folder: Path, arms: Iterable[str] | None = None) -> Runs:
    """The finished runs of each arm, by seed; arms in the given order, by default that of their names."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    names = dict.fromkeys(record["arm"] for record in records) if arms is None else arms
    runs = {arm: {r["seed"]: r for r in records if r["arm"] == arm} for arm in names}
    return {arm: seeds for arm, seeds in runs.items() if seeds}


def figures(runs: Runs, arm: str, features: str, measure: str = "mAP") -> dict[int, float]:
    """Per cent, by seed."""
    found = ((seed, run["features"].get(features)) for seed, run in sorted(runs.get(arm, {}).items()))
    return {seed: 100 * figure[measure] for seed, figure in found if figure}


def summary(runs: Runs) -> str:
    every = [run for seeds in runs.values() for run in seeds.values()]
    dates = sorted({run["date"] for run in every})
    machines = sorted({f"{run['machine']['cpu']}, torch {run['machine']['torch']}" for run in every})
    longest = max(run["cpu_seconds"] for run in every)
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return f"{len(every)} runs, {when}, {'; '.join(machines)}; the longest took {longest:.0f} s of a core."


def arms_table(runs: Runs) -> str:
    lines = [
        "| arm | data | mAP of f, each seed | f | z | d | rank-1 of f | norms of f, d | accuracy by f, z "
        "| core minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, seeds in runs.items():
        last = [run["last_epoch"] for run in seeds.values()]
        norms = [mean_of(last, name) for name in ("norm/f", "norm/d")]
        accuracy = [mean_of(last, name, 2) for name in ("accuracy/f", "accuracy/fused")]
        lines.append(
            "| "
            + " | ".join(
                [
                    arm,
                    next(iter(seeds.values()))["data"],
                    ", ".join(f"{x:.1f}" for x in figures(runs, arm, "mf").values()),
                    *(spread(list(figures(runs, arm, x).values())) for x in ("mf", "fused", "guide")),
                    spread(list(figures(runs, arm, "mf", "rank1").values())),
                    ", ".join(filter(None, norms)),
                    ", ".join(filter(None, accuracy)),
                    f"{statistics.mean(run['cpu_seconds'] for run in seeds.values()) / 60:.1f}",
                ]
            )
            + " |"
        )
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    if not values:
        return ""
    around = f" ±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{around}"


def mean_of(records: list[dict], name: str, digits: int = 1) -> str:
    values = [record[name] for record in records if name in record]
    return f"{statistics.mean(values):.{digits}f}" if values else ""
