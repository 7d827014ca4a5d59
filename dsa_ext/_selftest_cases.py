"""The self-test's table: every operation and its gradients at odd sizes, types and strides."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dsa_ext._measure import ranking
from dsa_ext.merge import LEVELS, _merge_parts, merge_parts
from dsa_ext.rank import _count_ranks, count_ranks
from dsa_ext.warp import _iuv_to_dsap, iuv_to_dsap

MEAN, STD = (0.485, 0.456, 0.406, 0.3, 0.2), (0.229, 0.224, 0.225, 0.3, 0.1)
FLOATING = (torch.float32, torch.float16, torch.bfloat16)
INTEGER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # of as many bytes


class Case(NamedTuple):
    """`ours(device)` and `twin()` give lists of tensors that must be the same."""

    label: str
    ours: Callable[[str], list[Tensor]]
    twin: Callable[[], list[Tensor]]


def spread(shape: Sequence[int], dtype: torch.dtype, layout: str, device: str) -> tuple[Tensor, Tensor]:
    """A poisoned buffer, and a view of it of the given shape that lies in it in some way."""
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
    elif layout == "offset":  # contiguous, and not aligned to more than one element
        stored, view = [math.prod(shape) + 1], lambda base: base[1:].view(shape)
    else:
        raise ValueError(f"unknown layout {layout!r}")
    base = torch.full(stored, 165 if dtype == torch.uint8 else -12345, dtype=dtype, device=device)
    return base, view(base)


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
    else:
        iuv[:, 0] %= 28  # also parts above 24, which are background
    if kind != "float":
        return iuv
    iuv = iuv.float()
    iuv[:, 1:] = iuv[:, 1:] / 200 - 0.1  # beyond [0, 1] at both ends
    flat = iuv.view(-1)
    flat[::17] = math.nan  # in each of the three planes, as 17 divides none of the sizes used
    return iuv


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


def warp_case(
    label: str,
    shape: Sequence[int] = (2, 3, 37, 21),
    image: torch.dtype = torch.uint8,
    iuv: str = "random",
    layout: str = "plain",
    out: str | None = None,
    **options,
) -> Case:
    """`layout` is that of image and IUV, `out` that of out=, if there is to be one."""
    batch, _, height, width = shape

    def inputs(device):
        values = random(shape, image), random_iuv(batch, height, width, iuv)
        return [lay_out(x, layout, device) for x in values]

    def into(dsap_shape, dtype, device):
        return spread(dsap_shape, dtype, out or "plain", device)

    def ours(device):
        if out is None:
            # Without the map of winners other code runs.
            with_map = iuv_to_dsap(*inputs(device), return_source=True, **options)
            return [*with_map, iuv_to_dsap(*inputs(device), **options)]
        side, count = options.get("size", 32), options.get("parts", 24)
        dtype = options.get("dtype") or image
        base, view = into((batch, count, shape[1], side, side), dtype, device)
        _, source = iuv_to_dsap(*inputs(device), return_source=True, out=view, **options)
        return [base, source]

    def twin():
        dsap, source = _iuv_to_dsap(*inputs("cpu"), **options)
        if out is None:
            return [dsap, source, dsap]
        base, view = into(dsap.shape, dsap.dtype, "cpu")
        view.copy_(dsap)
        return [base, source]

    return Case(label, ours, twin)


def warp_gradient_case(
    label: str,
    shape: Sequence[int] = (2, 3, 37, 21),
    image: torch.dtype = torch.float32,
    grad_layout: str = "plain",
    second: bool = False,
    **options,
) -> Case:
    def run(warp, device):
        x = random(shape, image).to(device).requires_grad_()
        dsap = warp(x, random_iuv(shape[0], *shape[2:], "random").to(device), **options)
        weight = lay_out(random(dsap.shape, dsap.dtype, seed=2), grad_layout, device)
        if not second:
            return list(torch.autograd.grad(dsap, x, weight))
        (first,) = torch.autograd.grad((dsap * dsap * weight).sum(), x, create_graph=True)
        return [first, *torch.autograd.grad((first * first).sum(), x)]

    return Case(
        label,
        lambda device: run(iuv_to_dsap, device),
        lambda: run(lambda *a, **k: _iuv_to_dsap(*a, **k)[0], "cpu"),
    )


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
        tensors = [lay_out(random(shape, dtype, seed), layout, device) for seed in range(1 + residual)]
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


def rank_case(label: str, *sizes: int, **options) -> Case:
    def run(count, device):
        return list(count(*(x.to(device) for x in ranking(*sizes, **options))))

    return Case(label, lambda device: run(count_ranks, device), lambda: run(_count_ranks, "cpu"))


def table() -> Iterator[tuple[str, list[Case]]]:
    """The groups of cases."""
    yield "warp: S from 1 to 256, full, crowded and empty maps", [
        warp_case(f"S={size}, {kind}", iuv=kind, size=size)
        for size, kind in itertools.product(
            (1, 2, 7, 32, 51, 90, 91, 255, 256), ("random", "one cell", "background")
        )
    ]
    yield "warp: 1 to 9 channels, odd shapes, no image", [
        warp_case(f"{shape}", shape=shape, size=9, fill=list(range(shape[1])))
        for shape in (
            *((2, channels, 13, 11) for channels in (1, 2, 3, 4, 5, 8, 9)),
            (1, 3, 1, 1), (1, 3, 1, 9), (3, 2, 13, 300), (1, 1, 300, 400), (0, 3, 8, 8), (70, 1, 3, 5),
        )
    ]  # fmt: skip
    yield "warp: types, mean and std, fill", [
        warp_case("uint8 to uint8", fill=[0, 7, 255], dtype=torch.uint8),
        *(
            warp_case(f"{a} to {b}, {options or 'plain'}", image=a, size=12, dtype=b,
                      fill=[-0.1, 1e-5, 70000.0], **options)
            for a, b, options in itertools.product(
                (torch.uint8, *FLOATING), FLOATING, ({}, {"mean": MEAN[:3], "std": STD[:3]})
            )
        ),
    ]  # fmt: skip
    yield "warp: 24, 13, 8 parts, mirror, float IUV", [
        warp_case(f"{count} parts, mirror={mirror}, {kind} IUV", iuv=kind, size=16, parts=count,
                  mirror=mirror, dtype=torch.float32)
        for (count, mirror), kind in itertools.product(
            ((24, False), (13, False), (13, True), (8, False), (8, True)), ("random", "float")
        )
    ]  # fmt: skip
    yield "warp: strides of the inputs and of out=", [
        warp_case(f"{layout} inputs, out={out}", layout=layout, out=out, size=size, dtype=dtype)
        for layout, (out, size, dtype) in itertools.product(
            ("plain", "channels last", "swapped", "gaps", "offset", "expanded"),
            ((None, 8, torch.uint8), ("plain", 32, torch.float16), ("channels last", 8, torch.float32),
             ("swapped", 9, torch.uint8), ("gaps", 7, torch.float32), ("offset", 8, torch.bfloat16)),
        )
    ]  # fmt: skip
    normalised = {"mean": MEAN[:3], "std": STD[:3]}
    yield "warp: gradient, and its gradient", [
        *(
            warp_gradient_case(f"{a} to {b}, {options or 'plain'}", image=a, dtype=b, size=8, **options)
            for a, b, options in itertools.product(FLOATING, FLOATING, ({}, normalised))
        ),
        *(
            warp_gradient_case(f"gradient {layout}", grad_layout=layout, size=9, parts=13, mirror=True)
            for layout in ("channels last", "swapped", "gaps", "offset", "expanded")
        ),
        warp_gradient_case("9 channels, S=256", shape=(1, 9, 20, 31), size=256),
        warp_gradient_case("no image", shape=(0, 3, 5, 5), size=4),
        warp_gradient_case("second", second=True, size=8),
        warp_gradient_case("second, normalised", second=True, size=8, **normalised),
    ]
    both = tuple(LEVELS)
    fused = ((False, False), (True, False), (False, True), (True, True))  # residual, relu
    yield "merge: sizes and types", [
        merge_case(f"{level}, {inner}, {dtype}", level, inner, dtype)
        for level, inner, dtype in itertools.product(
            both, ((), (1,), (7,), (8,), (5, 3, 3), (64, 16, 16)), FLOATING
        )
    ]
    yield "merge: residual and ReLU", [
        merge_case(f"{level}, {inner}, {dtype}, {r=}, {relu=}", level, inner, dtype, residual=r, relu=relu)
        for level, inner, dtype, (r, relu) in itertools.product(both, ((7,), (4, 8)), FLOATING, fused[1:])
    ]
    yield "merge: strides, out=, no image", [
        *(
            merge_case(f"{level}, {layout}, out={out}", level, layout=layout, out=out, residual=r, relu=r)
            for level, layout, out, r in itertools.product(
                both, ("plain", "channels last", "swapped", "gaps", "offset"), (None, "plain"), (False, True)
            )
        ),
        *(merge_case(f"{level}, no image", level, batch=0) for level in both),
        *(merge_case(f"{level}, no feature", level, inner=(0, 3)) for level in both),
    ]
    yield "merge: gradient", [
        merge_case(f"{level}, {dtype}, {r=}, {relu=}, {layout}", level, (4, 6), dtype, residual=r, relu=relu,
                   layout=layout, grad_layout=layout)
        for level, dtype, (r, relu), layout in itertools.product(
            both, FLOATING, fused, ("plain", "swapped", "offset")
        )
    ]  # fmt: skip
    yield "ranks: sizes, ties, types", [
        rank_case(f"{sizes}, {values or 'no'} values, {dtype}", *sizes, values=values, dtype=dtype)
        for sizes, values, dtype in itertools.product(
            # queries, gallery, identities, cameras: one of each, no query, all junk, rare matches, ...
            ((1, 1, 1, 2), (0, 5, 2, 2), (3, 7, 1, 1), (5, 33, 2, 3), (17, 257, 40, 2), (9, 1000, 3000, 6),
             (4, 2500, 2, 6), (64, 4099, 200, 6)),
            (0, 1, 5), (torch.float32, torch.float64),
        )
    ]  # fmt: skip


def compare(case: Case, device: str) -> str | None:
    """CUDA against the CPU backend; the CPU backend against the twin."""
    return difference(case.ours(device), case.twin() if device == "cpu" else case.ours("cpu"))
