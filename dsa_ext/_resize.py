"""Bilinear resizing as Pillow does it, bit for bit: its table, and the twin of csrc/resize.cpp."""

import functools
import operator

import torch
from torch import Tensor


def resize_weights(stored: int, wanted: int) -> list[list[int]]:
    """The table of csrc/resize.h, [wanted, 1 + taps]: of each pixel the first stored pixel and the weights of
    the `taps` from there on, 2**22 together. In Pillow's order of operations, so that ties fall alike."""
    if stored == wanted:
        return [[pixel, 1 << 22] for pixel in range(wanted)]
    step = stored / wanted
    scale = max(step, 1.0)  # stored pixels that a wanted one is wide
    centres = [(pixel + 0.5) * step for pixel in range(wanted)]
    windows = [(max(int(c - scale + 0.5), 0), min(int(c + scale + 0.5), stored)) for c in centres]
    taps = max(end - first for first, end in windows)
    rows = []
    for centre, (first, end) in zip(centres, windows):
        distances = (abs((x - centre + 0.5) * (1.0 / scale)) for x in range(first, end))
        weights = [max(0.0, 1.0 - distance) for distance in distances]
        total = functools.reduce(operator.add, weights, 0.0)  # in this order; sum() has another
        fixed = [int(0.5 + (weight / total if total else 0.0) * (1 << 22)) for weight in weights]
        begin = min(first, stored - taps)  # at the far edge zeros come first
        before = [0] * (first - begin)
        rows.append([begin, *before, *fixed, *[0] * (taps - len(before) - len(fixed))])
    return rows


_captured: dict[tuple[int, int, torch.device], Tensor] = {}
"""Tables whose address a CUDA graph holds, so that the cache may not drop them."""


def resize_table(stored: int, wanted: int, device: torch.device) -> Tensor:
    """The table of resize_weights on a device, int32. It is shared: nobody may write to it.

    Raises:
        RuntimeError: it would have to be made while a CUDA graph is captured.
    """
    table = _cached_table(stored, wanted, device)
    if _capturing(device):
        _captured[stored, wanted, device] = table
    return table


@functools.lru_cache(maxsize=64)
def _cached_table(stored: int, wanted: int, device: torch.device) -> Tensor:
    if _capturing(device):
        raise RuntimeError(
            f"a call that resizes {stored} to {wanted} pixels must be made once before one is captured in a "
            "CUDA graph, to copy its table to the device"
        )
    return torch.tensor(resize_weights(stored, wanted), dtype=torch.int32).to(device)


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


@torch.library.custom_op("dsa_ext::resize_table", mutates_args=())
def _table_in_graph(stored: int, wanted: int, device: torch.device) -> Tensor:
    return resize_table(stored, wanted, device).clone()  # so that nobody changes the cached table


@_table_in_graph.register_fake
def _(stored, wanted, device):
    columns = len(resize_weights(stored, wanted)[0])
    return torch.empty(wanted, columns, dtype=torch.int32, device=device)


def resize(images: Tensor, wanted: int, dimension: int) -> Tensor:
    """uint8 [B, h, w, 3], resized along one dimension."""
    table = resize_table(images.shape[dimension], wanted, images.device).long()
    total = torch.tensor(1 << 21, device=images.device)  # a half, of 2**22
    for tap in range(table.shape[1] - 1):
        weight = table[:, 1 + tap].view([-1 if d == dimension else 1 for d in range(4)])
        total = total + images.index_select(dimension, table[:, 0] + tap).long() * weight
    return (total >> 22).to(torch.uint8)
