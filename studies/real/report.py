"""The study's page: tables of each stage's finished runs."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

from studies.tables import Runs, arms_table, figures, read_runs, spread, summary, write_into

MAPS = "BodyPix maps, never DensePose's; crops of 64x128 as a third party resized them"
HEAD = f"*{MAPS}; MobileNetV2 at 128x64. Not comparable with the paper's tables.*"
TUNING_TEST = "The tuning test: 100 people held out of CUHK03's training set, every image a query."
COLOURS = (
    "No network: people are ranked by the mean colours of regions (`colours.py`). CUHK03's and CUHK01's "
    "training people, and all of PKU-Reid's part; every image is a query against the other camera's. The "
    "mask is what helps; every finer division of the body loses, as two views share less of it."
)
LADDER = ("patches", "masked-patches", "csa", "dsap")
STEPS = {
    "what the mask is worth": ("masked-patches", "patches"),
    "what the parts are worth": ("csa", "masked-patches"),
    "what the alignment inside them is worth": ("dsap", "csa"),
    "what there is to hand over": ("dsap", "masked-patches"),
}
FORMS = ("add", "gate")
TITLES = {
    "guides": "The guide alone",
    "ceiling": "The ceiling",
    "tuning": "The trials of each form",
    "recipe": "The recipe",
}


def write(results: Path, stages: Mapping[str, Iterable[str]]) -> None:
    """Put the tables of all stages into results/README.md, between its two marks."""
    runs = {stage: read_runs(results / stage, arms) for stage, arms in stages.items()}
    parts = []
    if (colours := results / "colours.json").exists():
        parts += ["## Colours alone", f"*{MAPS}.*", COLOURS, _colours(json.loads(colours.read_text()))]
    for stage, title in TITLES.items():
        if runs.get(stage):
            parts += [f"## {title}", HEAD, f"{TUNING_TEST} {summary(runs[stage])}", arms_table(runs[stage])]
        if stage == "ceiling" and runs.get(stage):
            parts.append(_ladder(runs[stage]))
    write_into(results / "README.md", parts)


def _colours(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    titles = {"cuhk03": "CUHK03", "cuhk01": "CUHK01", "pku": "PKU-Reid"}
    lines = [
        "| mean colours of | " + " | ".join(f"{titles[name]}, mAP | rank-1" for name in found) + " |",
        "|---|" + "---|---|" * len(found),
    ]
    for row in next(iter(found.values())):
        cells = [f"{100 * data[row][x]:.1f}" for data in found.values() for x in ("mAP", "rank1")]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _ladder(runs: Runs) -> str:
    """What each step of the ladder adds to z and to f, and how much of z's lead f has."""
    lines = ["| step, mAP | form | z, each seed | z | f, each seed | f |", "|---|---|---|---|---|---|"]
    for step, (more, less) in STEPS.items():
        for form in FORMS:
            cells = []
            for features in ("fused", "mf"):
                a, b = (figures(runs, f"{form}-{fed}", features) for fed in (more, less))
                steps = [a[seed] - b[seed] for seed in a if seed in b]
                mean = f"{statistics.mean(steps):+.1f}" if steps else ""
                cells += [", ".join(f"{x:+.1f}" for x in steps), mean]
            lines.append(f"| {step} | {form} | {' | '.join(cells)} |")
    lines += [
        "",
        "| guided, mAP | f - two-branch | z - two-branch | share handed over |",
        "|---|---|---|---|",
    ]
    alone = figures(runs, "two-branch", "mf")
    for form in FORMS:
        for fed in LADDER:
            f, z = (figures(runs, f"{form}-{fed}", x) for x in ("mf", "fused"))
            gains = [[x[seed] - alone[seed] for seed in x if seed in alone] for x in (f, z)]
            if not all(gains):
                continue
            share = (
                statistics.mean(gains[0]) / statistics.mean(gains[1])
                if statistics.mean(gains[1]) > 0
                else None
            )
            cells = [*(spread(x) for x in gains), f"{share:.2f}" if share is not None else "-"]
            lines.append(f"| {form}-{fed} | {' | '.join(cells)} |")
    return "\n".join(lines)
