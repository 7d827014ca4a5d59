"""What data costs training: images a second of a run, against the same training on one cached batch.

    python benchmarks/training.py [--data ROOT] [--preset demo]

Without --data a synthetic data set is made first. Blocks of steps alternate. Before each block some steps
are not timed, until the batches that were assembled while the other block ran are used up.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from common import describe_machine, made_data

from dsareid.data.batch import Batch
from dsareid.data.layouts.base import TRAIN
from dsareid.data.loader import TrainData
from dsareid.data.sampler import PKSampler
from dsareid.data.store.cache import ensure_store
from dsareid.engine.learner import Learner
from dsareid.engine.loop import batch_config
from dsareid.engine.presets import PRESETS, preset
from dsareid.ground.distributed import choose_device

WARM_UP, TIMED = 4, 8  # steps of a block


def endless(data: TrainData, sampler: PKSampler):
    for epoch in itertools.count():
        yield from data.batches(epoch, *sampler.epoch(epoch))


def block(learner: Learner, batches) -> float:
    """Seconds of TIMED steps, the taking of their batches included."""
    for step in range(WARM_UP + TIMED):
        if step == WARM_UP:
            began = time.perf_counter()
        learner.step(batches, 1e-5, teaching=False)
    if learner.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a data set or a store")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.data or made_data(Path(folder))
        config = preset(arguments.preset, root, Path(folder) / "run", weights="none")
        device = choose_device(arguments.device)
        split = ensure_store(root, config.height, config.width).select(TRAIN, iuv=config.needs_iuv)
        sampler = PKSampler(split.ids, config.identities, config.images, config.seed)
        data = TrainData(split, batch_config(config, device), device)
        learner = Learner(config, data.identities, device)
        batches = endless(data, sampler)
        first = next(batches)
        cached = Batch(*(None if x is None else x.clone() for x in first))
        sources = {"batches from the store": batches, "one cached batch": itertools.repeat(cached)}
        seconds = {name: [] for name in sources}
        for _ in range(arguments.rounds):
            for name, source in sources.items():
                seconds[name].append(block(learner, source))
        images = TIMED * len(cached.label)
        print(f"{arguments.preset} preset, {len(cached.label)} images a batch, {data.description}")
        for name, times in seconds.items():
            print(f"  {name:24s} {images / statistics.median(times):8.1f} images/s")
        ratios = [b / a for a, b in zip(*seconds.values())]
        print(
            f"  with data work: {statistics.median(ratios):.3f} of the speed without "
            f"(rounds: {min(ratios):.3f} to {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
