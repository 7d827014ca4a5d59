"""The time of inference, of its inputs, networks and layers, as medians of paired rounds."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dsa_ext.selftest.measure import person_batch
from dsareid.cost.anatomy import DSAG, MF, Layer
from dsareid.data.batch import InputConfig, assemble
from dsareid.data.guide_input import Samples
from dsareid.runs.config import TrainConfig
from dsareid.runs.network import build_model, input_config

ROUNDS, SECONDS = 9, 3.0
"""Everything is timed in turn, in at least this many rounds and for at least this many seconds."""


class Seconds(NamedTuple):
    """The time of one image of a batch."""

    input: float
    network: float


class Inference:
    """A network and a batch of synthetic people, to time as `dsareid eval` uses them, in float32.

    The time of DensePose is not included.
    """

    def __init__(self, config: TrainConfig, num_classes: int, batch_size: int, device: torch.device):
        self.config, self.batch_size, self.device = config, batch_size, device
        self.model = build_model(config, num_classes).to(device).eval()
        people = person_batch(batch_size, config.height, config.width)
        stored = (x.permute(0, 2, 3, 1).contiguous().to(device) for x in people)
        self.images, self.iuv = stored  # [B, H, W, 3]
        self.guided = dataclasses.replace(input_config(config, device), dtype=torch.float32)
        self.image, self.dsap = self.input(self.guided)

    def input(self, config: InputConfig) -> tuple[Tensor, Tensor | None]:
        """The network's input, made from stored pixels (and maps) of its size."""
        return assemble(Samples(self.images, self.iuv, torch.arange(self.batch_size), None), config)

    def by_way(self) -> dict[str, Seconds]:
        """The time of one image when matched by "f", "z" or "d", for each of ways().

        Medians over rounds in which each is timed once. Inputs are much faster than networks, so they have
        rounds of their own, and many more.
        """
        model, alone = self.model, dataclasses.replace(self.guided, guide=None)
        inputs = {"f": alone, "z": self.guided, "d": self.guided}
        dsap = torch.empty(0) if self.dsap is None else self.dsap  # not used: the network makes f alone
        networks: dict[str, Callable[[], Tensor]] = {
            "f": lambda: model(self.image),
            "z": lambda: model.fused(self.image, dsap),
            "d": lambda: model.guide(dsap),
        }
        chosen = ways(self.config)
        input_ = self._medians(lambda: [self._time(partial(self.input, inputs[way])) for way in chosen])
        network = self._medians(lambda: [self._time(networks[way]) for way in chosen])
        return {way: Seconds(*each) for way, *each in zip(chosen, input_, network)}

    def by_layer(self, parts: dict[str, list[Layer]]) -> dict[str, list[float]]:
        """The median time of one image in each layer of each stream; a layer ends where the next begins."""
        entered: dict[str, float] = {}
        left: dict[str, float] = {}
        hooks = []
        for name, module in self.model.named_modules():
            hooks.append(module.register_forward_pre_hook(partial(self._stamp, entered, name)))
            hooks.append(module.register_forward_hook(partial(self._stamp, left, name)))
        streams = [(title, stream) for title, stream in ((MF, "mf"), (DSAG, "dsag")) if title in parts]

        def run() -> list[float]:
            self.model.streams(self.image, self.dsap)
            return [x for title, stream in streams for x in _spans(parts[title], stream, entered, left)]

        seconds = iter(self._medians(run))
        for hook in hooks:
            hook.remove()
        return {title: [next(seconds) for _ in parts[title]] for title, _ in streams}

    @torch.inference_mode()
    def _medians(self, run: Callable[[], list[float]]) -> list[float]:
        """Medians of the seconds that run returns, divided by the batch; the first round does not count."""
        run()
        results: list[list[float]] = []
        began = self._now()
        while len(results) < ROUNDS or self._now() - began < SECONDS:
            results.append(run())
        return [statistics.median(times) / self.batch_size for times in zip(*results)]

    def _time(self, step: Callable[[], object]) -> float:
        began = self._now()
        step()
        return self._now() - began

    def _stamp(self, stamps: dict[str, float], name: str, *_) -> None:
        stamps[name] = self._now()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def ways(config: TrainConfig) -> list[str]:
    """The features whose time is measured: f, and z if the streams are fused; d of a DSAG-Stream alone."""
    if config.streams == "dsag":
        return ["d"]
    return ["f", "z"] if config.streams == "both" and config.guidance != "distill" else ["f"]


def _spans(
    layers: list[Layer], stream: str, entered: dict[str, float], left: dict[str, float]
) -> list[float]:
    """Seconds of each layer of a stream, from when modules were entered and left."""
    begins, last = [], ""
    for layer in layers:
        begins.append(entered[layer.modules[0]] if layer.modules else left[last])
        last = layer.modules[-1] if layer.modules else last
    return [end - begin for begin, end in zip(begins, [*begins[1:], left[stream]])]
