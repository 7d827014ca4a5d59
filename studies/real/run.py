"""The study on real people: what a guide is worth on CUHK03 and CUHK01, with the plan written down first.

    python -m studies.real.run data --cuhk03 ROOT --cuhk01 ROOT --pku ROOT      # lay out the data sets
    python -m studies.real.run recipe                   # how --preset small was found
    python -m studies.real.run guides                   # which guides know people they never saw
    python -m studies.real.run ceiling                  # what a guide knows, and hands over
    python -m studies.real.run tuning                   # the trials of each form and control
    python -m studies.real.run cost                     # what a step of each form costs, measured in turns
    python -m studies.real.run counted                  # on all of CUHK03's people, with the best trials
    python -m studies.real.run confirmed                # the same on CUHK01
    python -m studies.real.run report                   # the tables of README.md
    python -m studies.real.run one recipe NAME SEED     # a single run

Run from the repository's root. PLAN.md says what is compared and how. Each stage has a folder here with a
JSON file for each finished run; what has one is not run again. Data sets and networks go to --work.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsareid.data.store.cache import ensure_store
from dsareid.runs.folder import Run
from studies.jobs import run_here, work_through
from studies.real.cost import write_costs
from studies.real.other_guides import use
from studies.real.people import link, masked, pku_sides, tuning_split
from studies.real.probe import probe
from studies.real.report import write
from studies.real.sides import by_angle
from studies.real.stages import COSTS, CUHK01, CUHK03, PKU, RESULTS, STAGES, TUNING, costed_arms
from studies.real.where import write_facts


def result_of(stage: str, name: str, seed: int) -> Path:
    return RESULTS / stage / f"{name}-{seed}.json"


def lay_out(data: Path, roots: Mapping[str, Path]) -> None:
    """Make the study's data sets of links, and the facts of CUHK03's queries."""
    link(data / CUHK03, roots["cuhk03"])
    link(data / CUHK01, roots["cuhk01"])
    pku_sides(roots["pku"], data / PKU)
    tuning_split(roots["cuhk03"], data / TUNING)
    masked(data / TUNING, data / f"{TUNING}-masked")
    write_facts(roots["cuhk03"], RESULTS / "where.json")


def run_one(stage: str, name: str, seed: int, work: Path, weights: Path) -> None:
    """A single run, in this process."""
    arm = STAGES[stage].find_arms()[name]
    counted = STAGES[stage].counted
    if arm.guide:
        use(arm.guide)
    config = arm.config(work, work / "runs" / stage / f"{name}-{seed}", weights, seed)

    def more(run: Run) -> Mapping[str, Any]:
        """What else is measured of a counted network."""
        store = ensure_store(config.data, config.height, config.width, protocol=config.protocol)
        pku = ensure_store(work / "data" / PKU, config.height, config.width)
        return {"sides": by_angle(run, pku), "colours": probe(run, store)}

    run_here(
        config,
        result_of(stage, name, seed),
        {"arm": name, "seed": seed, "changes": dict(arm.changes)},
        arm.features,
        data=arm.data,
        every=not counted,
        keep=counted,
        more=more if counted else None,
    )


def run_stage(stage: str, only: list[str], work: Path, weights: Path, processes: int) -> None:
    """All runs of a stage that are not finished, each in a process of its own."""
    settings = ["--weights", str(weights), "--work", str(work)]
    done: set[Path] = set()
    while True:  # tuning has further trials once the first are finished
        commands = {
            result_of(stage, name, seed): ["-m", "studies.real.run", "one", stage, name, str(seed), *settings]
            for seed in STAGES[stage].seeds
            for name in STAGES[stage].find_arms()
            if not only or name in only
        }
        if commands.keys() <= done:
            return
        work_through(commands, work / "logs" / stage, processes)
        done |= commands.keys()


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    parser.add_argument("what", choices=["data", "one", "cost", "report", *STAGES])
    parser.add_argument("stage", nargs="?", choices=list(STAGES), help="for one")
    parser.add_argument("name", nargs="?", help="for one: which of the stage's arms")
    parser.add_argument("seed", nargs="?", type=int, help="for one")
    parser.add_argument("--only", nargs="+", default=[], help="of a stage: these arms alone")
    parser.add_argument("--cuhk03", type=Path, help="CUHK03 detected, in CUHK03-NP's layout, with maps")
    parser.add_argument("--cuhk01", type=Path, help="CUHK01, with maps")
    parser.add_argument("--pku", type=Path, help="PKU-Reid: ID/CC_O.png, camera and side")
    parser.add_argument(
        "--weights", type=Path, default=Path("mobilenetv2.pt"), help="torchvision's MobileNetV2"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/real"))
    parser.add_argument("--processes", type=int, default=2, help="each takes one core")
    options = parser.parse_args()
    work, weights = options.work.absolute(), options.weights.absolute()
    if options.what == "report":
        write(RESULTS, list(STAGES))
    elif options.what == "cost":
        arms = costed_arms().items()
        configs = {name: arm.config(work, work / "runs", weights, 0) for name, arm in arms}
        write_costs(configs, RESULTS / COSTS)
    elif options.what == "data":
        roots = {name: getattr(options, name) for name in ("cuhk03", "cuhk01", "pku")}
        if missing := [f"--{name}" for name, root in roots.items() if root is None]:
            parser.error(f"data needs {', '.join(missing)}")
        lay_out(work / "data", roots)
    else:
        stage = options.stage if options.what == "one" else options.what
        if stage is None or (options.what == "one" and options.seed is None):
            parser.error("one needs a stage, a name and a seed")
        arms = STAGES[stage].find_arms()
        if wrong := [name for name in [options.name or "", *options.only] if name and name not in arms]:
            parser.error(f"{stage} has no arm {', '.join(wrong)}; it has {', '.join(arms)}")
        if options.what == "one":
            run_one(stage, options.name, options.seed, work, weights)
        else:
            run_stage(stage, options.only, work, weights, options.processes)


if __name__ == "__main__":
    main()
