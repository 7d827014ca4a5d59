"""Merging and its gradient."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from dsa_ext import parts
from dsa_ext.merge import LEVELS, _merge_parts, merge_parts
from dsa_ext.selftest import cuda
from dsa_ext.selftest.inputs import FLOATING, lay_out, random, spread
from dsa_ext.selftest.operation import Call, Case, Operation, Typical, difference


def merge_bytes(
    batch: int, parts: int, groups: int, inner: int, *, element_bytes: int = 4, residual: bool = False
) -> int:
    """merge_parts, forward, [batch, parts, inner] -> [batch, groups, inner]."""
    read = parts * (2 if residual else 1)  # features, and as much residual
    return batch * inner * element_bytes * (read + groups)


def merge_gradient_bytes(
    batch: int, parts: int, groups: int, inner: int, *, element_bytes: int = 4, relu: bool = False
) -> int:
    """The gradient of merge_parts. Features and residual share one gradient tensor, which is counted once.

    With ReLU both are read again, to see what it let through.
    """
    read = groups + (2 * parts if relu else 0)
    return batch * inner * element_bytes * (read + parts)


def merge_case(
    label: str,
    level: str,
    inner: Sequence[int] = (5, 3),
    dtype: torch.dtype = torch.float32,
    batch: int = 2,
    layout: str = "plain",
    residual: bool = False,
    relu: bool = False,
    out: str | None = None,
    grad_layout: str | None = None,
) -> Case:
    """With `grad_layout` the results are the gradients of features and residual."""
    groups = max(LEVELS[level]) + 1

    def run(merge, device):
        shape = (batch, len(LEVELS[level]), *inner)
        values = [random(shape, dtype, seed) for seed in range(1 + residual)]
        for x in values:
            x.view(-1)[::5] = 0  # where a ReLU lets no gradient through
        tensors = [lay_out(x, layout, device) for x in values]
        for x in tensors if grad_layout else ():
            x.requires_grad_()
        return tensors, merge(*tensors[:1], level, *tensors[1:] or [None], relu)

    def ours(device):
        if out is None:
            return results(*run(merge_parts, device), device)
        base, view = spread((batch, groups, *inner), dtype, out, device)
        run(lambda *arguments: merge_parts(*arguments, out=view), device)
        return [base]

    def twin():
        tensors, merged = run(_merge_parts, "cpu")
        if out is None:
            return results(tensors, merged, "cpu")
        base, view = spread(merged.shape, dtype, out, "cpu")
        view.copy_(merged)
        return [base]

    def results(tensors, merged, device):
        if not grad_layout:
            return [merged]
        weight = lay_out(random(merged.shape, dtype, seed=5), grad_layout, device)
        return list(torch.autograd.grad(merged, tensors, weight))

    return Case(label, ours, twin)


FUSED = ((False, False), (True, False), (False, True), (True, True))
"""residual and ReLU."""


def cases() -> dict[str, list[Case]]:
    return {
        "merge: sizes, types, residual and ReLU": [
            merge_case(
                f"{level}, {inner}, {dtype}, {r=}, {relu=}", level, inner, dtype, residual=r, relu=relu
            )
            for level, inner, dtype, (r, relu) in itertools.product(
                LEVELS, ((), (1,), (7,), (8,), (5, 3, 3), (64, 16, 16)), FLOATING, FUSED
            )
        ],
        "merge: strides, out=, no image": [
            *(
                merge_case(
                    f"{level}, {layout}, {out=}, {r=}", level, layout=layout, out=out, residual=r, relu=r
                )
                for level, layout, out, r in itertools.product(
                    LEVELS,
                    ("plain", "channels last", "swapped", "gaps", "offset"),
                    (None, "plain"),
                    (False, True),
                )
            ),
            *(merge_case(f"{level}, no image", level, batch=0) for level in LEVELS),
            *(merge_case(f"{level}, no feature", level, inner=(0, 3)) for level in LEVELS),
        ],
        "merge: gradient": [
            merge_case(
                f"{level}, {inner}, {dtype}, {r=}, {relu=}, {layout}",
                level,
                inner,
                dtype,
                residual=r,
                relu=relu,
                layout=layout,
                grad_layout=layout,
            )
            for level, inner, dtype, (r, relu), layout in itertools.product(
                LEVELS, ((4, 6), (5, 3)), FLOATING, FUSED, ("plain", "swapped", "offset")
            )
        ],
    }


def check_large_merge(device: str, beyond: int) -> str | None:
    inner = min(1 << 20, beyond // 64)
    batch = beyond // (24 * inner) + 2
    cuda.need(batch * inner * 2 * (24 + 13 + 24))
    features = torch.empty((batch, 24, inner), dtype=torch.float16, device=device)
    features.normal_().requires_grad_()
    merged = merge_parts(features, "mirror")
    grad = merged.detach()  # its own gradient, to save memory
    (spread_,) = torch.autograd.grad(merged, features, grad)
    group = torch.tensor(parts.MIRROR_GROUP)
    for at in sorted({0, batch // 2, batch - 1}):
        one = slice(at, at + 1)
        few = merge_parts(features.detach()[one].cpu(), "mirror")
        wrong = difference([merged[one], spread_[one]], [few, grad[one].cpu()[:, group]])
        if wrong:
            return f"image {at} of {batch}: {wrong}"
    return None


MERGES = (("mirror", 24, 13, 16 * 16, 64), ("front_back", 13, 8, 8 * 8, 128))
"""level, parts, groups, pixels, channels: what the DSAG-Stream merges at S = 32 and full width."""


def calls(device: str) -> dict[str, Call]:
    features, residual = (random((64, 24, 16), torch.float32, seed).to(device) for seed in (3, 4))
    plain, fused = (torch.empty((64, 13, 16), device=device) for _ in range(2))
    return {
        "plain": Call([features], plain, lambda: merge_parts(features, "mirror", out=plain)),
        "residual and ReLU": Call(
            [features, residual], fused, lambda: merge_parts(features, "mirror", residual, True, out=fused)
        ),
    }


def typical(batch: int) -> list[Typical]:
    rows = []
    for (level, members, groups, pixels, channels), fused in itertools.product(MERGES, (False, True)):
        # channels_last: memory is [B, H, W, part, channel], so a pixel is a "batch" entry.
        size = (batch * pixels, members, groups, channels)
        features = (batch * pixels, members, channels)
        title = f"merge {level}" + (", residual + ReLU" if fused else "")
        moved, moved_back = merge_bytes(*size, residual=fused), merge_gradient_bytes(*size, relu=fused)
        rows += [
            Typical(title, moved, _merge(features, level, fused)),
            Typical(f"{title}, gradient", moved_back, _merge_gradient(features, level, fused)),
        ]
    return rows


def _merge_inputs(shape: Sequence[int], fused: bool, device: str) -> tuple[Tensor, dict]:
    features = torch.randn(shape, device=device)
    return features, {"residual": torch.randn(shape, device=device), "relu": True} if fused else {}


def _merge(shape: Sequence[int], level: str, fused: bool):
    def prepare(device):
        features, options = _merge_inputs(shape, fused, device)
        groups = {name: groups for name, _, groups, *_ in MERGES}[level]
        out = torch.empty((shape[0], groups, shape[2]), device=device)
        return lambda: merge_parts(features, level, out=out, **options)

    return prepare


def _merge_gradient(shape: Sequence[int], level: str, fused: bool):
    def prepare(device):
        features, options = _merge_inputs(shape, fused, device)
        features.requires_grad_()
        merged = merge_parts(features, level, **options)
        grad = torch.randn_like(merged)
        return lambda: torch.autograd.grad(merged, features, grad, retain_graph=True)

    return prepare


OPERATION = Operation(
    name="merge",
    function=merge_parts,
    twin=_merge_parts,
    cases=cases,
    typical=typical,
    kernels=("dsa::merge_kernel<float, 4, true>", "dsa::expand_kernel<dsa::BFloat, 8, true>"),
    calls=calls,
    large={"both ways": check_large_merge},
)
