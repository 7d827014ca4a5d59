"""The warp and its gradient."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dsa_ext.selftest import cuda
from dsa_ext.selftest.inputs import (
    FLOATING,
    NORMALISED,
    PARTS,
    SCALINGS,
    lay_out,
    random,
    random_iuv,
    spread,
)
from dsa_ext.selftest.measure import FOREGROUND, person_batch
from dsa_ext.selftest.operation import Call, Case, Operation, Typical, difference
from dsa_ext.warp import _iuv_to_dsap, iuv_to_dsap

PIXELS_A_CELL = 1.6
"""Pixels that meet in a filled cell on average, in real maps at S = 32."""


def warp_bytes(
    batch: int,
    channels: int,
    height: int,
    width: int,
    size: int,
    *,
    parts: int = 24,
    out_bytes: int = 4,
    image_bytes: int = 1,
    iuv_bytes: int = 1,
    foreground: float = FOREGROUND,
    source: bool = False,
) -> int:
    """iuv_to_dsap, forward."""
    pixels = batch * height * width
    cells = batch * parts * size * size
    labels = pixels * iuv_bytes  # I of every pixel
    coordinates = 2 * foreground * pixels * iuv_bytes  # U and V where I is a part
    # Only winners are needed, but memory moves in sectors of 32 bytes, and nearly every sector of the
    # foreground has one.
    colours = foreground * pixels * channels * image_bytes
    written = cells * channels * out_bytes + (4 * cells if source else 0)
    return round(labels + coordinates + colours + written)


def warp_gradient_bytes(
    batch: int,
    channels: int,
    height: int,
    width: int,
    size: int,
    *,
    parts: int = 24,
    grad_bytes: int = 4,
    image_bytes: int = 4,
    foreground: float = FOREGROUND,
) -> int:
    """The gradient of iuv_to_dsap with respect to the image."""
    pixels = batch * height * width
    cells = batch * parts * size * size
    winners = min(foreground * pixels / PIXELS_A_CELL, cells)
    source = 4 * cells  # the int32 map, all of it: it says where the winners are
    grad = winners * channels * grad_bytes  # of filled cells alone
    image = pixels * channels * image_bytes  # zeros and values alike are written
    return round(source + grad + image)


def warp_case(
    label: str,
    shape: Sequence[int] = (2, 3, 37, 21),
    image: torch.dtype = torch.uint8,
    iuv: str = "random",
    layout: str = "plain",
    out: str | None = None,
    **options: Any,
) -> Case:
    """`layout` is that of image and IUV, `out` that of out=, or None to call without it."""
    batch, _, height, width = shape

    def inputs(device):
        values = random(shape, image), random_iuv(batch, height, width, iuv)
        return [lay_out(x, layout, device) for x in values]

    def into(dsap_shape, dtype, device):
        return spread(dsap_shape, dtype, out or "plain", device)

    def ours(device):
        if out is None:
            # Other code runs without the map of winners.
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
    **options: Any,
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


def cases() -> dict[str, list[Case]]:
    return {
        "warp: S from 1 to 256, full, crowded, sparse and empty maps": [
            warp_case(f"S={size}, {kind}", iuv=kind, size=size)
            for size, kind in itertools.product(
                (1, 2, 7, 32, 51, 75, 90, 91, 255, 256), ("random", "one cell", "sparse", "background")
            )
        ],
        "warp: 1 to 9 channels, odd shapes, no image": [
            warp_case(f"{shape}", shape=shape, size=9, fill=list(range(shape[1])))
            for shape in (
                *(
                    (batch, channels, height, width)
                    for channels, (batch, height, width) in itertools.product(
                        (1, 2, 3, 4, 5, 8, 9), ((2, 13, 11), (1, 1, 1), (1, 1, 9), (1, 8, 8), (1, 13, 300))
                    )
                ),
                (3, 2, 13, 300),
                (1, 1, 300, 400),  # pixels beyond 16 bits
                (0, 3, 8, 8),
                (70, 1, 3, 5),
            )
        ],
        "warp: types, mean and std, fill": [
            warp_case("uint8 to uint8", fill=[0, 7, 255], dtype=torch.uint8),
            *(
                warp_case(
                    f"{a} to {b}, {options or 'plain'}",
                    image=a,
                    size=12,
                    dtype=b,
                    fill=[-0.1, 1e-5, 70000.0],
                    **options,
                )
                for a, b, options in itertools.product((torch.uint8, *FLOATING), FLOATING, SCALINGS)
            ),
        ],
        "warp: 24, 13, 8 parts, mirror, float IUV": [
            warp_case(
                f"{count} parts, mirror={mirror}, {kind} IUV",
                iuv=kind,
                size=16,
                parts=count,
                mirror=mirror,
                dtype=torch.float32,
            )
            for (count, mirror), kind in itertools.product(PARTS, ("random", "float"))
        ],
        "warp: strides of the inputs and of out=": [
            warp_case(f"{layout} inputs, out={out}", layout=layout, out=out, size=size, dtype=dtype)
            for layout, (out, size, dtype) in itertools.product(
                ("plain", "channels last", "swapped", "gaps", "offset", "expanded"),
                (
                    (None, 8, torch.uint8),
                    ("plain", 32, torch.float16),
                    ("channels last", 8, torch.float32),
                    ("swapped", 9, torch.uint8),
                    ("gaps", 7, torch.float32),
                    ("offset", 8, torch.bfloat16),
                ),
            )
        ],
        "warp: gradient, and its gradient": [
            *(
                warp_gradient_case(f"{a} to {b}, {options or 'plain'}", image=a, dtype=b, size=8, **options)
                for a, b, options in itertools.product(FLOATING, FLOATING, SCALINGS)
            ),
            *(
                warp_gradient_case(f"gradient {layout}", grad_layout=layout, size=9, parts=13, mirror=True)
                for layout in ("channels last", "swapped", "gaps", "offset", "expanded")
            ),
            warp_gradient_case("9 channels, S=256", shape=(1, 9, 20, 31), size=256),
            warp_gradient_case("no image", shape=(0, 3, 5, 5), size=4),
            warp_gradient_case("second", second=True, size=8),
            warp_gradient_case("second, normalised", second=True, size=8, **NORMALISED),
        ],
    }


def _dsap(image: Tensor, iuv: Tensor, size: int) -> Tensor:
    dsap = iuv_to_dsap(image, iuv, size=size)
    assert isinstance(dsap, Tensor)  # without return_source
    return dsap


def check_large_output(device: str, beyond: int, size: int = 256) -> str | None:
    """The output has more than `beyond` elements; some images are compared one by one."""
    batch = beyond // (72 * size * size) + 2
    cuda.need(batch * 72 * size * size)
    draw = torch.Generator().manual_seed(0)
    image, iuv = (
        torch.randint(0, 256, (batch, 3, 16, 16), dtype=torch.uint8, generator=draw) for _ in range(2)
    )
    iuv[:, 0] %= 25
    out = torch.full((batch, 24, 3, size, size), 165, dtype=torch.uint8, device=device)
    iuv_to_dsap(image.to(device), iuv.to(device), size=size, out=out)
    for at in sorted({0, batch // 2, batch - 2, batch - 1}):
        one = slice(at, at + 1)
        wrong = difference([out[one]], [_dsap(image[one], iuv[one], size)])
        if wrong:
            return f"image {at} of {batch}: {wrong}"
    return None


def check_large_gradient(device: str, beyond: int, size: int = 256) -> str | None:
    batch = beyond // (72 * size * size) + 2
    cells = batch * 24 * size * size
    cuda.need(cells * (3 * 2 + 4))
    draw = torch.Generator().manual_seed(0)
    image = torch.randn((batch, 3, 16, 16), generator=draw).half()
    iuv = torch.randint(0, 256, image.shape, dtype=torch.uint8, generator=draw)
    iuv[:, 0] %= 25

    def gradient(image, iuv):
        image = image.requires_grad_()
        dsap = _dsap(image, iuv, size)
        return torch.autograd.grad(dsap, image, dsap.detach())[0]  # its own gradient, to save memory

    got = gradient(image.to(device), iuv.to(device))
    for at in sorted({0, batch // 2, batch - 2, batch - 1}):
        one = slice(at, at + 1)
        wrong = difference([got[one]], [gradient(image[one].clone(), iuv[one])])
        if wrong:
            return f"image {at} of {batch}: {wrong}"
    return None


def check_large_input(device: str, beyond: int) -> str | None:
    """Two images of more than `beyond` elements; only the last rows of the second are foreground."""
    side = math.isqrt(beyond // 6) + 17
    cuda.need(2 * 6 * side * side)
    image = torch.empty((2, 3, side, side), dtype=torch.uint8, device=device)
    image.random_(0, 256)
    iuv = torch.zeros_like(image)
    low = slice(side - 16, side)
    iuv[1, :, low].random_(0, 25)
    dsap, source = iuv_to_dsap(image, iuv, size=32, return_source=True)
    wanted, wanted_source = iuv_to_dsap(
        image[1:, :, low].cpu(), iuv[1:, :, low].cpu(), size=32, return_source=True
    )
    shifted = torch.where(wanted_source < 0, -1, wanted_source + (side - 16) * side)
    if dsap[0].any() or (source[0] >= 0).any():
        return "an image without foreground is not empty"
    return difference([dsap[1:], source[1:]], [wanted, shifted])


def check_mixed_devices(device: str) -> str | None:
    image, iuv = random((1, 3, 8, 8), torch.uint8), random_iuv(1, 8, 8, "random")
    try:
        iuv_to_dsap(image.to(device), iuv)
    except ValueError:
        return None
    return "an image on CUDA with an IUV map on the CPU was accepted"


def check_map_out_of_scale(device: str) -> str | None:
    """CUDA refuses it with check_iuv=True, and clamps without."""
    image, iuv = random((1, 3, 8, 8), torch.uint8).to(device), torch.ones(1, 3, 8, 8, device=device)
    ones = _dsap(image, iuv, 8)
    iuv[0, 1, 4, 4] = 255
    if not torch.equal(_dsap(image, iuv, 8), ones):
        return "u = 255 is not clamped to 1"
    try:
        iuv_to_dsap(image, iuv, size=8, check_iuv=True)
    except ValueError:
        return None
    return "u = 255 was accepted with check_iuv=True"


def calls(device: str) -> dict[str, Call]:
    image = random((2, 3, 64, 48), torch.uint8, seed=3).to(device)
    iuv = random_iuv(2, 64, 48, "random").to(device)
    out = torch.empty((2, 24, 3, 16, 16), device=device)
    return {"forward": Call([image, iuv], out, lambda: iuv_to_dsap(image, iuv, size=16, out=out))}


def typical(batch: int) -> list[Typical]:
    shape = (batch, 3, 256, 128, 32)
    forward = [
        Typical(
            f"warp, {str(dtype).removeprefix('torch.')} out",
            warp_bytes(*shape, out_bytes=dtype.itemsize),
            _warp(batch, dtype),
        )
        for dtype in (torch.float32, torch.float16, torch.uint8)
    ]
    return [*forward, Typical("warp gradient, float32", warp_gradient_bytes(*shape), _warp_gradient(batch))]


def _warp(batch: int, dtype: torch.dtype):
    def prepare(device):
        image, iuv = (x.to(device) for x in person_batch(batch))
        out = torch.empty((batch, 24, 3, 32, 32), dtype=dtype, device=device)
        return lambda: iuv_to_dsap(image, iuv, size=32, out=out)

    return prepare


def _warp_gradient(batch: int):
    def prepare(device):
        image, iuv = (x.to(device) for x in person_batch(batch))
        dsap, source = iuv_to_dsap(image, iuv, size=32, dtype=torch.float32, return_source=True)
        height, width = image.shape[2:]
        backward = torch.ops.dsa_ext.iuv_to_dsap_backward
        return lambda: backward(dsap, source, height, width, torch.float32, [])

    return prepare


OPERATION = Operation(
    name="warp",
    function=iuv_to_dsap,
    twin=_iuv_to_dsap,
    cases=cases,
    typical=typical,
    kernels=(
        "dsa::warp_kernel<unsigned char, float>",
        "dsa::warp_kernel<dsa::Half, dsa::BFloat>",
        "dsa::gradient_kernel<float, dsa::Half>",
    ),
    calls=calls,
    large={
        "output": check_large_output,
        "gradient": check_large_gradient,
        "input": check_large_input,
    },
    checks={
        "image on CUDA, IUV on the CPU": check_mixed_devices,
        "floating IUV out of scale": check_map_out_of_scale,
    },
)
