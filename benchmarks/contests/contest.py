"""What the contests of benchmarks/kernels.py share: a contest, and how results are compared."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dsareid.ground.errors import first_line

SIZE = 32
SETS = 3  # of buffers, in turn

Work = Callable[[int], object]


@dataclass
class Contest:
    """Ours and its peers at one size.

    Attributes:
        bytes: what must move.
        ours: is called with the number of the round and returns its result, as each peer is.
        peers: makes each peer when its turn comes. One that cannot be made here raises.
        agree: compares a peer's result with ours; raises AssertionError if they differ.
        apart: peers that `agree` cannot judge, as their results depend on chance or on all pixels of a
            cell. They are compared where none meet, as they are made.
    """

    title: str
    bytes: int
    ours: Work
    peers: dict[str, Callable[[], Work]]
    agree: Callable[[object, object], None]
    apart: frozenset[str] = frozenset()


def verified(contest: Contest) -> tuple[dict[str, Work], dict[str, str], dict[str, str]]:
    """Make each peer and compare its results with ours.

    Returns:
        Ours and the peers to be timed, the peers that cannot run here with the reason, and those whose
        result is another one, with the difference.
    """
    work, missing, wrong = {"dsa_ext": contest.ours}, {}, {}
    for name, build in contest.peers.items():
        try:
            peer = build()
            if name not in contest.apart:
                _compare(contest, peer)
        except AssertionError as error:
            wrong[name] = first_line(error)
        except Exception as error:  # a compiler or a library that is not there, or not for this GPU
            missing[name] = f"{type(error).__name__}: {first_line(error)}"
        else:
            work[name] = peer
    return work, missing, wrong


def _compare(contest: Contest, peer: Work) -> None:
    for turn in range(SETS):
        expected = contest.ours(turn)
        expected = expected.clone() if isinstance(expected, Tensor) else expected  # it may be reused
        contest.agree(peer(turn), expected)


def equal(got: Tensor | tuple, expected: Tensor | tuple) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def close(got: Tensor | tuple, expected: Tensor | tuple) -> None:
    """bfloat16: the peers round after each step, we round once."""
    torch.testing.assert_close(got, expected, rtol=2e-2, atol=2e-2)


def same_colours(got: Tensor, expected: Tensor) -> None:
    """uint8 exactly. The last place of floats may differ: on CUDA torch divides by 255 by multiplying
    with its reciprocal. Another winner of a cell would be another random colour."""
    rtol = {torch.uint8: 0, torch.float32: 1e-6, torch.bfloat16: 8e-3}[expected.dtype]
    torch.testing.assert_close(got, expected, rtol=rtol, atol=0)


def compiled(function: Callable) -> Callable:
    """torch.compile, anew: what was compiled for another size does not make it dynamic."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False)


def type_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
