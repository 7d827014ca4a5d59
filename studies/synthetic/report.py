"""Tables and curves of the study, from the runs that are finished, into its page."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dsareid.ground.files import atomic_path
from dsareid.report.plots import COLOURS
from studies.tables import Runs, arms_table, figures, read_runs, summary, write_into

PAGE, CURVES = "README.md", "curves.png"
T_OF_TWO = 4.303  # 95 % of Student's t with two degrees of freedom, three seeds


@dataclass(frozen=True)
class Difference:
    """What a question comes to: arms and what they are matched by, added and taken away."""

    question: str
    plus: tuple[tuple[str, str], ...]
    minus: tuple[tuple[str, str], ...]


def _f(*arms: str) -> tuple[tuple[str, str], ...]:
    return tuple((arm, "mf") for arm in arms)


DIFFERENCES = (
    Difference("1. DSA - two-branch, f", _f("dsa"), _f("two-branch")),
    Difference("beyond the plan. DSA: z - f", (("dsa", "fused"),), _f("dsa")),
    Difference("2. DSA - CSA, f", _f("dsa"), _f("csa")),
    Difference("3. two-branch - baseline, f", _f("two-branch"), _f("baseline")),
    Difference("4. DSA: exact - mild, f", _f("dsa-exact"), _f("dsa")),
    Difference("4. DSA: strong - mild, f", _f("dsa-strong"), _f("dsa")),
    Difference("5. aligned boxes: DSA - two-branch, f", _f("dsa-aligned"), _f("two-branch-aligned")),
    Difference(
        "5. what DSA adds: misaligned - aligned, f",
        _f("dsa", "two-branch-aligned"),
        _f("two-branch", "dsa-aligned"),
    ),
    Difference("6. distilled - two-branch, f", _f("distilled"), _f("two-branch")),
    Difference("6. distilled - distilled from patches, f", _f("distilled"), _f("distilled-patches")),
    Difference("7. exact, nothing dropped: DSA - two-branch, f", _f("dsa-exact-kept"), _f("two-branch")),
    Difference(
        "7. exact, nothing dropped: distilled - two-branch, f", _f("distilled-exact-kept"), _f("two-branch")
    ),
    Difference(
        "beyond the plan. nothing dropped: distilled, exact - distilled from patches, f",
        _f("distilled-exact-kept"),
        _f("patches-kept"),
    ),
)


def write(results: Path, arms: Iterable[str]) -> None:
    """Put tables into results/README.md, between its two marks, and draw results/curves.png."""
    runs = read_runs(results / "runs", arms)
    parts = [summary(runs), arms_table(runs), _differences(runs), f"![Curves]({CURVES})"]
    write_into(results / PAGE, parts)
    _draw(runs, results / CURVES)


def difference(runs: Runs, asked: Difference) -> dict[int, float]:
    """By seed, of the seeds that all its arms have."""
    signed = [(1, figures(runs, *x)) for x in asked.plus] + [(-1, figures(runs, *x)) for x in asked.minus]
    seeds = set.intersection(*(set(found) for _, found in signed))
    return {seed: sum(sign * found[seed] for sign, found in signed) for seed in sorted(seeds)}


def interval(values: list[float]) -> tuple[float, float] | None:
    """Student's 95 % interval of the mean; None unless there are three values."""
    if len(values) != 3:
        return None
    half = T_OF_TWO * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values) - half, statistics.mean(values) + half


def _differences(runs: Runs) -> str:
    lines = ["| question, mAP | each seed | mean | spread | 95 % interval | |", "|---|---|---|---|---|---|"]
    for asked in DIFFERENCES:
        values = list(difference(runs, asked).values())
        if not values:
            continue
        each = ", ".join(f"{x:+.1f}" for x in values)
        limits = interval(values)
        words, verdict = "", "not finished"
        if limits:
            words = f"{limits[0]:+.1f} to {limits[1]:+.1f}"
            verdict = "undecided" if limits[0] <= 0 <= limits[1] else ("more" if limits[0] > 0 else "less")
        spread = f"{statistics.stdev(values):.1f}" if len(values) > 1 else ""
        mean = f"{statistics.mean(values):+.1f}"
        lines.append(f"| {asked.question} | {each} | {mean} | {spread} | {words} | {verdict} |")
    return "\n".join([*lines, "", f"{len(lines) - 2} intervals, without correction for their number."])


def _draw(runs: Runs, path: Path) -> None:
    """DSA over the faults of the IUV maps, and both methods on aligned and misaligned boxes."""
    figure = Figure(figsize=(9, 3.8), layout="constrained", dpi=140)
    FigureCanvasAgg(figure)
    faults, boxes = figure.subplots(1, 2, sharey=True)
    arms = {"exact": "dsa-exact", "mild": "dsa", "strong": "dsa-strong"}
    _line(faults, runs, arms, "fused", "DSA, z", COLOURS[1])
    _line(faults, runs, arms, "mf", "DSA, f", COLOURS[0])
    if unguided := figures(runs, "two-branch", "mf").values():
        mean = statistics.mean(unguided)
        faults.axhline(mean, color=COLOURS[7], linestyle="--", label="two-branch, f, which needs no maps")
    faults.set(xlabel="faults of the IUV maps", ylabel="mAP, %", title="Quality of DensePose")
    arms = {"aligned": "dsa-aligned", "misaligned": "dsa"}
    _line(boxes, runs, arms, "fused", "DSA, z", COLOURS[1])
    _line(boxes, runs, arms, "mf", "DSA, f", COLOURS[0])
    arms = {"aligned": "two-branch-aligned", "misaligned": "two-branch"}
    _line(boxes, runs, arms, "mf", "two-branch, f", COLOURS[7])
    boxes.set(xlabel="boxes", title="Misalignment")
    for axes in (faults, boxes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e3e6ea")
        axes.margins(x=0.15)
        axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _line(axes, runs: Runs, arms: dict[str, str], features: str, label: str, colour: str) -> None:
    """A thin line for each seed, which sees the same people all along, and a thick one through the means."""
    found = {x: figures(runs, arm, features) for x, arm in arms.items()}
    found = {x: by_seed for x, by_seed in found.items() if by_seed}
    for seed in sorted(set().union(*found.values())):
        values = {x: by_seed[seed] for x, by_seed in found.items() if seed in by_seed}
        axes.plot(list(values), list(values.values()), ".-", color=colour, alpha=0.35, linewidth=0.8)
    means = [statistics.mean(by_seed.values()) for by_seed in found.values()]
    axes.plot(list(found), means, color=colour, label=label, linewidth=2.2)
