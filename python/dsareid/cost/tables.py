"""What a network costs, and what its guide adds, as tables: parameters, multiply-adds, time, memory.

The paper says that matching by f alone takes much less work than matching by both streams, but gives no
figures. This module counts and measures, layer by layer.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import torch

from dsa_ext import CUDA_ERROR
from dsareid.cost.anatomy import DSAG, FUSION, MF, Layer, anatomy
from dsareid.cost.memory import training_peak
from dsareid.cost.timing import Inference, Seconds
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.machine import processor
from dsareid.models.table import MODELS
from dsareid.runs.config import TrainConfig
from dsareid.runs.network import input_config

_AVERAGED = {"head_g": "f_G", "head_l": "f_L", "conv5_g": "d_G", "conv5_l": "d_L"}
_WAYS = {
    "f": ("f, the MF-Stream alone", (MF,)),
    "z": ("z, both streams fused", (MF, DSAG, FUSION)),
    "d": ("d, the DSAG-Stream alone", (DSAG,)),
}


def cost_tables(
    config: TrainConfig, num_classes: int, batch_size: int, device: torch.device
) -> Iterator[str]:
    """All tables as texts, each as soon as it is measured.

    Args:
        num_classes: identities in the training set.
        batch_size: images in a batch, for all measurements.

    Raises:
        DSAError: an argument out of range, or a device without kernels or with too little memory.
    """
    if batch_size < 2:  # BatchNorm
        raise DSAError(f"`batch_size` must be at least 2, not {batch_size}")
    if device.type == "cuda" and CUDA_ERROR:
        raise DSAError(f"`device={device}`: {CUDA_ERROR}; use `device=cpu`, or rebuild")
    parts = anatomy(config, num_classes)
    where = f"batches of {batch_size} on {_device_name(device)}"
    with _naming_memory(batch_size, device):
        logger.info("measuring the time of inference ...")
        inference = Inference(config, num_classes, batch_size, device)
        yield format_anatomy(config, parts, inference.by_layer(parts))
        yield format_inference(config, parts, inference.by_way(), where)
        del inference
        logger.info("measuring the memory of training steps ...")
        models = [model for model in (without_guide(config), config) if model]
        peaks = {_name(model): training_peak(model, num_classes, batch_size, device) for model in models}
    precision = str(input_config(config, device).dtype).removeprefix("torch.")
    yield format_peaks(peaks, f"{precision}, {where}", device)


def format_anatomy(
    config: TrainConfig, parts: dict[str, list[Layer]], seconds: dict[str, list[float]] | None = None
) -> str:
    """A table for each part: its layers, their share of the part's multiply-adds, their time if given."""
    guide = ""
    if config.guide:
        shape = input_config(config, torch.device("cpu")).guide_shape(1)
        guide = " and maps" if len(shape) == 3 else f", 24 part images of {shape[3]}x{shape[4]}"
    lines = [f"{_name(config)}: images of {config.height}x{config.width}{guide}"]
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
    """The cost of matching an image by each kind of feature, and how many times as much z takes as f."""
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
        ratios = (fused / alone for alone, fused in zip(*rows.values()))
        lines.append(_costs("  times as much", *(f"{ratio:.2f}" for ratio in ratios)))
    lines += [
        f"  float32, {where}; medians of paired rounds",
        "  input: from stored pixels of the network's size to normalised images"
        + (", and to the guide input" if config.guide and list(seconds) != ["f"] else ""),
    ]
    if config.needs_iuv and list(seconds) != ["f"]:
        lines.append("  not included: DensePose itself, which everything but f needs for every image")
    if config.guidance == "distill":
        lines.append("  nothing is fused: the guide teaches f, and is there in training only")
    return "\n".join(lines)


def format_peaks(peaks: dict[str, int | None], how: str, device: torch.device) -> str:
    """The peak memory of a training step by model; bytes, None if it was not measured."""
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


def without_guide(config: TrainConfig) -> TrainConfig | None:
    """The same network without its guide; None if there is no such model."""
    unguided = MODELS[config.model].unguided
    if unguided is None:
        return None
    return dataclasses.replace(config, model=unguided, guidance="add", guide_input="part-images")


@contextlib.contextmanager
def _naming_memory(batch_size: int, device: torch.device) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # The system kills a process that uses up the memory; torch's error on the CPU has no own class.
        known = isinstance(error, (torch.OutOfMemoryError, BrokenProcessPool))
        if not known and "can't allocate memory" not in str(error):
            raise
        raise DSAError(
            f"`batch_size={batch_size}` needs more memory than {device} has; try a smaller one"
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


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"the CPU ({processor()}, {threads} thread{'s' if threads > 1 else ''})"
