"""Train on a GPU: every layer of branches in every form, every way to feed a step, every variant of the step.

    python benchmarks/card.py [--data ROOT] [--preset paper] [--parts layers feeding kinds variants]

Without `--data` a synthetic data set is made first. "layers" times forward and backward of each convolution
of the branches in each form that agrees with the first. "feeding" times whole steps on one cached batch, on
batches made on the device, streamed from the host, with part images that were prepared beforehand and lie on
the device (which cannot augment them), and from a DataLoader over files with 0, 2 and 14 workers. "kinds"
profiles a step by kind of kernel. "variants" changes one setting at a time. It runs on a CPU too, as a
rehearsal.
"""

import dataclasses
import itertools
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from common import made_data
from result import Result, parser
from torch.utils.data import DataLoader
from training import Setting, block, endless

from dsa_ext import iuv_to_dsap
from dsareid.data.batch import Batch
from dsareid.data.loader import TrainData
from dsareid.engine.learner import Learner
from dsareid.engine.loop import batch_config
from dsareid.engine.presets import PRESETS
from dsareid.engine.tuning import measured, noted
from dsareid.ground.errors import DSAError, first_line
from dsareid.ground.machine import keep_freed_memory
from dsareid.models.options import MEAN, STD
from dsareid.runs.config import TrainConfig

KINDS = {
    "convolutions": r"conv|cudnn|xmma|implicit|wgrad|dgrad|fprop|winograd",
    "products": r"gemm|cutlass|cublas|addmm|bmm",
    "BatchNorm": r"batch_?norm|bn_",
    "our kernels": r"dsa::|dsa_ext",
    "optimizer": r"adam|multi_tensor|fused",
    "copies": r"memcpy|memset|copy",
}
"""Kinds of kernels by their names; the first that fits. What is left is "element by element"."""


def speed(setting: Setting, learner: Learner, batches: Iterator[Batch]) -> float:
    """Images a second."""
    return setting.images / block(learner, batches)


def layers(setting: Setting, result: Result, rounds: int) -> None:
    learner = setting.learner(convolution="grouped")
    with noted(learner.model) as found:
        learner.step(setting.cached(learner), 1e-5, teaching=False)
    names = {module: name for name, module in learner.model.named_modules()}
    for layer, given in found.items():
        runs = measured(layer, given, setting.device, learner.dtype)
        result.add(
            "A convolution of the branches, forward and backward",
            f"{names[layer]}: {layer.extra_repr()}, {'x'.join(map(str, given.shape))}",
            {name: [seconds] for name, seconds in runs.items()},
            against="grouped",
        )


def prepared(setting: Setting, config: TrainConfig) -> Iterator[Batch]:
    """Part images made once, from the images as stored; a batch gathers and normalises them."""
    store, rows, dtype = (
        setting.split.store,
        setting.split.rows,
        batch_config(config, setting.device).input.dtype,
    )
    made = []
    for at in range(0, len(rows), 256):
        stored = (torch.from_numpy(x[rows[at : at + 256]]) for x in (store.images, store.iuv))
        image, iuv = (x.permute(0, 3, 1, 2) for x in stored)
        made.append(iuv_to_dsap(image, iuv, size=config.dsap_size, dtype=torch.float32, mean=MEAN, std=STD))
    part_images = torch.cat(made).to(setting.device, dtype)
    making = batch_config(config, setting.device)
    alone = dataclasses.replace(making, input=dataclasses.replace(making.input, guide=None))
    data = TrainData(setting.split, alone, setting.device)
    for epoch in itertools.count():
        index, repeat = setting.sampler.epoch(epoch)
        for chosen, batch in zip(index, data.batches(epoch, index, repeat)):
            yield batch._replace(dsap=part_images[torch.from_numpy(chosen).to(setting.device)])


def loaded(setting: Setting, config: TrainConfig, workers: int) -> Iterator[Batch]:
    """torchvision's transforms on files, and our collate_fn, which warps in the workers.

    Raises ImportError without torchvision, which a lent machine may lack.
    """
    from torchvision.transforms import v2

    from dsareid.data.torch_dataset import DSAPDataset, collate_dsap

    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((config.height, config.width)),
            v2.RandomCrop((config.height, config.width), padding=config.augment.pad),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
            v2.RandomErasing(),
        ]
    )
    dataset = DSAPDataset(setting.root, transform=transform)
    dtype = batch_config(config, setting.device).input.dtype

    def batches() -> Iterator[Batch]:
        for epoch in itertools.count():
            loader = DataLoader(
                dataset,
                batch_sampler=setting.sampler.epoch(epoch)[0].tolist(),
                num_workers=workers,
                collate_fn=partial(collate_dsap, size=config.dsap_size),
                pin_memory=setting.device.type == "cuda",
            )
            for batch in loader:
                image, dsap = (
                    x.to(setting.device, dtype, non_blocking=True) for x in (batch.image, batch.dsap)
                )
                yield Batch(image, dsap, batch.label.to(setting.device))

    return batches()


def feeding(setting: Setting, result: Result, rounds: int) -> None:
    learner, config = setting.learner(), setting.config
    sources = {
        "one cached batch": setting.cached(learner),
        "made on the device": endless(setting.data(config, resident=True), setting.sampler),
        "streamed from the host": endless(setting.data(config, resident=False), setting.sampler),
        "prepared part images": prepared(setting, config),
    }
    try:
        sources |= {f"DataLoader, {n} workers": loaded(setting, config, n) for n in (0, 2, 14)}
    except (ImportError, DSAError) as error:  # a store has no files
        result.note(f"DataLoader: not run, {error}")
    speeds: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(rounds):
        for name, source in sources.items():
            speeds[name].append(speed(setting, learner, source))
    case = f"batches of {setting.images}"
    result.add("Steps by what feeds them", case, speeds, unit="images/s", against="one cached batch")


def kinds(setting: Setting, result: Result, rounds: int) -> None:
    """The device's own time of each kernel; on a CPU, of each operator."""
    learner = setting.learner()
    batches = endless(setting.data(setting.config), setting.sampler)
    on_cuda = setting.device.type == "cuda"
    for _ in range(3):
        learner.step(batches, 1e-5, teaching=False)
    activity = torch.profiler.ProfilerActivity.CUDA if on_cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        learner.step(batches, 1e-5, teaching=False).numbers()
    seconds: dict[str, float] = defaultdict(float)
    for event in profile.key_averages():
        own = event.self_device_time_total if on_cuda else event.self_cpu_time_total
        kind = next((x for x, names in KINDS.items() if re.search(names, event.key, re.IGNORECASE)), None)
        seconds[kind or "element by element"] += own / 1e6
    runs = {name: [value] for name, value in sorted(seconds.items(), key=lambda x: -x[1])}
    runs["all"] = [sum(seconds.values())]
    result.add("A step by kind of kernel", f"a batch of {setting.images}", runs, unit="ms", against="all")


VARIANTS: dict[str, dict] = {
    "grouped convolutions": {"convolution": "grouped"},
    "convolutions in pairs": {"convolution": "pairs"},
    "contiguous": {"layout": "contiguous"},
    "channels_last": {"layout": "channels_last"},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "compiled": {"compile": True},
}


def variants(setting: Setting, result: Result, rounds: int) -> None:
    """One at a time beside the step as it is, so that two networks are in memory at once."""
    usual = setting.learner()
    for name, changes in VARIANTS.items():
        if setting.device.type == "cpu" and name in ("float16", "compiled"):
            continue  # the first is not computed there, the second takes minutes
        try:
            changed = setting.learner(**changes)
            batches = {"as it is": setting.cached(usual), name: setting.cached(changed)}
            speeds: dict[str, list[float]] = {key: [] for key in batches}
            for _ in range(rounds):
                for key, source in batches.items():
                    speeds[key].append(speed(setting, usual if key == "as it is" else changed, source))
        except (RuntimeError, DSAError) as error:
            result.note(f"{name}: not run, {first_line(error)}")
            continue
        result.add("Variants of a step", name, speeds, unit="images/s", against="as it is")


PARTS = {"feeding": feeding, "kinds": kinds, "variants": variants, "layers": layers}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a data set")
    options.add_argument("--preset", choices=sorted(PRESETS), default="paper")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--device", default="auto")
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    keep_freed_memory()  # as the command does
    with Result(arguments) as result, tempfile.TemporaryDirectory() as folder:
        setting = Setting(arguments.preset, arguments.device, arguments.data or made_data(Path(folder)))
        for part in arguments.parts:
            began = time.monotonic()
            PARTS[part](setting, result, arguments.rounds)
            print(f"{part}: {time.monotonic() - began:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
