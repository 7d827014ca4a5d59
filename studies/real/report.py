"""The study's page: tables of each stage's finished runs."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from studies.real import cost
from studies.real.bodies import draw
from studies.real.contrasts import Contrast, contrast, verdicts
from studies.real.sides import ANGLES
from studies.real.stages import COSTS, FORMS, STAGES, best_form
from studies.real.where import table
from studies.tables import Runs, arms_table, figures, read_runs, spread, summary, write_into

MAPS = "BodyPix maps, never DensePose's; crops of 64x128 as a third party resized them"
HEAD = f"*{MAPS}; MobileNetV2 at 128x64. Not comparable with the paper's tables.*"
TUNING_TEST = "The tuning test: 100 people held out of CUHK03's training set, every image a query."
COLOURS = (
    "No network: people are ranked by the mean colours of regions (`colours.py`). CUHK03's and CUHK01's "
    "training people, and all of PKU-Reid's part; every image is a query against the other camera's. The "
    "mask is what helps; every finer division of the body loses, as two views share less of it."
)
COST_TEXT = (
    "Training steps of 48 images on the tuning people, data loading included, by CPU time on one core, in "
    "turns: {measured}, {date}, {machine[cpu]}, torch {machine[torch]}. Memory is a step's peak without "
    "data, Python and its libraries (`cost.py`)."
)
LADDER = ("patches", "masked-patches", "csa", "dsap")
STEPS = {
    "what the mask is worth": ("masked-patches", "patches"),
    "what the parts are worth": ("csa", "masked-patches"),
    "what the alignment inside them is worth": ("dsap", "csa"),
    "what there is to hand over": ("dsap", "masked-patches"),
}
FUSED = ("add", "gate")
WHERE = "where.png"
TITLES = {
    "guides": "The guide alone",
    "ceiling": "The ceiling",
    "tuning": "The trials of each form",
    "recipe": "The recipe",
}


def write(results: Path, stages: Iterable[str]) -> None:
    """Put the tables of all stages into results/README.md, between its two marks."""
    runs = {stage: read_runs(results / stage) for stage in stages}
    parts = []
    if (colours := results / "colours.json").exists():
        parts += ["## Colours alone", f"*{MAPS}.*", COLOURS, _colours(json.loads(colours.read_text()))]
    if runs["counted"]:
        parts += [
            "## What the guide is worth",
            HEAD,
            *counted_parts(results, runs["counted"], runs["confirmed"]),
        ]
    if (costs := results / COSTS).exists():
        found = json.loads(costs.read_text())
        parts += ["## What a step costs", HEAD, COST_TEXT.format(**found), cost.table(found)]
    for stage, title in TITLES.items():
        if runs[stage]:
            parts += [f"## {title}", HEAD, f"{TUNING_TEST} {summary(runs[stage])}", arms_table(runs[stage])]
        if stage == "ceiling" and runs[stage]:
            parts.append(_ladder(runs[stage]))
    write_into(results / "README.md", parts)


def counted_parts(results: Path, counted: Runs, confirmed: Runs) -> list[str]:
    """Tables of the counted runs, and the figure of where they help."""
    check_alike(counted)
    form = best_form()
    control = FORMS[form]
    primary = [(form, "two-branch-long"), (form, control)]
    others = [(form, "two-branch"), *((x, "two-branch") for x in FORMS if x != form)]
    others += [(x, FORMS[x]) for x in FORMS if x != form]
    others += [("pool", "pool-stripes"), ("texture", "texture-pictures"), ("two-branch-long", "two-branch")]
    found = [_contrast(counted, *pair) for pair in (*primary, *others)]
    # Holm's rule is for both primary contrasts, and the plan for all seeds.
    seeds = len(STAGES["counted"].seeds)
    finished = [one for one in found[:2] if one and len(one.differences) == seeds]
    said = (
        verdicts(finished) if len(finished) == 2 else {one.name: "not finished" for one in found[:2] if one}
    )
    lines = ["| difference, mAP of f | each seed | mean | p, seeds | p, people | 90 % | CUHK01 | |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for (more, less), one in zip((*primary, *others), found):
        if one is None:
            continue
        each = ", ".join(f"{x:+.1f}" for x in one.differences)
        low, high = one.within
        ps = f"{one.seeds:.4f} | {one.people:.4f} | {low:+.1f} to {high:+.1f}"
        sign = _on_cuhk01(confirmed, more, less, one.mean)
        verdict = said.get(one.name, "exploratory")
        lines.append(f"| {one.name} | {each} | {one.mean:+.1f} | {ps} | {sign} | {verdict} |")
    parts = [f"CUHK03, detected, 767/700. {summary(counted)}", arms_table(counted), "\n".join(lines)]
    if confirmed:
        parts += [f"CUHK01, 485-sK. {summary(confirmed)}", arms_table(confirmed)]
    facts_of = json.loads((results / "where.json").read_text())
    base = "two-branch-long"
    if base in counted:
        shown = _mean_of_seeds(counted, [base, *(arm for arm in counted if arm != base)])
        parts.append(table(facts_of, shown, base))
        drawn = {arm: shown[arm] for arm in (base, form, control) if arm in shown}
        if len(drawn) > 1:
            draw(facts_of, drawn, base, results / WHERE)
            parts.append(f"![Where it helps]({WHERE})")
    return [*parts, _further(counted)]


def ap_of(run: Mapping) -> np.ndarray:
    """The average precision of each query by f."""
    return np.array([float(ap) for ap in run["queries"]["mf"].split()])


def _mean_of_seeds(runs: Runs, arms: Iterable[str]) -> dict[str, np.ndarray]:
    """Each query's average precision, the mean over the seeds that all these arms have."""
    arms = list(arms)
    common = sorted(set.intersection(*(set(runs[arm]) for arm in arms)))
    return {arm: np.mean([ap_of(runs[arm][seed]) for seed in common], 0) for arm in arms if common}


def check_alike(runs: Runs) -> None:
    """Raise ValueError if runs of one arm have other settings, or any two runs other queries."""
    asked = {run["queries"]["people"] for seeds in runs.values() for run in seeds.values()}
    if len(asked) > 1:
        raise ValueError(f"counted runs have {len(asked)} different lists of queries")
    for arm, seeds in runs.items():
        if len({json.dumps(run["changes"], sort_keys=True) for run in seeds.values()}) > 1:
            raise ValueError(f"{arm}: its seeds have other settings than each other")


def _contrast(runs: Runs, more: str, less: str) -> Contrast | None:
    """Two arms over the seeds that both have; None if these are fewer than two."""
    seeds = sorted(runs.get(more, {}).keys() & runs.get(less, {}).keys())
    if len(seeds) < 2:
        return None
    people = np.array([int(x) for x in runs[more][seeds[0]]["queries"]["people"].split()])
    arms = ([ap_of(runs[arm][seed]) for seed in seeds] for arm in (more, less))
    return contrast(f"{more} - {less}", *arms, people)


def _on_cuhk01(runs: Runs, more: str, less: str, mean: float) -> str:
    """The mean difference over CUHK01's splits, and whether it has the sign of CUHK03's."""
    a, b = (figures(runs, arm, "mf") for arm in (more, less))
    found = [a[seed] - b[seed] for seed in a if seed in b]
    if not found:
        return ""
    splits, there = len(STAGES["confirmed"].seeds), statistics.mean(found)
    if len(found) < splits:
        return f"{there:+.1f}, {len(found)} of {splits} splits"
    return f"{there:+.1f}, {'the same' if there * mean > 0 else 'another'} sign"


def _further(runs: Runs) -> str:
    """Matching across sides, and what f knows of colours."""
    lines = ["| arm | PKU-Reid: same side | adjacent | opposite | colours explained by f |"]
    lines.append("|---|---|---|---|---|")
    for arm, seeds in runs.items():
        sides = [spread([100 * run["sides"][x] for run in seeds.values()]) for x in ANGLES]
        colours = statistics.mean(run["colours"] for run in seeds.values())
        lines.append(f"| {arm} | {' | '.join(sides)} | {colours:.3f} |")
    return "\n".join(lines)


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
        for form in FUSED:
            cells = []
            for features in ("fused", "mf"):
                a, b = (figures(runs, f"{form}-{fed}", features) for fed in (more, less))
                steps = [a[seed] - b[seed] for seed in a if seed in b]
                mean = f"{statistics.mean(steps):+.1f}" if steps else ""
                cells += [", ".join(f"{x:+.1f}" for x in steps), mean]
            if any(cells):
                lines.append(f"| {step} | {form} | {' | '.join(cells)} |")
    lines += [
        "",
        "| guided, mAP | f - two-branch | z - two-branch | share handed over |",
        "|---|---|---|---|",
    ]
    alone = figures(runs, "two-branch", "mf")
    for form in FUSED:
        for fed in LADDER:
            f, z = (figures(runs, f"{form}-{fed}", x) for x in ("mf", "fused"))
            gains = [[x[seed] - alone[seed] for seed in x if seed in alone] for x in (f, z)]
            if not all(gains):
                continue
            lead = statistics.mean(gains[1])
            share = statistics.mean(gains[0]) / lead if lead >= 1 else None  # of less it says nothing
            cells = [*(spread(x) for x in gains), f"{share:.2f}" if share is not None else "-"]
            lines.append(f"| {form}-{fed} | {' | '.join(cells)} |")
    return "\n".join(lines)
