"""The layers of a network with their parameters and multiply-adds, counted from shapes alone."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dsareid.ground.errors import DSAError
from dsareid.models.reid import DSAReID
from dsareid.runs.config import TrainConfig
from dsareid.runs.network import build_model, input_config

MF, DSAG, FUSION, CLASSIFIERS = "MF-Stream", "DSAG-Stream", "fusion", "classifiers (training only)"


class Layer(NamedTuple):
    """A line of a table."""

    name: str
    output: tuple[int, ...]  # for one image: branches (if several), channels, rows, columns
    parameters: int
    multiply_adds: int  # for one image; a merge only adds
    modules: tuple[str, ...]  # names of its leaf modules, in the order of their calls; a merge has none


class _Call(NamedTuple):
    """A module's input and output shapes and its multiply-adds, for one image."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    multiply_adds: int


def anatomy(config: TrainConfig, num_classes: int) -> dict[str, list[Layer]]:
    """The layers of a network, grouped by part: streams, fusion, classifiers.

    Everything is on the meta device: nothing is computed, and no memory is taken.

    Args:
        num_classes: identities in the training set.

    Raises:
        DSAError: num_classes is less than 1.
    """
    if num_classes < 1:
        raise DSAError(f"`num_classes` must be at least 1, not {num_classes}")
    with torch.device("meta"):
        model = build_model(config, num_classes)
    calls = _trace(model, config)
    parts = {MF: _mf_stream, DSAG: _dsag_stream, FUSION: _fusion, CLASSIFIERS: _classifiers}
    found = {title: list(layers(model, calls)) for title, layers in parts.items()}
    return {title: layers for title, layers in found.items() if layers}


def _trace(model: DSAReID, config: TrainConfig) -> dict[str, _Call]:
    """The calls of all leaf modules in a forward pass of training, in order."""
    calls: dict[str, _Call] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        calls[name] = _Call(tuple(inputs[0].shape[1:]), tuple(output.shape[1:]), 0)

    for name, module in model.named_modules():
        if not list(module.children()):
            module.register_forward_hook(partial(note, name))
    batch = 2  # the smallest that BatchNorm takes
    image = torch.empty(batch, 3, config.height, config.width, device="meta")
    dsap = torch.empty(input_config(config, torch.device("cpu")).guide_shape(batch), device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.train()(image, dsap)
    counts = counter.get_flop_counts()
    for name, call in calls.items():
        operations = sum(counts.get(f"{type(model).__name__}.{name}", {}).values())
        calls[name] = call._replace(multiply_adds=operations // (2 * batch))  # 2 operations per multiply-add
    return calls


def _layer(
    model: DSAReID, calls: dict[str, _Call], name: str, *modules: str, branches: int = 1
) -> Iterator[Layer]:
    """Modules as one layer; nothing if the model lacks them.

    Args:
        branches: how many branches share the channels of the output.
    """
    inside = _calls_of(calls, modules)
    if not inside:
        return
    *_, last = inside.values()
    parameters = sum(p.numel() for m in modules for p in model.get_submodule(m).parameters())
    output = _by_branch(last.output, branches)
    yield Layer(name, output, parameters, sum(call.multiply_adds for call in inside.values()), tuple(inside))


def _merge(calls: dict[str, _Call], name: str, branches: int, *following: str) -> Iterator[Layer]:
    """A merge, which is no module: its output is the input of the layer that follows."""
    for call in list(_calls_of(calls, following).values())[:1]:
        yield Layer(name, _by_branch(call.input, branches), 0, 0, ())


def _calls_of(calls: dict[str, _Call], modules: tuple[str, ...]) -> dict[str, _Call]:
    wanted = tuple(f"{module}." for module in modules)
    return {name: call for name, call in calls.items() if f"{name}.".startswith(wanted)}


def _by_branch(shape: tuple[int, ...], branches: int) -> tuple[int, ...]:
    return shape if branches == 1 else (branches, shape[0] // branches, *shape[1:])


def _mf_stream(model: DSAReID, calls: dict[str, _Call]) -> Iterator[Layer]:
    if model.mf is None:
        return
    for names in _with_their_norms(model.mf.trunk):
        yield from _layer(model, calls, f"trunk {names[0]}", *(f"mf.trunk.{name}" for name in names))
    yield from _layer(model, calls, "head_g", "mf.head_g")
    yield from _layer(model, calls, "head_l", "mf.head_l", branches=8)


def _with_their_norms(trunk: nn.Module) -> Iterator[list[str]]:
    """The children of a trunk that have parameters, each with the normalisation behind it."""
    names: list[str] = []
    for name, child in trunk.named_children():
        if next(child.parameters(), None) is None:
            continue
        if names and not isinstance(child, nn.modules.batchnorm._NormBase):
            yield names
            names = []
        names.append(name)
    if names:
        yield names


def _dsag_stream(model: DSAReID, calls: dict[str, _Call]) -> Iterator[Layer]:
    if model.dsag is None:
        return
    for name in ("conv1", "conv2", "conv3"):
        yield from _layer(model, calls, name, f"dsag.{name}", branches=24)
    yield from _merge(calls, "merge 24 to 13", 13, "dsag.conv4")
    yield from _layer(model, calls, "conv4", "dsag.conv4", branches=13)
    yield from _merge(calls, "merge 13 to 8", 8, "dsag.conv5_g", "dsag.conv5_l")
    yield from _layer(model, calls, "conv5_g", "dsag.conv5_g")
    yield from _layer(model, calls, "conv5_l", "dsag.conv5_l", branches=8)


def _fusion(model: DSAReID, calls: dict[str, _Call]) -> Iterator[Layer]:
    yield from _layer(model, calls, "z_G", "fusion.global_")
    yield from _layer(model, calls, "z_L", "fusion.local", branches=8)


def _classifiers(model: DSAReID, calls: dict[str, _Call]) -> Iterator[Layer]:
    yield from _layer(model, calls, "f_G", "classify_f_global")
    yield from _layer(model, calls, "f_L", "classify_f_local", branches=8)
    for vector in ("z", "d"):
        yield from _layer(model, calls, f"{vector}_G", f"classify_{vector}_global")
        yield from _layer(model, calls, f"{vector}_L", f"classify_{vector}_local")
    yield from _layer(model, calls, "pooled parts", "pooling", branches=8)
    yield from _layer(model, calls, "texture", "texture")
