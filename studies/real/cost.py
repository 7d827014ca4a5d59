"""What a training step of each form costs: CPU time in turns on one core, and memory.

    python -m studies.real.run cost --work WORK     # writes cost.json

The CPU time of a whole run depends on what else the machine does meanwhile, by more than the forms differ. So
all forms take a few steps after each other, on the tuning people, round after round, and a form's ratio to
two-branch is the median over the rounds. Data loading is part of it; what is done once, before the first
step, stands apart.
"""

import json
import math
import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from tqdm import tqdm

from dsareid.cost.memory import training_peak
from dsareid.data.layouts.base import TRAIN
from dsareid.data.loader import TrainData
from dsareid.data.sampler import PKSampler
from dsareid.data.store.cache import ensure_store
from dsareid.engine.learner import Learner
from dsareid.engine.loop import batch_config, texture_targets
from dsareid.ground.files import atomic_path
from dsareid.runs.config import TrainConfig
from studies.jobs import made_here

BASE = "two-branch"
ROUNDS, STEPS = 15, 4
_CPU = torch.device("cpu")


class Stepper:
    """A network in training that takes a few steps at a time.

    Attributes:
        once: CPU seconds before the first step: what each person looks like, for guidance texture.
        steps: in an epoch.
    """

    def __init__(self, config: TrainConfig):
        self.config = config
        store = ensure_store(config.data, config.height, config.width, mapped=[TRAIN])
        split = store.select(TRAIN, iuv=config.needs_iuv)
        self.data = TrainData(split, batch_config(config, _CPU), _CPU)
        began = time.process_time()
        targets = texture_targets(config, split)
        self.once = time.process_time() - began
        self.learner = Learner(config, self.data.identities, _CPU, targets)
        self.index, self.repeat = PKSampler(split.ids, config.identities, config.images, config.seed).epoch(0)
        self.steps, self.done = len(self.index), 0

    def seconds(self, count: int) -> float:
        """CPU seconds of a step, the mean of `count`. No batch of them is made before or after."""
        rows = [(self.done + x) % self.steps for x in range(count)]
        self.done += count
        began = time.process_time()
        batches = self.data.batches(0, self.index[rows], self.repeat[rows])
        for _ in rows:
            self.learner.step(batches, 0.0, teaching=True).numbers()
        for _ in batches:  # its threads have ended
            pass
        return (time.process_time() - began) / count


def write_costs(configs: Mapping[str, TrainConfig], path: Path) -> None:
    """Measure each form, and write what came out; BASE is one of them."""
    torch.set_num_threads(1)
    forms = {name: Stepper(config) for name, config in configs.items()}
    for form in forms.values():
        form.seconds(STEPS)  # the convolutions choose their ways
    rounds: dict[str, list[float]] = {name: [] for name in forms}
    for _ in tqdm(range(ROUNDS), unit="round"):
        for name, form in forms.items():
            rounds[name].append(form.seconds(STEPS))
    found = {}
    for name, form in forms.items():
        ratios = [a / b for a, b in zip(rounds[name], rounds[BASE])]
        low, ratio, high = statistics.quantiles(ratios, n=4)
        config, people = form.config, form.data.identities
        found[name] = {
            "seconds": round(statistics.median(rounds[name]), 4),
            "ratio": round(ratio, 4),
            "quartiles": [round(low, 4), round(high, 4)],
            "once": round(form.once, 4),
            "memory": training_peak(config, people, config.identities * config.images, _CPU),
        }
    record = {
        "steps": forms[BASE].steps,  # of an epoch
        "measured": f"{ROUNDS} rounds of {STEPS} steps",
        "forms": found,
        **made_here(),
    }
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def equal_epochs(costs: Mapping, form: str, epochs: int) -> int:
    """Epochs in which two-branch takes at least the CPU time of as many `epochs` of a form.

    Args:
        costs: what write_costs wrote.
    """
    found = costs["forms"][form]
    once = found["once"] / (costs["steps"] * costs["forms"][BASE]["seconds"])  # in epochs of two-branch
    return math.ceil(epochs * max(1.0, found["ratio"]) + once)


def table(costs: Mapping) -> str:
    """A row for each form."""
    lines = ["| form | a step, ms | to two-branch, quartiles | before training, s | memory |"]
    lines.append("|---|---|---|---|---|")
    for name, found in costs["forms"].items():
        low, high = found["quartiles"]
        between = f"{found['ratio']:.2f} ({low:.2f} to {high:.2f})"
        memory = "-" if found["memory"] is None else f"{found['memory'] / 1e6:,.0f} MB"
        step = f"{1000 * found['seconds']:.0f}"
        lines.append(f"| {name} | {step} | {between} | {found['once']:.1f} | {memory} |")
    return "\n".join(lines)
