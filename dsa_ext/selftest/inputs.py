"""Inputs of the cases: random tensors, IUV maps, and where they lie in memory."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

FLOATING = (torch.float32, torch.float16, torch.bfloat16)
MEAN, STD = (0.485, 0.456, 0.406, 0.3, 0.2), (0.229, 0.224, 0.225, 0.3, 0.1)
NORMALISED: dict[str, Any] = {"mean": MEAN[:3], "std": STD[:3]}
SCALINGS: tuple[dict[str, Any], ...] = ({}, NORMALISED)

PARTS = ((24, False), (13, False), (13, True), (8, False), (8, True))
"""All valid pairs of parts and mirror."""


def spread(shape: Sequence[int], dtype: torch.dtype, layout: str, device: str) -> tuple[Tensor, Tensor]:
    """A poisoned buffer, and a view of the given shape that lies in it as `layout` says."""
    shape = list(shape)
    view: Callable[[Tensor], Tensor]
    if layout == "plain":
        stored, view = shape, lambda base: base
    elif layout == "channels last":  # of [..., C, H, W]
        stored, view = [*shape[:-3], *shape[-2:], shape[-3]], lambda base: base.movedim(-1, -3)
    elif layout == "swapped":
        stored, view = [*shape[:-2], shape[-1], shape[-2]], lambda base: base.transpose(-1, -2)
    elif layout == "gaps":
        stored, view = [*shape[:-1], 2 * shape[-1] + 1], lambda base: base[..., 1::2]
    elif layout == "padded planes":  # each [H, W] contiguous, from a multiple of 16 elements on
        count = shape[-2] * shape[-1]
        stored, view = [*shape[:-2], _padded(count)], lambda base: base[..., :count].unflatten(-1, shape[-2:])
    elif layout == "padded pixels":  # the same with [H, W, C]
        count = math.prod(shape[-3:])
        stored = [*shape[:-3], _padded(count)]
        view = lambda base: base[..., :count].unflatten(-1, [*shape[-2:], shape[-3]]).movedim(-1, -3)  # noqa: E731
    elif layout == "offset":  # contiguous, and not aligned to more than one element
        stored, view = [math.prod(shape) + 1], lambda base: base[1:].view(shape)
    else:
        raise ValueError(f"unknown layout {layout!r}")
    base = torch.full(stored, 165 if dtype == torch.uint8 else -12345, dtype=dtype, device=device)
    return base, view(base)


def _padded(count: int) -> int:
    return count // 16 * 16 + 16


def lay_out(values: Tensor, layout: str, device: str) -> Tensor:
    """The same values on `device`, lying in memory as `layout` says."""
    if layout == "expanded":  # every element along the first dimension is the same memory
        return values.to(device)[:1].expand(values.shape)
    _, view = spread(values.shape, values.dtype, layout, device)
    return view.copy_(values)


def random(shape: Sequence[int], dtype: torch.dtype, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, tuple(shape), dtype=dtype, generator=draw)
    return torch.randn(tuple(shape), generator=draw).to(dtype)


def random_iuv(batch: int, height: int, width: int, kind: str) -> Tensor:
    iuv = random((batch, 3, height, width), torch.uint8, seed=1)
    if kind == "one cell":
        iuv[:, 0], iuv[:, 1], iuv[:, 2] = 7, 255, 0
    elif kind == "background":
        iuv[:, 0] = 0
    elif kind == "sparse":  # whole runs of background pixels
        shown = torch.rand(iuv[:, 0].shape, generator=torch.Generator().manual_seed(2)) < 0.05
        iuv[:, 0] = iuv[:, 0] % 25 * shown
    else:
        iuv[:, 0] %= 28  # also parts above 24, which are background
    if kind != "float":
        return iuv
    iuv = iuv.float()
    iuv[:, 1:] = iuv[:, 1:] / 250 - 0.01  # beyond [0, 1] at both ends, by as much as is clamped
    flat = iuv.view(-1)
    flat[::17] = math.nan  # in each of the three planes, as 17 divides none of the sizes used
    return iuv
