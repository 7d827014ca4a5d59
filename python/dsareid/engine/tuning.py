"""The form of each branch convolution (models.branch_forms), measured on a GPU once and kept.

Which form is fast differs by card and library, up to tenfold. The first run on a card measures the layers
that it has, which takes seconds, and keeps what it found in convolutions.json in the cache of the user, by
card and version of torch.
"""

import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path, user_cache
from dsareid.models.branch import BranchConv2d
from dsareid.models.branch_forms import FORMS, grouped

_ROUNDS, _WARM_UP = 5, 2

Seconds = dict[str, float]
"""Of a step of a layer, by form."""

_TABLES = TypeAdapter(dict[str, dict[str, Seconds]])  # by device, by layer


class LayerInput(NamedTuple):
    """What a layer got in a step."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool
    needs_gradient: bool

    def made(self, device: torch.device) -> Tensor:
        """Random numbers like it."""
        x = torch.randn(self.shape, device=device).to(self.dtype)
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.contiguous(memory_format=layout).requires_grad_(self.needs_gradient)


@contextlib.contextmanager
def noted(model: nn.Module) -> Iterator[dict[BranchConv2d, LayerInput]]:
    """Note what each branch convolution of a model gets while the block runs."""
    found: dict[BranchConv2d, LayerInput] = {}

    def note(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, BranchConv2d)
        x = inputs[0]
        last = x.is_contiguous(memory_format=torch.channels_last)
        found[layer] = LayerInput(tuple(x.shape), x.dtype, last, x.requires_grad)

    layers = [layer for layer in model.modules() if isinstance(layer, BranchConv2d)]
    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def choose_forms(
    layers: Mapping[BranchConv2d, LayerInput],
    device: torch.device,
    dtype: torch.dtype,
    file: Path | None = None,
) -> None:
    """Give each layer its fastest form, from the table or measured now.

    Args:
        layers: as noted() found them.
        dtype: what autocast computes in.
        file: the table; default: convolutions.json in the user's cache.
    """
    file = file or user_cache() / "convolutions.json"
    tables = _read(file)
    table = tables.setdefault(_name(device), {})
    new = 0
    for layer, given in layers.items():
        key = f"{layer.extra_repr()}, {str(dtype)[6:]}, {given}"
        if key not in table or not table[key].keys() <= FORMS.keys():
            found = measured(layer, given, device, dtype)
            if not found:
                logger.warning(f"{key}: no form could be measured; it stays a grouped convolution")
                layer.form = "grouped"
                continue
            table[key] = found
            new += 1
        layer.form = min(table[key], key=lambda form: table[key][form])
    if new:
        counts = Counter(layer.form for layer in layers)
        words = ", ".join(f"{count} as {form}" for form, count in counts.most_common())
        logger.info(f"measured {new} convolutions of branches on {_name(device)}: {words}")
        _write(tables, file)


def measured(layer: BranchConv2d, given: LayerInput, device: torch.device, dtype: torch.dtype) -> Seconds:
    """Seconds of forward and backward in each form that runs here and gives what `grouped` gives."""
    x, weight = given.made(device), layer.weight.detach().clone().requires_grad_()
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    with autocast, torch.no_grad():
        expected = grouped(x, weight, layer.branches, layer.stride)
    size = expected.abs().max().item() + 1e-6
    found = {}
    for name, form in FORMS.items():

        def step(form: Callable = form) -> Tensor:
            with autocast:
                y = form(x, weight, layer.branches, layer.stride)
            y.backward(torch.ones_like(y))
            x.grad = weight.grad = None
            return y.detach()

        try:
            if (step() - expected).abs().max().item() <= 0.05 * size:
                found[name] = _median(step, device)
        except RuntimeError:  # no memory for it, or no kernel
            x.grad = weight.grad = None
    return found


def _median(step: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for turn in range(-_WARM_UP, _ROUNDS):
        _wait(device)
        began = time.perf_counter()
        step()
        _wait(device)
        if turn >= 0:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return f"{card}, torch {torch.__version__}"


def _read(file: Path) -> dict[str, dict[str, Seconds]]:
    try:
        return _TABLES.validate_json(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        logger.warning(f"{file}: not a table of convolutions, made anew ({type(error).__name__})")
        return {}


def _write(tables: dict[str, dict[str, Seconds]], file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary:
            temporary.write_bytes(_TABLES.dump_json(tables, indent=1))
    except (OSError, DSAError) as error:
        logger.warning(f"{error}; the next run measures the convolutions again")
