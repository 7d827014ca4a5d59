"""Take a training step apart: how long data, guide, main stream, heads, losses and optimizer take.

    python benchmarks/step.py [--data ROOT] [--presets demo study]

Without `--data` a synthetic data set is made first. Each part runs forward and backward by itself, on the
inputs that it has in a step; the whole step runs in the same rounds, with its batches from the store. "data"
is the assembling of one batch, which a thread does beside the step. "rest" is the whole step less all other
parts.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import made_data
from result import Result, parser
from torch import Tensor
from training import Setting, endless, wait

from dsareid.data.batch import assemble
from dsareid.data.guide_input import Samples
from dsareid.engine.learner import Learner
from dsareid.engine.loop import batch_config
from dsareid.engine.presets import PRESETS
from dsareid.ground.machine import keep_freed_memory
from dsareid.models.features import Features
from dsareid.models.heads import Logits
from dsareid.models.losses import losses


def leaves(features: Features) -> Features:
    """Features of the same sizes that gradients end at."""
    return Features(*(None if x is None else x.detach().requires_grad_() for x in features))


def backward(tensors: list[Tensor]) -> None:
    torch.autograd.backward(tensors, [torch.ones_like(x) for x in tensors])


def parts(setting: Setting, learner: Learner) -> dict[str, Callable]:
    """A step's parts by name, and the whole of it."""
    device, model, config = learner.device, learner.model, setting.config
    split, sampler = setting.split, setting.sampler
    batches = endless(setting.data(config), sampler)
    image, dsap, label = (None if x is None else x.clone() for x in next(batches))
    autocast = torch.autocast(device.type, learner.dtype, enabled=learner.dtype != torch.float32)
    learner.step(iter([(batch := next(batches))]), 1e-5, teaching=False)  # sets modes and moments
    with autocast:
        f, d = map(leaves, model.streams(batch.image, batch.dsap))
        output = model.output(f, d)

    making = batch_config(config, device)
    index, repeat = (x[0] for x in sampler.epoch(0))
    stored = split.store.images, split.store.iuv
    if device.type == "cuda":
        stored = tuple(torch.from_numpy(x[:]).to(device) for x in stored)

    def make_batch() -> None:
        drawn = making.draw(0, split.rows[index], repeat)
        assemble(Samples(*stored, torch.from_numpy(split.rows[index]), drawn), making.input)

    def guide() -> None:
        with autocast:
            found = model.dsag(dsap)
        backward([x for x in found if x is not None])

    def main_stream() -> None:
        with autocast:
            found = model.mf(image)
        backward([x for x in found if x is not None])

    def heads() -> None:
        with autocast:
            logits = model.output(f, d).logits
        backward([x for x in logits if x is not None])

    def loss() -> None:
        logits = Logits(*(None if x is None else x.detach().requires_grad_() for x in output.logits))
        terms = losses(output._replace(z=leaves(output.z), logits=logits), label, config.loss)
        torch.stack([*terms.values()]).sum().backward()

    def optimizer() -> None:
        learner.optimizer.step()

    def whole() -> None:
        learner.step(batches, 1e-5, teaching=False)

    return {
        "data": make_batch,
        "guide": guide,
        "main stream": main_stream,
        "heads": heads,
        "losses": loss,
        "optimizer": optimizer,
        "whole step": whole,
    }


def measure(setting: Setting, name: str, rounds: int, result: Result) -> None:
    device, learner = setting.device, setting.learner()
    work = parts(setting, learner)
    seconds: dict[str, list[float]] = {part: [] for part in work}
    for turn in range(-2, rounds):
        for part, run in work.items():
            run()  # not timed: the caches are those of this part
            learner.optimizer.zero_grad()
            if part == "optimizer":
                for weight in learner.model.parameters():
                    weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
            wait(device)
            began = time.perf_counter()
            run()
            wait(device)
            if turn >= 0:
                seconds[part].append(time.perf_counter() - began)
    single = [sum(x) for x in zip(*(seconds[x] for x in work if x not in ("data", "whole step")))]
    seconds["rest"] = [all_ - parts_ for all_, parts_ in zip(seconds["whole step"], single)]
    result.add(
        "A training step", f"{name} preset, {setting.images} images", seconds, unit="ms", against="whole step"
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a data set or a store")
    options.add_argument("--presets", nargs="+", choices=sorted(PRESETS), default=["demo", "study"])
    options.add_argument("--device", default="auto")
    options.add_argument("--rounds", type=int, default=20)
    arguments = options.parse_args()
    keep_freed_memory()  # as the command does
    with Result(arguments) as result, tempfile.TemporaryDirectory() as folder:
        root = arguments.data or made_data(Path(folder))
        for name in arguments.presets:
            measure(Setting(name, arguments.device, root), name, arguments.rounds, result)


if __name__ == "__main__":
    main()
