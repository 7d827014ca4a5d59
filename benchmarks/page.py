"""Write docs/performance.md from benchmarks/results/*.json, which the benchmarks' --json leaves.

python benchmarks/page.py
"""

import ast
import json
from pathlib import Path

from result import Cell, Table, number

from dsareid.ground.files import atomic_path

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE.parent / "docs/performance.md"
SECTIONS = {
    "loader": "To a ready batch",
    "batch": "Assembling a batch",
    "micro": "Small pieces of the data path",
    "training": "What data costs training",
    "step": "A training step's parts",
    "against": "Training at two commits",
    "contention": "Training beside other work",
    "warp": "The warp",
    "merge": "Merging parts",
    "trunk": "MobileNetV2 as a trunk",
    "dsag": "The DSAG-Stream",
    "rank": "mAP and CMC",
    "gallery": "Large galleries",
    "growing": "Galleries that grow",
    "export": "Exported networks",
    "densepose": "DensePose's files",
    "estimate": "Maps from pictures alone",
    "rcnn": "Maps by a model of DensePose",
    "card": "Training on a GPU",
    "kernels": "CUDA kernels",
    "roofline": "CUDA kernels, predicted",
}
PICTURES = {"loader": "![Images a second to a ready batch](loader.png)"}
HEAD = """# How fast

Each section is one program in `benchmarks/`, with the command that printed its figures. Rivals are the
strongest that were found, results are compared for equality before anything is timed, and candidates run in
turns, so that a noisy machine disturbs all alike. Rows in which a rival wins are here too.

A cell has the median, half of the distance between the quartiles (±), and the ratio (x) to the candidate that
the line above the table names. These machines are noisy: read the ratios.

`make bench` measures all of it, half an hour on two cores, and writes this page for your machine.
"""


def page() -> str:
    """The text of docs/performance.md."""
    parts = [HEAD]
    for name, title in SECTIONS.items():
        file = RESULTS / f"{name}.json"
        if file.exists():
            parts.append(section(name, json.loads(file.read_text())))
        else:
            parts.append(f"## {title}\n\n{about(name)}\n\n**Nobody has run this yet.**\n")
    return "\n".join(parts)


def about(name: str) -> str:
    """The docstring of a benchmark."""
    return ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text())) or ""


def section(name: str, result: dict) -> str:
    """One benchmark: what it does, where and when it ran, its tables and notes."""
    ran = f"`{result['command']}`, commit {result['commit']}, {result['date']}: {result['machine']}."
    lines = [f"## {SECTIONS[name]}", about(name), f"*Ran* {ran}"]
    lines += [PICTURES[name]] if name in PICTURES else []
    for found in result["tables"]:
        cases = {
            case: {name: Cell(**cell) for name, cell in cells.items()}
            for case, cells in found["cases"].items()
        }
        lines += table(Table(**{**found, "cases": cases}))
    if result["notes"]:
        lines.append("\n".join(f"- {note}" for note in result["notes"]))
    return "\n\n".join(lines) + "\n"


def table(found: Table) -> list[str]:
    """Caption and rows; whatever there is more of, cases or candidates, goes down."""
    cases = list(found.cases)
    names = list(dict.fromkeys(name for cells in found.cases.values() for name in cells))
    against = f"; x: times that of {found.against}" if found.against else ""
    caption = f"**{found.title}**, {found.unit}{against}"

    def cell(case: str, name: str) -> str:
        own = found.cases[case].get(name)
        return text(own, name == found.against) if own else ""

    if len(cases) > len(names):
        rows = [["", *names], *([case, *(cell(case, name) for name in names)] for case in cases)]
    else:
        rows = [["", *cases], *([name, *(cell(case, name) for case in cases)] for name in names)]
    rule = ["---", *["--:"] * (len(rows[0]) - 1)]
    return [caption, "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))]


def text(cell: Cell, base: bool) -> str:
    spread = f" ±{100 * cell.spread:.0f} %" if cell.runs > 1 else ""
    ratio = f", {cell.ratio:.2f} x" if cell.ratio is not None and not base else ""
    return f"{number(cell.median)}{spread}{ratio}"


if __name__ == "__main__":
    with atomic_path(PAGE) as path:
        path.write_text(page())
