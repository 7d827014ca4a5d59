"""The warp in Triton: atomic_max on the index of the pixel, then a gather into any type and layout."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _scatter(iuv, winner, pixels, SIZE: tl.constexpr, BLOCK: tl.constexpr):
    image = tl.program_id(1)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = pixel < pixels
    start = iuv + image * 3 * pixels + pixel
    part = tl.load(start, mask=here, other=0).to(tl.int32)
    here &= (part > 0) & (part <= 24)
    u = tl.load(start + pixels, mask=here, other=0).to(tl.int32)
    v = tl.load(start + 2 * pixels, mask=here, other=0).to(tl.int32)
    row = tl.minimum(u * SIZE // 255, SIZE - 1)
    column = tl.minimum(v * SIZE // 255, SIZE - 1)
    cell = ((image * 24 + part - 1) * SIZE + row) * SIZE + column
    tl.atomic_max(winner + cell, pixel, mask=here)


@triton.jit
def _gather(
    images,
    winner,
    out,
    pixels,
    part_stride,
    channel_stride,
    cell_stride,
    SCALE: tl.constexpr,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1)
    cells = 24 * SIZE * SIZE
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = cell < cells
    pixel = tl.load(winner + image * cells + cell, mask=here, other=-1)
    part, place = cell // (SIZE * SIZE), cell % (SIZE * SIZE)
    to = out + image * 3 * cells + part * part_stride + place * cell_stride
    for channel in range(3):
        start = images + (image * 3 + channel) * pixels
        value = tl.load(start + pixel, mask=pixel >= 0, other=0)
        if SCALE:
            value = (value.to(tl.float32) / 255).to(out.dtype.element_ty)
        tl.store(to + channel * channel_stride, value, mask=here)


def scatter_gather(image: Tensor, iuv: Tensor, out: Tensor) -> Tensor:
    """From planes of uint8 into out [B, 24, 3, S, S], uint8 or floating, planes or channels last."""
    batch, pixels, size = len(image), image[0, 0].numel(), out.shape[-1]
    cells = 24 * size * size
    winner = torch.full((batch, cells), -1, dtype=torch.int32, device=image.device)
    _scatter[triton.cdiv(pixels, BLOCK), batch](iuv, winner, pixels, SIZE=size, BLOCK=BLOCK)
    _gather[triton.cdiv(cells, BLOCK), batch](
        image,
        winner,
        out,
        pixels,
        out.stride(1),
        out.stride(2),
        out.stride(4),
        SCALE=out.dtype != torch.uint8,
        SIZE=size,
        BLOCK=BLOCK,
    )
    return out
