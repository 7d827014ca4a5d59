"""Train with all data work, against the same training on one cached batch: what data costs.

    python benchmarks/training.py [--data ROOT] [--preset demo]

Without `--data` a synthetic data set is made first. Blocks of steps alternate. Before each block some steps
are not timed, until the batches that were assembled while the other block ran are used up.
"""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from common import made_data
from result import Result, parser

from dsareid.data.batch import Batch
from dsareid.data.layouts.base import TRAIN
from dsareid.data.loader import TrainData
from dsareid.data.sampler import PKSampler
from dsareid.data.store.cache import ensure_store
from dsareid.engine.learner import Learner
from dsareid.engine.loop import batch_config
from dsareid.engine.presets import PRESETS, PresetName, preset
from dsareid.ground.distributed import choose_device
from dsareid.ground.machine import keep_freed_memory
from dsareid.runs.config import TrainConfig

WARM_UP, TIMED = 4, 8  # steps of a block


class Setting:
    """A preset on a data set and a device: its training split, and learners and batches for it."""

    def __init__(self, name: PresetName, device: str, root: Path):
        self.root, self.device = root, choose_device(device)
        self.config = config = preset(name, root, root / "no run", weights="none")
        store = ensure_store(root, config.height, config.width)
        self.split = store.select(TRAIN, iuv=config.needs_iuv)
        self.sampler = PKSampler(self.split.ids, config.identities, config.images, config.seed)
        self.images = config.identities * config.images  # of a batch

    def data(self, config: TrainConfig, resident: bool | None = None) -> TrainData:
        return TrainData(self.split, batch_config(config, self.device), self.device, resident)

    def learner(self, **changes) -> Learner:
        config = dataclasses.replace(self.config, **changes)
        return Learner(config, self.data(config).identities, self.device)

    def cached(self, learner: Learner) -> Iterator[Batch]:
        """One batch for ever."""
        batch = next(endless(self.data(learner.config), self.sampler))
        return itertools.repeat(Batch(*(None if x is None else x.clone() for x in batch)))


def endless(data: TrainData, sampler: PKSampler):
    return data.planned((epoch, *one) for epoch in itertools.count() for one in zip(*sampler.epoch(epoch)))


def block(learner: Learner, batches) -> float:
    """Seconds of a step, on average over TIMED of them, the taking of their batches included."""
    for step in range(WARM_UP + TIMED):
        if step == WARM_UP:
            wait(learner.device)
            began = time.perf_counter()
        learner.step(batches, 1e-5, teaching=False)
    wait(learner.device)
    return (time.perf_counter() - began) / TIMED


def wait(device: torch.device) -> None:
    """Until the device has computed all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a data set or a store")
    options.add_argument("--preset", choices=sorted(PRESETS), default="demo")
    options.add_argument("--device", default="auto")
    options.add_argument("--rounds", type=int, default=8)
    arguments = options.parse_args()
    keep_freed_memory()  # as the command does
    with Result(arguments) as result, tempfile.TemporaryDirectory() as folder:
        root = arguments.data or made_data(Path(folder))
        setting = Setting(arguments.preset, arguments.device, root)
        learner = setting.learner()
        batches = endless(setting.data(setting.config), setting.sampler)
        sources = {"one cached batch": setting.cached(learner), "batches from the store": batches}
        speeds: dict[str, list[float]] = {name: [] for name in sources}
        for _ in range(arguments.rounds):
            for name, source in sources.items():
                speeds[name].append(setting.images / block(learner, source))
        case = f"{arguments.preset} preset, batches of {setting.images}"
        result.add("Training", case, speeds, unit="images/s", against="one cached batch")


if __name__ == "__main__":
    main()
