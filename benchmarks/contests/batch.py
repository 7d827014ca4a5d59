"""Batch assembly against torch operators."""

import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from contests.contest import SETS, SIZE, Contest, Work, compiled, same_colours, type_name
from contests.warp import scatter_reduce
from torch import Tensor

from dsa_ext import assemble_batch
from dsa_ext import parts as body
from dsa_ext.selftest.operations.batch import batch_bytes, stored_batch

VIEW = (256, 128)  # of images that are stored half as high and wide


def close_images(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """The peers do not round to uint8 after each pass of the resizing, as Pillow and we do: that is half a
    step of 1/255 twice, and in bfloat16 a rounding more. Part images are not resized."""
    rounding = torch.finfo(got[0].dtype).eps
    torch.testing.assert_close(got[0], expected[0], rtol=rounding, atol=1.01 / 255)
    same_colours(got[1], expected[1])


@functools.cache
def sides(device: torch.device) -> tuple[Tensor, Tensor]:
    """By I: the part of the mirrored person, and 255 where U or V are counted from the other end."""
    twin = torch.tensor((0, *body.TWIN), dtype=torch.uint8, device=device)  # [25]
    turn = torch.tensor([(0, *body.FLIP_U), (0, *body.FLIP_V)], dtype=torch.uint8, device=device) * 255
    return twin, turn.T.contiguous()  # [25, 2]


def shown(params: Tensor, y: Tensor, x: Tensor, view_y: Tensor, view_x: Tensor) -> Tensor:
    """bool [B, R, C]: (y, x) [B, R] and [B, C] lies in a picture of VIEW, and what the view has there, at
    (view_y, view_x), is not erased."""
    top, left, bottom, right = params[:, 3:7, None].unbind(1)  # [B, 1]
    inside = ((y >= 0) & (y < VIEW[0]))[:, :, None] & ((x >= 0) & (x < VIEW[1]))[:, None]
    rows, columns = (view_y >= top) & (view_y < bottom), (view_x >= left) & (view_x < right)
    return inside & ~(rows[:, :, None] & columns[:, None])


def torch_batch(
    images: Tensor,
    iuv: Tensor,
    index: Tensor,
    params: Tensor,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
) -> tuple[Tensor, Tensor]:
    """Gathers, F.interpolate, index arithmetic for the views, and `scatter_reduce` for the part images."""
    device = images.device
    shift_y, shift_x, flip = params[:, :3, None].unbind(1)  # [B, 1]
    flip = flip != 0
    pixels, maps = images[index], iuv[index]  # [B, h, w, 3]

    resized = F.interpolate(pixels.permute(0, 3, 1, 2).float(), VIEW, mode="bilinear", antialias=True)
    rows, columns = (torch.arange(n, device=device) for n in VIEW)
    y, x = rows + shift_y, torch.where(flip, VIEW[1] - 1 - columns, columns) + shift_x
    sample = torch.arange(len(index), device=device)[:, None, None]
    seen = resized[sample, :, y.clamp(0, VIEW[0] - 1)[:, :, None], x.clamp(0, VIEW[1] - 1)[:, None]] / 255
    seen = seen * shown(params, y, x, rows, columns)[..., None]
    image = seen.permute(0, 3, 1, 2).to(dtype, memory_format=memory_format)

    # Where the centres of stored pixels, half as many, lie in the view.
    y, x = 2 * rows[: VIEW[0] // 2] + 1 - shift_y, 2 * columns[: VIEW[1] // 2] + 1 - shift_x
    x = torch.where(flip, VIEW[1] - 1 - x, x)
    part = maps[..., 0] * shown(params, y, x, y, x)  # [B, h, w]
    twin, turn = sides(device)
    mirrored = torch.cat([twin[part.int()][..., None], maps[..., 1:] ^ turn[part.int()]], 3).flip(2)
    flip = flip[:, :, None, None]
    seen_maps = torch.where(flip, mirrored, torch.cat([part[..., None], maps[..., 1:]], 3))
    seen_pixels = torch.where(flip, pixels.flip(2), pixels)
    dsap = scatter_reduce(seen_pixels.permute(0, 3, 1, 2), seen_maps.permute(0, 3, 1, 2), dtype)
    return image, dsap


def contests(batch: int, device: str) -> Iterator[Contest]:
    """float32, and what training in bfloat16 takes: images channels last."""
    yield contest(batch, device, torch.float32, torch.contiguous_format)
    yield contest(batch, device, torch.bfloat16, torch.channels_last)


def contest(batch: int, device: str, dtype: torch.dtype, memory_format: torch.memory_format) -> Contest:
    sets = [tuple(x.to(device) for x in stored_batch(batch, seed)) for seed in range(SETS)]
    outs = [
        (
            torch.empty((batch, 3, *VIEW), device=device, dtype=dtype, memory_format=memory_format),
            torch.empty((batch, 24, 3, SIZE, SIZE), device=device, dtype=dtype),
        )
        for _ in sets
    ]
    size = {"height": VIEW[0], "width": VIEW[1], "size": SIZE}

    def call(function: Callable) -> Work:
        return lambda turn: function(*sets[turn % SETS], dtype, memory_format)

    layout = ", channels last" if memory_format == torch.channels_last else ""
    return Contest(
        f"assemble_batch, {batch} samples of half the size to {VIEW[0]}x{VIEW[1]}, S={SIZE}, "
        f"{type_name(dtype)}{layout}",
        batch_bytes(batch, (VIEW[0] // 2, VIEW[1] // 2), VIEW, SIZE, out_bytes=dtype.itemsize),
        lambda turn: assemble_batch(*sets[turn % SETS], **size, out=outs[turn % SETS]),
        {
            "torch operators": lambda: call(torch_batch),
            "the same, torch.compile": lambda: call(compiled(torch_batch)),
        },
        close_images,
    )
