"""Merging, forward and with backward, against torch operators.

torch.compile of them is tried where there is most to fuse, as it takes its time: bfloat16, residual and ReLU,
forward and backward.
"""

import functools
from collections.abc import Callable, Iterator

import torch
from contests.contest import SETS, Contest, Work, close, compiled, equal, type_name
from torch import Tensor

from dsa_ext import merge_parts
from dsa_ext.merge import LEVELS
from dsa_ext.selftest.operations.merge import MERGES, merge_bytes, merge_gradient_bytes


@functools.cache
def group_of(level: str, device: torch.device) -> Tensor:
    """Made once: copying it to the GPU in every call would wait for the GPU in every call."""
    return torch.tensor(LEVELS[level], device=device)


def merge_index_add(features: Tensor, level: str, residual: Tensor | None) -> Tensor:
    if residual is not None:
        features = (features + residual).relu()
    group = group_of(level, features.device)
    merged = features.new_zeros((features.shape[0], max(LEVELS[level]) + 1, *features.shape[2:]))
    return merged.index_add(1, group, features)


def merge_slices(features: Tensor, level: str, residual: Tensor | None) -> Tensor:
    """No index: members are slices, added and stacked; what torch.compile can fuse."""
    if residual is not None:
        features = (features + residual).relu()
    members: dict[int, Tensor] = {}
    for part, group in enumerate(LEVELS[level]):
        slice_ = features[:, part]
        members[group] = members[group] + slice_ if group in members else slice_
    return torch.stack([members[group] for group in sorted(members)], 1)


def ours(features: Tensor, level: str, residual: Tensor | None) -> Tensor:
    return merge_parts(features, level, residual, relu=residual is not None)


def with_gradient(function: Callable, inputs: list[Tensor], level: str, grad: Tensor) -> tuple[Tensor, ...]:
    merged = function(inputs[0], level, inputs[1] if len(inputs) > 1 else None)
    return merged.detach(), *torch.autograd.grad(merged, inputs, grad)


def merge_contest(
    level: str,
    shape: tuple[int, int, int],
    groups: int,
    dtype: torch.dtype,
    fused: bool,
    backward: bool,
    device: str,
) -> Contest:
    batch, parts, inner = shape

    def draw(*size):
        return torch.randn(size, device=device, dtype=dtype)

    sets = [[draw(*shape) for _ in range(1 + fused)] for _ in range(SETS)]
    grad = draw(batch, groups, inner)
    for inputs in sets if backward else ():
        for x in inputs:
            x.requires_grad_()

    def call(function: Callable) -> Work:
        if backward:
            return lambda turn: with_gradient(function, sets[turn % SETS], level, grad)
        return lambda turn: function(sets[turn % SETS][0], level, sets[turn % SETS][1] if fused else None)

    peers = {
        "torch index_add": lambda: call(merge_index_add),
        "torch slices, stack": lambda: call(merge_slices),
    }
    if backward and fused and dtype == torch.bfloat16:
        peers["the same, torch.compile"] = lambda: call(compiled(merge_slices))
    size = dtype.itemsize
    moved = merge_bytes(batch, parts, groups, inner, element_bytes=size, residual=fused)
    if backward:
        moved += merge_gradient_bytes(batch, parts, groups, inner, element_bytes=size, relu=fused)
    title = f"merge {level}, {list(shape)} {type_name(dtype)}"
    title += ", residual + ReLU" if fused else ""
    title += ", forward + backward" if backward else ", forward"
    return Contest(title, moved, call(ours), peers, equal if dtype == torch.float32 else close)


def contests(batch: int, device: str) -> Iterator[Contest]:
    for level, parts, groups, pixels, channels in MERGES:
        for dtype in (torch.float32, torch.bfloat16):
            for fused in (False, True):
                for backward in (False, True):
                    shape = (batch * pixels, parts, channels)
                    yield merge_contest(level, shape, groups, dtype, fused, backward, device)
