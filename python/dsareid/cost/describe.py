"""What a network costs, and what its guide adds: parameters, multiply-adds, time, memory of a training step.

The paper says that matching by f alone takes much less work than matching by both streams, and measures
nothing. This counts and measures it, layer by layer.
"""

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dsa_ext import CUDA_ERROR
from dsa_ext.selftest.measure import person_batch
from dsareid.data.batch import Batch, BatchConfig, assemble
from dsareid.engine.loop import Trainer, batch_config
from dsareid.ground.errors import DSAError
from dsareid.ground.machine import processor
from dsareid.models import DSAReID
from dsareid.runs.config import NetworkConfig, TrainConfig
from dsareid.runs.folder import build_model

MF, DSAG, FUSION, CLASSIFIERS = "MF-Stream", "DSAG-Stream", "fusion", "classifiers (training only)"

ROUNDS, SECONDS = 9, 3.0
"""Everything is timed at least so many times and for so long, in turn."""

_AVERAGED = {"head_g": "f_G", "head_l": "f_L", "conv5_g": "d_G", "conv5_l": "d_L"}
_WAYS = {
    "f": ("f, the MF-Stream alone", (MF,)),
    "z": ("z, both streams fused", (MF, DSAG, FUSION)),
    "d": ("d, the DSAG-Stream alone", (DSAG,)),
}
_UNGUIDED = {"dsa": "two-branch", "dsa-global": "baseline"}
_STATUS = Path("/proc/self/status")


class Layer(NamedTuple):
    """A line of a table."""

    name: str
    output: tuple[int, ...]  # of one image: branches where there are several, channels, rows, columns
    parameters: int
    multiply_adds: int  # for one image; a merge only adds
    modules: tuple[str, ...]  # without children, in the order of their calls; a merge has none


class _Call(NamedTuple):
    """What went through a module, of one image."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    multiply_adds: int


# ---- parameters and multiply-adds ----


def anatomy(config: TrainConfig, num_classes: int) -> dict[str, list[Layer]]:
    """The layers of a network by the part that they belong to: streams, fusion, classifiers.

    Nothing is computed, and no memory is taken.

    Args:
        num_classes: identities that the classifiers tell apart.

    Raises:
        DSAError: num_classes is less than 1.
    """
    if num_classes < 1:
        raise DSAError(f"--num-classes must be at least 1, not {num_classes}")
    with torch.device("meta"):
        model = build_model(config, num_classes)
    calls = _trace(model, config)
    parts = {MF: _mf_stream, DSAG: _dsag_stream, FUSION: _fusion, CLASSIFIERS: _classifiers}
    found = {title: list(layers(model, calls)) for title, layers in parts.items()}
    return {title: layers for title, layers in found.items() if layers}


def _trace(model: DSAReID, config: TrainConfig) -> dict[str, _Call]:
    """What each module without children did in a forward pass of training, in the order of the calls."""
    calls: dict[str, _Call] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        calls[name] = _Call(tuple(inputs[0].shape[1:]), tuple(output.shape[1:]), 0)

    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(partial(note, name))
    batch, size = 2, config.dsap_size  # the least that BatchNorm takes
    image = torch.empty(batch, 3, config.height, config.width, device="meta")
    dsap = torch.empty(batch, config.guide.parts, 3, size, size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.train()(image, dsap)
    counts = counter.get_flop_counts()
    for name, call in calls.items():
        operations = sum(counts.get(f"{type(model).__name__}.{name}", {}).values())
        calls[name] = call._replace(multiply_adds=operations // (2 * batch))  # 2 for a multiply-add
    return calls


def _layer(
    model: DSAReID, calls: dict[str, _Call], name: str, *modules: str, branches: int = 1, apart: bool = False
) -> Iterator[Layer]:
    """Modules as one layer; nothing where the model lacks them.

    Args:
        branches: how many share the channels of the output.
        apart: each branch is a module of its own instead.
    """
    inside = _calls_of(calls, modules)
    if not inside:
        return
    *_, last = inside.values()
    parameters = sum(p.numel() for m in modules for p in model.get_submodule(m).parameters())
    output = (branches, *last.output) if apart else _by_branch(last.output, branches)
    yield Layer(name, output, parameters, sum(call.multiply_adds for call in inside.values()), tuple(inside))


def _merge(calls: dict[str, _Call], name: str, branches: int, *following: str) -> Iterator[Layer]:
    """A merge, which is no module: its output is what the layer behind it takes."""
    for call in list(_calls_of(calls, following).values())[:1]:
        yield Layer(name, _by_branch(call.input, branches), 0, 0, ())


def _calls_of(calls: dict[str, _Call], modules: tuple[str, ...]) -> dict[str, _Call]:
    wanted = tuple(f"{module}." for module in modules)
    return {name: call for name, call in calls.items() if f"{name}.".startswith(wanted)}


def _by_branch(shape: tuple[int, ...], branches: int) -> tuple[int, ...]:
    return shape if branches == 1 else (branches, shape[0] // branches, *shape[1:])


def _mf_stream(model: DSAReID, calls: dict[str, _Call]) -> Iterator[Layer]:
    yield from _layer(model, calls, "trunk conv1", "mf.trunk.conv1", "mf.trunk.bn1")
    for stage in ("layer1", "layer2", "layer3"):
        yield from _layer(model, calls, f"trunk {stage}", f"mf.trunk.{stage}")
    yield from _layer(model, calls, "head_g", "mf.head_g")
    yield from _layer(model, calls, "head_l", "mf.head_l", branches=8)


def _dsag_stream(model: DSAReID, calls: dict[str, _Call]) -> Iterator[Layer]:
    if model.dsag is None:
        return
    parts = model.dsag.parts
    merged = 13 if parts == 24 else parts
    for name in ("conv1", "conv2", "conv3"):
        yield from _layer(model, calls, name, f"dsag.{name}", branches=parts)
    if parts == 24:
        yield from _merge(calls, "merge 24 to 13", 13, "dsag.conv4")
    yield from _layer(model, calls, "conv4", "dsag.conv4", branches=merged)
    if parts == 24:
        yield from _merge(calls, "merge 13 to 8", 8, "dsag.conv5_g", "dsag.conv5_l")
    yield from _layer(model, calls, "conv5_g", "dsag.conv5_g")
    yield from _layer(model, calls, "conv5_l", "dsag.conv5_l", branches=8)


def _fusion(model: DSAReID, calls: dict[str, _Call]) -> Iterator[Layer]:
    yield from _layer(model, calls, "z_G", "fusion.global_")
    yield from _layer(model, calls, "z_L", "fusion.local", branches=8, apart=True)


def _classifiers(model: DSAReID, calls: dict[str, _Call]) -> Iterator[Layer]:
    yield from _layer(model, calls, "f_G", "classify_f_global")
    yield from _layer(model, calls, "f_L", "classify_f_local", branches=8, apart=True)
    for vector in ("z", "d"):
        yield from _layer(model, calls, f"{vector}_G", f"classify_{vector}_global")
        yield from _layer(model, calls, f"{vector}_L", f"classify_{vector}_local")


# ---- time ----


class Seconds(NamedTuple):
    """What one image of a batch takes."""

    input: float
    network: float


class Inference:
    """A network and a batch of made-up people, to be timed as `dsareid eval` uses them, in float32.

    DensePose is not part of it.
    """

    def __init__(self, config: TrainConfig, num_classes: int, batch_size: int, device: torch.device):
        self.config, self.batch_size, self.device = config, batch_size, device
        self.model = build_model(config, num_classes).to(device).eval()
        people = person_batch(batch_size, config.height, config.width)
        self.stored = [x.permute(0, 2, 3, 1).contiguous().to(device) for x in people]  # [B, H, W, 3]
        self.guided = dataclasses.replace(batch_config(config, device), dtype=torch.float32)
        self.image, self.dsap = self.input(self.guided)

    def input(self, config: BatchConfig) -> tuple[Tensor, Tensor | None]:
        """What the network takes, from stored pixels (and maps) of its size."""
        return assemble(*self.stored, torch.arange(self.batch_size), None, config)

    def by_way(self) -> dict[str, Seconds]:
        """An image's time to be matched by "f", by "z" and by "d", as far as the network makes them.

        Medians over rounds in which every way is timed once. Inputs take a small part of a network's time,
        and so have rounds of their own, many more.
        """
        model, alone = self.model, dataclasses.replace(self.guided, guide=None)
        inputs = {"f": alone, "z": self.guided, "d": self.guided}
        networks = {
            "f": lambda: model(self.image),
            "z": lambda: model.fused(self.image, self.dsap),
            "d": lambda: model.guide(self.dsap),
        }
        chosen = ways(self.config)
        input_ = self._medians(lambda: [self._time(partial(self.input, inputs[way])) for way in chosen])
        network = self._medians(lambda: [self._time(networks[way]) for way in chosen])
        return {way: Seconds(*each) for way, *each in zip(chosen, input_, network)}

    def by_layer(self, parts: dict[str, list[Layer]]) -> dict[str, list[float]]:
        """An image's time in each layer of each stream, medians; a layer ends where the next begins."""
        entered, left = {}, {}
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
        """Medians of the seconds that run returns, an image's; the first round does not count."""
        run()
        results, began = [], self._now()
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
    """What images can be matched by: f, z or d."""
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


# ---- memory of a training step ----


def training_peak(config: TrainConfig, num_classes: int, batch_size: int, device: torch.device) -> int | None:
    """Most bytes that two training steps have in use at a time: parameters, gradients, Adam's moments,
    activations, and what the convolutions need besides. Neither data loading nor Python and its libraries.

    On CUDA what torch allocates. On the CPU what the resident memory of a new process grows by, the steps
    being all that it does; None where there is no /proc.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _train(config, num_classes, batch_size, device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _STATUS.exists():
        return None
    arguments = config, num_classes, batch_size, torch.get_num_threads()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_peak_of_process, *arguments).result()


def unguided(config: TrainConfig) -> TrainConfig | None:
    """The same network without its guide, where there is such a model."""
    if config.model not in _UNGUIDED:
        return None
    return dataclasses.replace(config, model=_UNGUIDED[config.model], guidance="add")


def _peak_of_process(config: TrainConfig, num_classes: int, batch_size: int, threads: int) -> int:
    """What the memory of this process, which has done nothing yet, grows by at most."""
    torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    # What is loaded at its first use is not to count: a step of a network of next to no size.
    tiny = NetworkConfig(width=1 / 64, head_width=1 / 32, depths=(1, 1, 1, 1))
    _train(dataclasses.replace(config, network=tiny, height=32, width=32, dsap_size=4), 2, 2, cpu)
    before = _resident("VmRSS")
    _train(config, num_classes, batch_size, cpu)
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    """Bytes of memory: VmRSS is what the process has, VmHWM the most it ever had (getrusage's maximum is
    its parent's where that is larger)."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise DSAError(f"{_STATUS} does not say {field}")


def _train(config: TrainConfig, num_classes: int, batch_size: int, device: torch.device) -> None:
    """Two steps, as Adam's moments are there from the end of the first one on."""
    # All that a trainer asks of its data before it runs is how many identities there are.
    trainer = Trainer(config, SimpleNamespace(identities=num_classes), None, device)
    trainer.position.epoch = config.epochs  # a guide that teaches does so by now
    trainer.model.train()
    options = {"dtype": trainer.dtype, "device": device}
    image = torch.randn(batch_size, config.height, config.width, 3, **options).permute(0, 3, 1, 2)
    dsap = torch.randn(batch_size, config.guide.parts, 3, config.dsap_size, config.dsap_size, **options)
    label = torch.arange(batch_size, device=device) // config.images % num_classes
    for _ in range(2):
        trainer._step(iter([Batch(image, dsap if config.guided else None, label)]), 1, 0.0)


# ---- what people read ----


def describe(config: TrainConfig, num_classes: int, batch_size: int, device: torch.device) -> Iterator[str]:
    """All of it, as texts, each as soon as it is there.

    Args:
        num_classes: identities that the classifiers tell apart.
        batch_size: images at a time, of what is measured.

    Raises:
        DSAError: an argument out of range, or a device without kernels or with too little memory.
    """
    if batch_size < 2:  # BatchNorm
        raise DSAError(f"--batch-size must be at least 2, not {batch_size}")
    if device.type == "cuda" and CUDA_ERROR:
        raise DSAError(f"--device {device}: {CUDA_ERROR}; use --device cpu, or rebuild")
    parts = anatomy(config, num_classes)
    where = f"batches of {batch_size} on {_described(device)}"
    with _memory_said(batch_size, device):
        print("measuring the time of inference ...", file=sys.stderr)
        inference = Inference(config, num_classes, batch_size, device)
        yield format_anatomy(config, parts, inference.by_layer(parts))
        yield format_inference(config, parts, inference.by_way(), where)
        del inference
        print("measuring the memory of training steps ...", file=sys.stderr)
        models = [model for model in (unguided(config), config) if model]
        peaks = {_name(model): training_peak(model, num_classes, batch_size, device) for model in models}
    precision = str(batch_config(config, device).dtype).removeprefix("torch.")
    yield format_peaks(peaks, f"{precision}, {where}", device)


def format_anatomy(
    config: TrainConfig, parts: dict[str, list[Layer]], seconds: dict[str, list[float]] | None = None
) -> str:
    """A table for each part: its layers, their share of the part's multiply-adds, their time if given."""
    guide = f", {config.guide.parts} part images of {config.dsap_size}x{config.dsap_size}"
    lines = [f"{_name(config)}: images of {config.height}x{config.width}{guide if config.guided else ''}"]
    for title, layers in parts.items():
        times = (seconds or {}).get(title, [])
        head = _row(title, "output an image", "parameters", "multiply-adds", "share", "ms" if times else "")
        lines += ["", head]
        whole = max(_multiply_adds(layers), 1)
        for k, layer in enumerate(layers):
            mean = f", mean: {_AVERAGED[layer.name]}" if layer.name in _AVERAGED else ""
            share = f"{layer.multiply_adds / whole:.1%}"
            counts = [f"{layer.parameters:,}", f"{layer.multiply_adds:,}", share] if layer.modules else "---"
            output = " x ".join(map(str, layer.output))
            lines.append(_row(f"  {layer.name}{mean}", output, *counts, _ms(times[k]) if times else ""))
        counts = [f"{count(layers):,}" for count in (_parameters, _multiply_adds)]
        lines.append(_row("  in all", "", *counts, "", _ms(sum(times)) if times else ""))
    return "\n".join(lines)


def format_inference(
    config: TrainConfig, parts: dict[str, list[Layer]], seconds: dict[str, Seconds], where: str
) -> str:
    """What matching an image costs by each way, and how many times as much the fused one takes."""
    rows = {}
    for way, each in seconds.items():
        title, used = _WAYS[way]
        layers = [layer for part in used for layer in parts.get(part, [])]
        rows[title] = (_parameters(layers), _multiply_adds(layers), *each, sum(each))
    heads = ("parameters", "multiply-adds", "input ms", "network ms", "both ms")
    lines = [_costs("inference, an image, by", *heads)]
    for title, (parameters, multiply_adds, *times) in rows.items():
        lines.append(_costs(f"  {title}", f"{parameters:,}", f"{multiply_adds:,}", *map(_ms, times)))
    if len(rows) == 2:
        times = (fused / alone for alone, fused in zip(*rows.values()))
        lines.append(_costs("  times as much", *(f"{x:.2f}" for x in times)))
    lines += [
        f"  float32, {where}; medians of paired rounds",
        "  input: from stored pixels of the network's size to normalised images"
        + (", and to what the guide is fed" if config.guided else ""),
    ]
    if config.guided and config.guide.needs_iuv:
        lines.append("  not included: DensePose itself, which everything but f needs for every image")
    if config.guidance == "distill":
        lines.append("  nothing is fused: the guide teaches f, and is there in training only")
    return "\n".join(lines)


def format_peaks(peaks: dict[str, int | None], how: str, device: torch.device) -> str:
    """The peak memory of a training step by model; bytes, None where it was not measured."""
    lines = ["peak memory of a training step"]
    for model, peak in peaks.items():
        size = "not measured: this system has no /proc" if peak is None else f"{peak / 1e6:,.0f} MB"
        lines.append(f"  {model:26}{size:>12}")
    kind = "allocated on the device" if device.type == "cuda" else "resident in a process of its own"
    lines += [
        f"  {how}",
        f"  {kind}: parameters, gradients, Adam's moments, activations, workspace;",
        "  not included: data loading, Python and its libraries",
    ]
    return "\n".join(lines)


@contextlib.contextmanager
def _memory_said(batch_size: int, device: torch.device) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # The system kills a process that takes all; torch's own error on the CPU has no class of its own.
        said = isinstance(error, (torch.OutOfMemoryError, BrokenProcessPool))
        if not said and "can't allocate memory" not in str(error):
            raise
        raise DSAError(
            f"--batch-size {batch_size}: more than the memory of {device} holds; try a smaller one"
        ) from error


def _name(config: TrainConfig) -> str:
    return config.model if config.guidance == "add" else f"{config.model}, guidance {config.guidance}"


def _parameters(layers: list[Layer]) -> int:
    return sum(layer.parameters for layer in layers)


def _multiply_adds(layers: list[Layer]) -> int:
    return sum(layer.multiply_adds for layer in layers)


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}"


def _row(name: str, *cells: str) -> str:
    return "{:28}{:20}{:>14}{:>17}{:>9}{:>10}".format(name, *cells).rstrip()


def _costs(title: str, *cells: str) -> str:
    return "{:28}{:>14}{:>17}{:>12}{:>14}{:>12}".format(title, *cells)


def _described(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"the CPU ({processor()}, {threads} thread{'s' if threads > 1 else ''})"
