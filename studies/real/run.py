"""The study on real people: what a guide is worth on CUHK03 and CUHK01, with the plan written down first.

    python -m studies.real.run data --cuhk03 ROOT       # lay out the tuning split
    python -m studies.real.run recipe                   # how --preset small was found
    python -m studies.real.run guides                   # which guides know people they never saw
    python -m studies.real.run ceiling                  # what a guide knows, and hands over
    python -m studies.real.run tuning                   # four trials of each form and control
    python -m studies.real.run report                   # the tables of README.md
    python -m studies.real.run one recipe NAME SEED     # a single run

Run from the repository's root. PLAN.md says what is compared and how. Each stage has a folder here with a
JSON file for each finished run; what has one is not run again. Data sets and networks go to --work.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsareid.engine.presets import preset
from dsareid.models.table import MatchedBy
from dsareid.runs.config import TrainConfig
from studies.jobs import run_here, work_through
from studies.real.other_guides import GUIDES, use
from studies.real.people import masked, tuning_split
from studies.real.report import write
from studies.real.where import write_facts

RESULTS = Path(__file__).parent
TUNING = "tuning"  # CUHK03's training people without those held out


@dataclass(frozen=True)
class Arm:
    """One thing that is compared: a network, the data it is trained on, what it changes in the preset."""

    changes: Mapping[str, Any] = field(default_factory=dict)
    """By dotted name, as in --optim.rate."""
    features: tuple[MatchedBy, ...] = ("mf",)
    data: str = TUNING
    guide: str = ""
    """Which of studies.real.other_guides takes the DSAG-Stream's place; none: the paper's."""

    def config(self, work: Path, out: Path, weights: Path, seed: int) -> TrainConfig:
        config = preset("small", work / "data" / self.data, out, seed=seed, weights=str(weights))
        return changed(config, {"model": "two-branch", **self.changes})


@dataclass(frozen=True)
class Stage:
    """Runs that belong together, in the order in which they are run: all arms of a seed, then of the next."""

    arms: Mapping[str, Arm]
    seeds: tuple[int, ...]


def changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of nested dataclasses with other values, by dotted name."""
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        config = dataclasses.replace(
            config, **{first: changed(getattr(config, first), {rest: value}) if rest else value}
        )
    return config


def rate(value: float) -> dict[str, float]:
    return {"optim.rate": value, "optim.warm_up_from": value / 100}


# --preset small had 10 epochs and erased half of the images when these were run.
_FIRST = {"epochs": 10, "augment.erase": 0.5}
RECIPE = {
    "rate-0.001": Arm(_FIRST | rate(1e-3)),
    "rate-0.003": Arm(_FIRST),
    "rate-0.006": Arm(_FIRST | rate(6e-3)),
    "erase-0.25": Arm(_FIRST | {"augment.erase": 0.25}),
    "batch-32": Arm(_FIRST | {"augment.erase": 0.25, "identities": 8}),
    "erase-0": Arm(_FIRST | {"augment.erase": 0.0}),
}
INPUTS = {
    "dsap": "part-images",
    "csa": "part-crops",
    "masked-patches": "masked-patches",
    "patches": "image-patches",
}
"""The ladder, by the names of its arms: what the guide is fed."""


def guided(guidance: str, guide_input: str) -> Arm:
    changes = {"model": "dsa", "guidance": guidance, "guide_input": guide_input}
    return Arm(changes, ("mf", "fused", "guide"))


CEILING = {
    "two-branch": Arm(),
    **{f"{form}-{name}": guided(form, fed) for name, fed in INPUTS.items() for form in ("gate", "add")},
    "two-branch-masked": Arm(data=f"{TUNING}-masked"),
    "two-branch-long": Arm({"epochs": 12}),  # the CPU time of a guided network: 1.5 times as much (gate-dsap)
}
ALONE: Mapping[str, Any] = {"model": "dsap"}
GUIDE_ARMS = {
    # No guide of its own: the MF-Stream's trunk, pooled through the map; d are the parts, z is f with them.
    "trunk-features": Arm({"model": "dsa", "guidance": "pool"}, ("mf", "fused", "guide")),
    "paper": Arm(ALONE, ("guide",)),
    **{name: Arm(ALONE, ("guide",), guide=name) for name in GUIDES},
    "part-crops": Arm({**ALONE, "guide_input": "part-crops"}, ("guide",)),
    "masked-patches": Arm({**ALONE, "guide_input": "masked-patches"}, ("guide",)),
}


def trials(arm: str, guidance: str, guide_input: str, weights: tuple[float, float]) -> dict[str, Arm]:
    """Four trials of a form without a second stream: two rates, two weights of its loss."""
    form = {"model": "dsa", "guidance": guidance, "guide_input": guide_input}
    return {
        f"{arm}-{each:g}-{weight:g}": Arm({**form, **rate(each), f"loss.{guidance}": weight})
        for each in (2e-3, 3e-3)
        for weight in weights
    }


# Every arm has four trials.
TRIALS = {
    **{f"two-branch-{each:g}": Arm(rate(each)) for each in (1.5e-3, 2e-3, 3e-3, 4.5e-3)},
    **trials("pool", "pool", "part-images", (0.5, 1.5)),
    **trials("texture", "texture", "part-images", (1.0, 4.0)),
    **trials("pool-others", "pool", "others", (0.5, 1.5)),
    **trials("pool-stripes", "pool", "stripes", (0.5, 1.5)),
    **trials("texture-others", "texture", "others", (1.0, 4.0)),
    **trials("texture-pictures", "texture", "pictures", (1.0, 4.0)),
}
STAGES: dict[str, Stage] = {
    "recipe": Stage(RECIPE, (0,)),
    "ceiling": Stage(CEILING, (0, 1, 2)),
    "guides": Stage(GUIDE_ARMS, (0,)),
    "tuning": Stage(TRIALS, (0,)),
}


def result_of(stage: str, name: str, seed: int) -> Path:
    return RESULTS / stage / f"{name}-{seed}.json"


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    parser.add_argument("what", choices=["data", "where", "one", "report", *STAGES])
    parser.add_argument("stage", nargs="?", choices=list(STAGES), help="for one")
    parser.add_argument("name", nargs="?", help="for one: which of the stage's arms")
    parser.add_argument("seed", nargs="?", type=int, help="for one")
    parser.add_argument("--only", nargs="+", default=[], help="of a stage: these arms alone")
    parser.add_argument(
        "--cuhk03", type=Path, help="for data and where: CUHK03 detected, in CUHK03-NP's layout, with maps"
    )
    parser.add_argument(
        "--weights", type=Path, default=Path("mobilenetv2.pt"), help="torchvision's MobileNetV2"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/real"))
    parser.add_argument("--processes", type=int, default=2, help="each takes one core")
    options = parser.parse_args()
    if options.what in ("data", "where") and options.cuhk03 is None:
        parser.error(f"{options.what} needs --cuhk03")
    arms = STAGES[options.stage or options.what].arms if options.stage or options.what in STAGES else {}
    if wrong := [name for name in [options.name or "", *options.only] if name and name not in arms]:
        parser.error(f"no such arm: {', '.join(wrong)}; there are {', '.join(arms)}")
    if options.what == "one" and None in (options.stage, options.name, options.seed):
        parser.error("one needs a stage, a name and a seed")
    work = options.work.absolute()
    if options.what == "data":
        tuning_split(options.cuhk03, work / "data" / TUNING)
        masked(work / "data" / TUNING, work / "data" / f"{TUNING}-masked")
    elif options.what == "where":
        write_facts(options.cuhk03, RESULTS / "where.json")
    elif options.what == "report":
        write(RESULTS, {name: stage.arms for name, stage in STAGES.items()})
    elif options.what == "one":
        arm = STAGES[options.stage].arms[options.name]
        if arm.guide:
            use(arm.guide)
        out = work / "runs" / options.stage / f"{options.name}-{options.seed}"
        config = arm.config(work, out, options.weights.absolute(), options.seed)
        run_here(
            config,
            result_of(options.stage, options.name, options.seed),
            {"arm": options.name, "seed": options.seed, "changes": dict(arm.changes)},
            arm.features,
            data=arm.data,
            every=True,
        )
    else:
        settings = ["--weights", str(options.weights.absolute()), "--work", str(work)]
        commands = {
            result_of(options.what, name, seed): [
                "-m",
                "studies.real.run",
                "one",
                options.what,
                name,
                str(seed),
                *settings,
            ]
            for seed in STAGES[options.what].seeds
            for name in STAGES[options.what].arms
            if not options.only or name in options.only
        }
        work_through(commands, work / "logs" / options.what, options.processes)


if __name__ == "__main__":
    main()
