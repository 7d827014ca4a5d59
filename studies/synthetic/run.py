"""The study on synthetic data: what the guide is worth, with the plan written down first.

    python -m studies.synthetic.run tune      # the learning rate, for two-branch alone, on seeds of its own
    python -m studies.synthetic.run run       # every counted run that is not finished; resumable
    python -m studies.synthetic.run report    # tables and plots from the finished ones

studies/synthetic/PLAN.md says what is compared and how; runs/ beside it holds one JSON file for each
finished run, README.md what came out. Data sets and networks go to --work. What has a file there is not run
again: to repeat a run, remove its file.
"""

import argparse
import dataclasses
from dataclasses import dataclass
from pathlib import Path

from dsareid.data.store.cache import ensure_store
from dsareid.engine.presets import preset
from dsareid.models.table import MatchedBy
from dsareid.reproduce.recipes import (
    BASELINE_RE_LS,
    CSA,
    DISTILLED,
    DSA,
    TAUGHT_BY_PATCHES,
    TWO_BRANCH,
    Network,
)
from dsareid.runs.config import TrainConfig
from dsareid.synth import SynthConfig, generate
from studies.jobs import run_here, work_through

RESULTS = Path(__file__).parent
SEEDS = (0, 1, 2)
TUNING_SEEDS = (100, 101)
RATES = (3e-3, 6e-3, 1.2e-2, 2.4e-2)
DATA = SynthConfig(identities=320, images=8, height=96, width=48)


@dataclass(frozen=True)
class Arm:
    """One thing that is compared: a network, trained on a kind of data."""

    name: str
    network: Network
    boxes: str = "misaligned"
    iuv: str = "mild"
    dropping: bool = True  # of IUV maps and parts in training, as the preset has it

    @property
    def data_name(self) -> str:
        return f"{self.boxes}-{self.iuv}"

    def data(self, seed: int) -> SynthConfig:
        return dataclasses.replace(DATA, seed=seed, boxes=self.boxes, iuv=self.iuv)

    def config(self, data: Path, out: Path, seed: int) -> TrainConfig:
        config = self.network.config(preset("study", data, out), data, out, seed)
        if not self.dropping:
            augment = dataclasses.replace(config.augment, drop_person=0.0, drop_part=0.0)
            config = dataclasses.replace(config, augment=augment)
        return config

    def features(self) -> list[MatchedBy]:
        """What its images are matched by, each reported."""
        if self.network.model != "dsa":
            return ["mf"]
        return ["mf", "guide"] if self.network.guidance == "distill" else ["mf", "fused", "guide"]


# In the order in which they are run: what the plan asks for first comes first.
ARMS = {
    arm.name: arm
    for arm in (
        Arm("two-branch", TWO_BRANCH),
        Arm("dsa", DSA),
        Arm("baseline", BASELINE_RE_LS),
        Arm("csa", CSA),
        Arm("distilled", DISTILLED),
        Arm("distilled-patches", TAUGHT_BY_PATCHES),
        Arm("dsa-exact", DSA, iuv="exact"),
        Arm("dsa-strong", DSA, iuv="strong"),
        Arm("two-branch-aligned", TWO_BRANCH, boxes="aligned"),
        Arm("dsa-aligned", DSA, boxes="aligned"),
        Arm("dsa-exact-kept", DSA, iuv="exact", dropping=False),
        Arm("distilled-exact-kept", DISTILLED, iuv="exact", dropping=False),
        # Beyond the plan, after all others: the control of question 6 for the last one.
        Arm("patches-kept", TAUGHT_BY_PATCHES, dropping=False),
    )
}


def _result(arm: str, seed: int, rate: float | None) -> Path:
    return RESULTS / (f"tuning/{arm}-{rate:g}-{seed}.json" if rate else f"runs/{arm}-{seed}.json")


def _command(job: tuple[str, int, float | None], work: Path) -> list[str]:
    arm, seed, rate = job
    command = ["-m", "studies.synthetic.run", "one", arm, str(seed), "--work", str(work)]
    return command + (["--rate", str(rate)] if rate else [])


def make_data(jobs: list[tuple[str, int, float | None]], work: Path) -> None:
    """Render the data sets of these runs."""
    needed = {(ARMS[arm].data_name, ARMS[arm].data(seed)) for arm, seed, _ in jobs}
    for name, config in sorted(needed, key=lambda pair: (pair[0], pair[1].seed)):
        root = work / "data" / f"{name}-{config.seed}"
        generate(root, config)
        ensure_store(root, config.height, config.width)


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    parser.add_argument("what", choices=["tune", "run", "one", "report"])
    parser.add_argument("arm", nargs="?", choices=list(ARMS), help="for one")
    parser.add_argument("seed", nargs="?", type=int, help="for one")
    parser.add_argument("--rate", type=float, help="for one: another learning rate than the preset's")
    parser.add_argument("--work", type=Path, default=Path("runs/study"))
    parser.add_argument("--processes", type=int, default=2, help="each takes one core")
    options = parser.parse_args()
    if options.what == "one":
        arm, rate = ARMS[options.arm], options.rate
        result = _result(arm.name, options.seed, rate)
        root = options.work / "data" / f"{arm.data_name}-{options.seed}"
        config = arm.config(root.absolute(), options.work / "runs" / result.stem, options.seed)
        if rate:
            warm_up = {"rate": rate, "warm_up_from": rate / 100}
            config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, **warm_up))
        labels = {"arm": arm.name, "seed": config.seed}
        run_here(config, result, labels, arm.features(), data=arm.data_name, every=True)
    elif options.what == "report":
        from studies.synthetic.report import write

        write(RESULTS, ARMS)
    else:
        jobs = [("two-branch", seed, rate) for seed in TUNING_SEEDS for rate in RATES]
        if options.what == "run":
            jobs = [(arm, seed, None) for arm in ARMS for seed in SEEDS]
        commands = {_result(*job): _command(job, options.work) for job in jobs}
        make_data([job for job in jobs if not _result(*job).exists()], options.work)
        work_through(commands, options.work / "logs", options.processes)


if __name__ == "__main__":
    main()
