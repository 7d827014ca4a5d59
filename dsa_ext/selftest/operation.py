"""The record of an operation. It feeds the self-test's table, the bandwidths and the roofline, the tests of
tests/dsa_ext and the kernels that NVRTC compiles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by element size in bytes

Check = Callable[[str], str | None]
"""Given a device, returns what is wrong, or None."""


class Case(NamedTuple):
    """`ours(device)` and `twin()` give lists of tensors that must be the same."""

    label: str
    ours: Callable[[str], list[Tensor]]
    twin: Callable[[], list[Tensor]]


class Call(NamedTuple):
    """An out= form: inputs that may be overwritten, the output, and the call itself."""

    inputs: list[Tensor]
    out: Tensor
    run: Callable[[], object]


class Typical(NamedTuple):
    """An operation at a size it meets in training or evaluation.

    Attributes:
        name: what the tables call it.
        bytes: what must move between the chip and its memory: every input that is needed is read once, every
            output is written once, and nothing is found in a cache. Divided by the bandwidth of a large copy
            it gives a floor for the time, far below which no version runs.
        prepare: makes the inputs on a device and returns the operation as a function of no arguments.
    """

    name: str
    bytes: int
    prepare: Callable[[str], Callable[[], object]]


@dataclass(frozen=True)
class Operation:
    """Everything about an operation but its code. Each file of dsa_ext/selftest/operations defines one.

    Attributes:
        name: that of its files, csrc/NAME.* and dsa_ext/NAME.py.
        function, twin: the public function, and the same in plain torch.
        cases: groups of cases by title: odd sizes, types, strides, and gradients.
        typical: given a number of images, the calls that are timed.
        kernels: instances of its CUDA kernels, as C++ names them.
        calls: given a device, its out= forms, which neither wait for the device nor allocate.
        large: checks with tensors of more elements than the second argument, `beyond`.
        checks: other checks on CUDA.
    """

    name: str
    function: Callable
    twin: Callable
    cases: Callable[[], dict[str, list[Case]]]
    typical: Callable[[int], list[Typical]] = lambda batch: []
    kernels: tuple[str, ...] = ()
    calls: Callable[[str], dict[str, Call]] = lambda device: {}
    large: Mapping[str, Callable[..., str | None]] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)


def compare(case: Case, device: str) -> str | None:
    """What differs between CUDA and the CPU backend, or between the CPU backend and the twin."""
    return difference(case.ours(device), case.twin() if device == "cpu" else case.ours("cpu"))


def difference(got: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    """What differs, bit for bit, in words; None if nothing does."""
    if len(got) != len(expected):
        return f"{len(got)} results instead of {len(expected)}"
    for index, (a, b) in enumerate(zip(got, expected)):
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"result {index} is {a.dtype} {list(a.shape)}, not {b.dtype} {list(b.shape)}"
        a, b = a.detach().cpu().contiguous(), b.detach().cpu().contiguous()
        as_bits = INTEGER[a.element_size()]
        wrong = a.view(as_bits) != b.view(as_bits)
        if wrong.any():
            at = tuple(wrong.nonzero()[0].tolist())
            return (
                f"result {index}: {int(wrong.sum())} of {wrong.numel()} elements differ, "
                f"the first at {at}: {a[at].item()!r} instead of {b[at].item()!r}"
            )
    return None
