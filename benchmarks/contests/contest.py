"""What the contests of benchmarks/kernels.py share: a contest, its peers, and how results are compared."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 32
SETS = 3  # of buffers, in turn

Work = Callable[[int], object]


@dataclass
class Contest:
    """Ours and its peers at one size.

    Attributes:
        bytes: what must move.
        work: each is called with the number of the round and returns its result.
        agree: compares a peer's result with ours; raises if they differ.
        missing: peers that cannot run here, with the reason.
    """

    title: str
    bytes: int
    work: dict[str, Work]
    agree: Callable[[object, object], None]
    missing: dict[str, str]


def equal(got: Tensor | tuple, expected: Tensor | tuple) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def close(got: Tensor | tuple, expected: Tensor | tuple) -> None:
    """float16: the peers round after each step, we round once."""
    torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-3)


def same_colours(got: Tensor, expected: Tensor) -> None:
    """uint8 exactly. The last place of floats may differ: on CUDA torch divides by 255 by multiplying
    with its reciprocal. Another winner of a cell would be another random colour."""
    rtol = {torch.uint8: 0, torch.float32: 1e-6, torch.float16: 2e-3}[expected.dtype]
    torch.testing.assert_close(got, expected, rtol=rtol, atol=0)


def peers(make: dict[str, Callable[[], object]]) -> tuple[dict, dict[str, str]]:
    """Make each peer; those that cannot be made or run here are returned with the reason."""
    made, missing = {}, {}
    for name, build in make.items():
        try:
            made[name] = build()
        except Exception as error:  # a compiler or a library that is not there, or not for this GPU
            missing[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return made, missing


def compiled(function: Callable, *arguments) -> Callable:
    """torch.compile, and one run, in which it compiles."""
    result = torch.compile(function, dynamic=False)
    result(*arguments)
    return result
