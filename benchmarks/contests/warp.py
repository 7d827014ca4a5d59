"""The warp against torch operators, kernels that one writes in an hour, and part images made before."""

import importlib
from collections.abc import Callable, Iterator
from types import ModuleType

import torch
from contests.contest import SETS, SIZE, Contest, Work, compiled, same_colours, type_name
from torch import Tensor

from dsa_ext import iuv_to_dsap
from dsa_ext.selftest.measure import person_batch
from dsa_ext.selftest.operations.warp import warp_bytes

RACING, SPLATTING = "torch index_put_ (racing)", "CuPy, atomicAdd, the mean of a cell"


def peer(name: str) -> ModuleType:
    """A module of benchmarks/peers; what it needs may not be there."""
    return importlib.import_module(f"peers.{name}")


def cells_of(iuv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """I, row and column of every pixel, int64 [B, H, W]."""
    part, u, v = iuv.long().unbind(1)
    row, column = ((x * SIZE // 255).clamp(max=SIZE - 1) for x in (u, v))
    return part, row, column


def to_type(image: Tensor, dtype: torch.dtype) -> Tensor:
    return image if dtype == torch.uint8 else (image.float() / 255).to(dtype)


def scatter_reduce(image: Tensor, iuv: Tensor, dtype: torch.dtype, channels_last: bool = False) -> Tensor:
    """Deterministic: the highest pixel index of each cell, then a gather."""
    batch, channels = image.shape[:2]
    part, row, column = (x.flatten(1) for x in cells_of(iuv))  # [B, H*W]
    cells = 24 * SIZE * SIZE
    cell = torch.where(part == 0, cells, (part - 1) * SIZE * SIZE + row * SIZE + column)
    pixel = torch.arange(cell.shape[1], device=image.device).expand_as(cell)
    source = torch.full((batch, cells + 1), -1, device=image.device)
    source = source.scatter_reduce(1, cell, pixel, "amax")[:, :cells]
    index = source.clamp(min=0)[:, None].expand(-1, channels, -1)
    value = to_type(image.flatten(2).gather(2, index), dtype)  # [B, C, 24*S*S]
    value = value.masked_fill(source[:, None] < 0, 0)
    value = value.unflatten(2, (24, SIZE, SIZE))  # [B, C, 24, S, S]
    if channels_last:
        return value.permute(0, 2, 3, 4, 1).contiguous().permute(0, 1, 4, 2, 3)
    return value.transpose(1, 2).contiguous()


def index_put(image: Tensor, iuv: Tensor, dtype: torch.dtype) -> Tensor:
    """Racing stores: which of the pixels that meet in a cell wins is left to chance on a GPU."""
    batch, channels = image.shape[:2]
    part, row, column = cells_of(iuv)
    # Part 0 takes the background and is cut off.
    out = torch.zeros((batch, 25, channels, SIZE, SIZE), dtype=dtype, device=image.device)
    first = torch.arange(batch, device=image.device)[:, None, None].expand_as(part)
    out[first, part, :, row, column] = to_type(image, dtype).permute(0, 2, 3, 1)
    return out[:, 1:]


def winners_only(image: Tensor, iuv: Tensor) -> Tensor:
    """The IUV map with every pixel that wins no cell made background: nothing collides."""
    _, source = iuv_to_dsap(image, iuv, size=SIZE, return_source=True)
    wins = torch.zeros((len(iuv), image[0, 0].numel() + 1), dtype=torch.bool, device=iuv.device)
    wins.scatter_(1, (source.flatten(1) + 1).long(), True)  # -1, the empty cells, goes to column 0
    kept = iuv.clone()
    kept[:, 0] *= wins[:, 1:].view_as(kept[:, 0])
    return kept


def prepared(made: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """Part images that were made before, uint8 [N, ...]: those of a batch."""
    return to_type(made[index], dtype)


def contests(batch: int, device: str) -> Iterator[Contest]:
    """Planes of every type that training takes, and bfloat16 channels last."""
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        yield contest(batch, device, dtype)
    yield contest(batch, device, torch.bfloat16, channels_last=True)


def contest(batch: int, device: str, dtype: torch.dtype, channels_last: bool = False) -> Contest:
    people = [person_batch(batch, seed=seed) for seed in range(SETS)]
    foreground = (people[0][1][:, 0] > 0).float().mean().item()
    sets = [tuple(x.to(device) for x in pair) for pair in people]
    order = (
        (0, 1, 3, 4, 2) if channels_last else (0, 1, 2, 3, 4)
    )  # in which a part image's axes lie in memory
    back = [order.index(axis) for axis in range(5)]

    def empty() -> Tensor:
        shape = (batch, 24, 3, SIZE, SIZE)
        return torch.empty([shape[axis] for axis in order], dtype=dtype, device=device).permute(back)

    outs = [empty() for _ in sets]

    def new(function: Callable) -> Work:
        """It returns memory of its own."""
        return lambda turn: function(*sets[turn % SETS], dtype, channels_last)

    def into(function: Callable) -> Work:
        return lambda turn: function(*sets[turn % SETS], outs[turn % SETS])

    def apart(function: Callable[[Tensor, Tensor], Tensor]) -> None:
        image, kept = sets[0][0], winners_only(*sets[0])
        same_colours(function(image, kept), iuv_to_dsap(image, kept, size=SIZE, dtype=dtype))

    def racing() -> Work:
        apart(lambda image, kept: index_put(image, kept, dtype))
        return lambda turn: index_put(*sets[turn % SETS], dtype)

    def splatting() -> Work:
        splat = peer("warp_cupy").splat(SIZE)
        apart(lambda image, kept: splat(image, kept, empty()))
        return into(splat)

    def gathering(function: Callable) -> Work:
        made = torch.cat([iuv_to_dsap(*pair, size=SIZE) for pair in sets]).permute(order).contiguous()
        rows = torch.arange(len(made), device=device).view(SETS, batch)
        return lambda turn: function(made, rows[turn % SETS], dtype).permute(back)

    peers = {
        "Triton, atomic_max and gather": lambda: into(peer("warp_triton").scatter_gather),
        "torch scatter_reduce, gather": lambda: new(scatter_reduce),
        "part images made before": lambda: gathering(prepared),
    }
    if dtype != torch.uint8:
        peers["part images made before, compiled"] = lambda: gathering(compiled(prepared))
    if dtype == torch.float32 or channels_last:  # it takes its time
        peers["torch scatter_reduce, compiled"] = lambda: new(compiled(scatter_reduce))
    if not channels_last:
        peers[RACING] = racing
    if dtype == torch.float32:
        peers["CuPy, atomicMax and gather"] = lambda: into(peer("warp_cupy").scatter_gather(SIZE))
        peers[SPLATTING] = splatting
    return Contest(
        f"warp, {batch} images 256x128, S={SIZE}, {type_name(dtype)} out{', channels last' * channels_last}",
        warp_bytes(batch, 3, 256, 128, SIZE, out_bytes=dtype.itemsize, foreground=foreground),
        lambda turn: iuv_to_dsap(*sets[turn % SETS], size=SIZE, out=outs[turn % SETS]),
        peers,
        same_colours,
        frozenset({RACING, SPLATTING}),
    )
