"""The study on synthetic data: what the guide is worth, with the plan written down first.

    python studies/synthetic/run.py tune      # the learning rate, for two-branch alone, on seeds of its own
    python studies/synthetic/run.py run       # every counted run that is not finished; resumable
    python studies/synthetic/run.py report    # tables and plots from the finished ones

studies/synthetic/PLAN.md says what is compared and how; runs/ beside it holds one JSON file for each
finished run, README.md what came out. Data sets and networks go to --work. What has a file there is not run
again: to repeat a run, remove its file.
"""

import argparse
import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
from tqdm import tqdm

from dsareid.data.store.cache import ensure_store
from dsareid.engine.loop import train
from dsareid.engine.presets import preset
from dsareid.evaluation.run_features import match
from dsareid.ground.files import atomic_path
from dsareid.ground.machine import processor
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
from dsareid.runs.folder import RunFolder, load_run
from dsareid.synth import SynthConfig, generate

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

    def features(self) -> list[str]:
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


def run_one(arm: Arm, config: TrainConfig, result: Path) -> None:
    """Train and evaluate one run on one core, and write its result; goes on where it was stopped."""
    torch.set_num_threads(1)
    try:
        train(config, resume=RunFolder(config.out).checkpoint.exists())
        store = ensure_store(config.data, config.height, config.width)
        found = match(load_run(config.out, "cpu"), store, arm.features(), every=True)
    finally:
        seconds = _seconds(config.out)
    record = {
        "arm": arm.name,
        "seed": config.seed,
        "data": arm.data_name,
        "settings": json.loads(RunFolder(config.out).config.read_text()) | {"data": arm.data_name, "out": ""},
        "features": {
            name: {
                "mAP": x.mAP,
                "rank1": x.cmc[0].item(),
                "rank5": x.cmc[4].item(),
                "rank10": x.cmc[9].item(),
                "queries": len(x.queries),
            }
            for name, x in found.items()
        },
        "last_epoch": _last_epoch(RunFolder(config.out).log),
        "cpu_seconds": seconds,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"cpu": processor(), "torch": torch.__version__, "python": platform.python_version()},
    }
    with atomic_path(result) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def _seconds(run: Path) -> float:
    """CPU time spent on a run: this process's, and what earlier ones that were stopped noted beside it."""
    usage, note = resource.getrusage(resource.RUSAGE_SELF), run.with_suffix(".seconds")
    before = float(note.read_text()) if note.exists() else 0.0
    total = round(before + usage.ru_utime + usage.ru_stime, 1)
    if run.exists():
        note.write_text(str(total))
    return total


def _last_epoch(log: Path) -> dict[str, float]:
    """Means over the last epoch: |f|, |d|, accuracies."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    last = [record for record in records if record["epoch"] == records[-1]["epoch"]]
    names = [name for name in last[0] if name.startswith(("norm/", "accuracy/", "loss"))]
    return {name: round(sum(record[name] for record in last) / len(last), 4) for name in names}


def work_through(jobs: list[tuple[str, int, float | None]], work: Path, processes: int) -> None:
    """Run what is not finished, each in a process of its own."""
    todo = [job for job in jobs if not _result(*job).exists()]
    needed = {(ARMS[arm].data_name, ARMS[arm].data(seed)) for arm, seed, _ in todo}
    for name, config in sorted(needed, key=lambda pair: (pair[0], pair[1].seed)):
        root = work / "data" / f"{name}-{config.seed}"
        generate(root, config)
        ensure_store(root, config.height, config.width)
    with ThreadPoolExecutor(processes) as pool, tqdm(total=len(jobs), initial=len(jobs) - len(todo)) as bar:
        running = {pool.submit(_in_a_process, job, work): job for job in todo}
        for done in as_completed(running):
            bar.update()
            bar.write(done.result())


def _in_a_process(job: tuple[str, int, float | None], work: Path) -> str:
    """Run one; returns a line about what came out. A run that fails does not stop the others."""
    arm, seed, rate = job
    command = [sys.executable, __file__, "one", arm, str(seed), "--work", str(work)]
    log = work / "logs" / f"{_result(*job).stem}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        process = subprocess.run(
            command + (["--rate", str(rate)] if rate else []), stdout=file, stderr=file, env=environment
        )
    return f"{job}: failed; see {log}" if process.returncode else _line(_result(*job))


def _result(arm: str, seed: int, rate: float | None) -> Path:
    return RESULTS / (f"tuning/{arm}-{rate:g}-{seed}.json" if rate else f"runs/{arm}-{seed}.json")


def _line(path: Path) -> str:
    record = json.loads(path.read_text())
    figures = ", ".join(f"{name} {100 * x['mAP']:.1f}" for name, x in record["features"].items())
    return f"{path.stem}: mAP {figures}; {record['cpu_seconds']:.0f} s"


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
        result.parent.mkdir(parents=True, exist_ok=True)
        root = options.work / "data" / f"{arm.data_name}-{options.seed}"
        config = arm.config(root.absolute(), options.work / "runs" / result.stem, options.seed)
        if rate:
            warm_up = {"rate": rate, "warm_up_from": rate / 100}
            config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, **warm_up))
        run_one(arm, config, result)
    elif options.what == "report":
        from report import write

        write(RESULTS, ARMS)
    else:
        jobs = [("two-branch", seed, rate) for seed in TUNING_SEEDS for rate in RATES]
        if options.what == "run":
            jobs = [(arm, seed, None) for arm in ARMS for seed in SEEDS]
        work_through(jobs, options.work, options.processes)


if __name__ == "__main__":
    main()
