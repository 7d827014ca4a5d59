"""The runs of a study: each is trained and measured in a process of its own, on one core.

A finished run is a JSON file. What has one is not run again, so a study goes on where it was stopped, on any
machine that has its data; to repeat a run, remove its file.
"""

import json
import logging
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dsareid.data.layouts.base import QUERY, TRAIN
from dsareid.data.store.cache import ensure_store
from dsareid.engine.loop import train
from dsareid.evaluation.ranking import RankResult
from dsareid.evaluation.run_features import match
from dsareid.ground.files import atomic_path
from dsareid.ground.machine import processor
from dsareid.models.table import MatchedBy
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Run, RunFolder, load_run


def run_here(
    config: TrainConfig,
    result: Path,
    labels: Mapping[str, Any],
    features: Sequence[MatchedBy],
    *,
    data: str,
    every: bool,
    keep: bool = False,
    more: Callable[[Run], Mapping[str, Any]] | None = None,
) -> None:
    """Train and match a network on one core, and write what came out; goes on where it was stopped.

    Args:
        config: with the data set's folder, and the run's.
        result: the file to write.
        labels: what the record begins with: arm, seed.
        features: what the test images are matched by, each reported.
        data: the data set's name, which the record has in place of folders.
        every: whether every test image is a query; otherwise the data set's own.
        more: measures the trained network further, for the record.
        keep: whether the record has each of the data set's own queries, by person: its average precision.
    """
    if keep and every:
        raise ValueError("keep is for the data set's own queries")
    torch.set_num_threads(1)
    torch.manual_seed(config.seed)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    mapped = [TRAIN] if config.needs_iuv else []
    store = ensure_store(  # before the clock starts
        config.data, config.height, config.width, mapped=mapped, protocol=config.protocol
    )
    resume = RunFolder(config.out).checkpoint.exists()
    clock = Clock(config.out, resume)
    try:
        train(config, resume=resume)
    finally:
        seconds = clock.stop()
    run = load_run(config.out, "cpu")
    found = match(run, store, features, every=every)
    folder = RunFolder(config.out)
    record = {
        **labels,
        "data": data,
        "settings": json.loads(folder.config.read_text())
        | {"data": data, "out": "", "weights": Path(config.weights).name},
        "features": {name: kept_of(x) for name, x in found.items()},
        "last_epoch": last_epoch(folder.log),
        "cpu_seconds": seconds,  # of training
        **made_here(),
    }
    record |= more(run) if more else {}
    if keep:
        people = store.select(QUERY, iuv=False).ids
        first = next(iter(found.values()))
        record["queries"] = {
            "people": " ".join(str(person) for person in people[first.queries.numpy()].tolist()),
            **{name: " ".join(f"{ap:.5f}" for ap in x.ap.tolist()) for name, x in found.items()},
        }
    result.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(result) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def made_here() -> dict[str, Any]:
    """When and on what a record is made."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": {"cpu": processor(), "torch": torch.__version__, "python": platform.python_version()},
    }


def kept_of(found: RankResult) -> dict[str, float]:
    """What a record keeps of a ranking, as fractions of 1."""
    return {
        "mAP": found.mAP,
        "rank1": found.cmc[0].item(),
        "rank5": found.cmc[4].item(),
        "rank10": found.cmc[9].item(),
        "queries": len(found.queries),
    }


class Clock:
    """The CPU time that training a run takes, in this process and in those that were stopped before.

    Args:
        run: the run's folder. Beside it lies a note of what was spent on how many steps.
        resume: whether the run goes on.

    Raises:
        SystemExit: the run goes on from steps whose time nobody noted: a process was killed.
    """

    def __init__(self, run: Path, resume: bool):
        self.run, self.note = run, run.parent / f"{run.name}.seconds"
        self.before = 0.0
        if resume:
            seconds, steps = self.note.read_text().split() if self.note.exists() else ("0", "0")
            if int(steps) != _steps(run):
                raise SystemExit(
                    f"{run}: how long it took is not known: a process was killed; remove the run"
                )
            self.before = float(seconds)
        self.start = _cpu_seconds()

    def stop(self) -> float:
        """Note the seconds so far, and return them."""
        seconds = round(self.before + _cpu_seconds() - self.start, 1)
        if self.run.exists():
            self.note.write_text(f"{seconds} {_steps(self.run)}")
        return seconds


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _steps(run: Path) -> int:
    """How many steps a run has taken."""
    log = RunFolder(run).log
    return len(log.read_text().splitlines()) if log.exists() else 0


def last_epoch(log: Path) -> dict[str, float]:
    """Means over the last epoch: |f|, |d|, accuracies, losses."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    last = [record for record in records if record["epoch"] == records[-1]["epoch"]]
    names = [name for name in last[0] if name.startswith(("norm/", "accuracy/", "loss"))]
    return {name: round(sum(record[name] for record in last) / len(last), 4) for name in names}


def work_through(commands: Mapping[Path, Sequence[str]], logs: Path, processes: int) -> None:
    """Run what is not finished, each in a process of its own; a run that fails does not stop the others.

    Args:
        commands: of each result file, the script and arguments that write it.
        logs: the folder of what the processes print.
        processes: how many at once; each takes one core.
    """
    todo = {result: command for result, command in commands.items() if not result.exists()}
    logs.mkdir(parents=True, exist_ok=True)
    with (
        ThreadPoolExecutor(processes) as pool,
        tqdm(total=len(commands), initial=len(commands) - len(todo)) as bar,
    ):
        running = [pool.submit(_in_a_process, command, result, logs) for result, command in todo.items()]
        try:
            for done in as_completed(running):
                bar.update()
                bar.write(done.result())
        except BaseException:  # Ctrl-C: begin no more
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _in_a_process(command: Sequence[str], result: Path, logs: Path) -> str:
    """Run one; returns a line about what came out."""
    log = logs / f"{result.stem}.txt"
    with log.open("a") as file:
        process = subprocess.run(
            [sys.executable, *command], stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )
    if process.returncode:
        return f"{result.stem}: failed; see {log}"
    record = json.loads(result.read_text())
    found = ", ".join(f"{name} {100 * x['mAP']:.1f}" for name, x in record["features"].items())
    return f"{result.stem}: mAP {found}; {record['cpu_seconds']:.0f} s"
