"""What speed is measured by: the bytes an operation must move, its typical sizes, and event timing.

The self-test, benchmarks/kernels.py and benchmarks/roofline.py all count by the formulas here.
They give the fewest bytes that have to pass between the chip and its memory: every input that is
needed is read once, every output is written once, and nothing is found in a cache. Divided by the
bandwidth of a large copy that is a floor no version runs far below.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dsa_ext.augment import draw_augmentation
from dsa_ext.batch import assemble_batch
from dsa_ext.merge import merge_parts
from dsa_ext.rank import columns, count_ranks
from dsa_ext.warp import iuv_to_dsap

FOREGROUND = 0.45
"""Share of an image's pixels that belong to a part, where nothing else is said."""

PIXELS_A_CELL = 1.6
"""Pixels that meet in one filled cell, in real maps at S = 32."""


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
    # Only winners are needed, but memory moves in sectors of 32 bytes, and next to no sector of the
    # foreground is without one.
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


def batch_bytes(
    batch: int,
    stored: tuple[int, int],
    wanted: tuple[int, int],
    size: int,
    *,
    parts: int = 24,
    out_bytes: int = 4,
) -> int:
    """assemble_batch, from images of `stored` to `wanted` height and width. The few stored pixels that a
    shift or an erased box hides are counted too."""
    # Image and map of every sample, 3 bytes a pixel each: next to no sector is without a pixel that is
    # needed, as the image is read whole and U and V lie beside I.
    read = 2 * 3 * stored[0] * stored[1] + 8 + 32  # and its index and parameters
    written = 3 * (wanted[0] * wanted[1] + parts * size * size) * out_bytes
    return batch * (read + written)


def merge_bytes(
    batch: int, parts: int, groups: int, inner: int, *, element_bytes: int = 4, residual: bool = False
) -> int:
    """merge_parts, forward, [batch, parts, inner] -> [batch, groups, inner]."""
    read = parts * (2 if residual else 1)  # features, and as much residual
    return batch * inner * element_bytes * (read + groups)


def merge_gradient_bytes(
    batch: int, parts: int, groups: int, inner: int, *, element_bytes: int = 4, relu: bool = False
) -> int:
    """The gradient of merge_parts. That of features and of a residual is the same tensor: once.

    With ReLU both are read again, to see what it let through.
    """
    read = groups + (2 * parts if relu else 0)
    return batch * inner * element_bytes * (read + parts)


def rank_bytes(queries: int, gallery: int, most: int, *, distance_bytes: int = 4) -> int:
    """count_ranks, queries x gallery, ranks [queries, most]."""
    distances = queries * gallery * distance_bytes
    labels = 8 * (2 * gallery + 3 * queries)  # members, gallery_cams; first, count, query_cams
    written = 8 * queries * (most + 1)  # ranks and found
    return distances + labels + written


def person_batch(
    batch: int,
    height: int = 256,
    width: int = 128,
    foreground: float = FOREGROUND,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """uint8 images and IUV maps [B, 3, H, W]: a person-sized block of 6 x 4 parts with smooth
    charts and some noise, so that about as many pixels meet in a cell as in real maps."""
    draw = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (batch, 3, height, width), dtype=torch.uint8, generator=draw)
    iuv = torch.zeros_like(image)
    tall = int(height * min(0.95, foreground**0.5 * 1.15))
    wide = min(width, round(foreground * height * width / tall))
    down = (torch.arange(tall) / tall * 6)[:, None].expand(tall, wide)
    across = (torch.arange(wide) / wide * 4).expand(tall, wide)
    part = (down.floor() * 4 + across.floor()).long()  # 0..23
    for b in range(batch):
        top, left = (
            int(torch.randint(0, room + 1, (1,), generator=draw)) for room in (height - tall, width - wide)
        )
        block = iuv[b, :, top : top + tall, left : left + wide]
        block[0] = (1 + torch.randperm(24, generator=draw))[part]
        for plane, chart in ((1, down % 1), (2, across % 1)):
            noise = 4 * torch.randn(tall, wide, generator=draw)
            block[plane] = (chart * 255 + noise).clamp(0, 255)
    return image, iuv


def stored_batch(batch: int, seed: int = 0) -> tuple[Tensor, ...]:
    """images, iuv, index and params of assemble_batch: a store of so many 128x64 images (see
    person_batch), and every one of them once, augmented for 256x128."""
    images, iuv = (x.permute(0, 2, 3, 1).contiguous() for x in person_batch(batch, 128, 64, seed=seed))
    index = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    return images, iuv, index, draw_augmentation(seed, 0, index, height=256, width=128)


def rank_labels(
    queries: int, gallery: int, identities: int, cameras: int = 6, seed: int = 0
) -> tuple[Tensor, ...]:
    """Random arguments of count_ranks, without the distances."""
    draw = torch.Generator().manual_seed(seed)

    def labels(high: int, count: int) -> Tensor:
        return torch.randint(0, high, (count,), generator=draw)

    query_ids, gallery_ids = labels(identities, queries), labels(identities, gallery)
    grouped, members = gallery_ids.sort(stable=True)
    first = torch.searchsorted(grouped, query_ids)
    count = torch.searchsorted(grouped, query_ids, right=True) - first
    return members, first, count, labels(cameras, queries), labels(cameras, gallery)


def ranking(
    queries: int,
    gallery: int,
    identities: int,
    cameras: int = 6,
    *,
    values: int = 0,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> tuple[Tensor, ...]:
    """Random arguments of count_ranks. `values` > 0 draws distances from so few: ties everywhere."""
    draw = torch.Generator().manual_seed(seed)
    shape = (queries, gallery)
    if values:
        distances = torch.randint(0, values, shape, generator=draw).to(dtype)
    else:
        distances = torch.randn(shape, generator=draw, dtype=dtype)
    return distances, *rank_labels(queries, gallery, identities, cameras, seed)


@dataclass(frozen=True)
class Typical:
    """One operation at a size it meets in training or evaluation.

    Attributes:
        name: what the tables call it.
        bytes: what it must move.
        prepare: makes the inputs on a device and returns the operation as a function of no arguments.
    """

    name: str
    bytes: int
    prepare: Callable[[str], Callable[[], object]]


MERGES = (("mirror", 24, 13, 16 * 16, 64), ("front_back", 13, 8, 8 * 8, 128))
"""level, parts, groups, pixels, channels: what the DSAG-Stream merges at S = 32 and full width."""

QUERIES, GALLERY, IDENTITIES = 256, 15_913, 750
"""A tile of queries against Market-1501's gallery."""


def typical(batch: int = 64, queries: int = QUERIES, gallery: int = GALLERY) -> list[Typical]:
    """Every operation at its typical size; smaller arguments are for trying the code out."""
    shape = (batch, 3, 256, 128, 32)
    rows = [
        Typical(f"warp, {name} out", warp_bytes(*shape, out_bytes=dtype.itemsize), _warp(batch, dtype))
        for name, dtype in (
            ("float32", torch.float32),
            ("float16", torch.float16),
            ("uint8", torch.uint8),
        )
    ]
    rows.append(Typical("warp gradient, float32", warp_gradient_bytes(*shape), _warp_gradient(batch)))
    moved = batch_bytes(batch, (128, 64), (256, 128), 32)
    rows.append(Typical("assemble_batch, 128x64 to 256x128, float32", moved, _batch(batch)))
    for level, parts, groups, pixels, channels in MERGES:
        # channels_last: memory is [B, H, W, part, channel], so a pixel is a "batch" entry.
        size = (batch * pixels, parts, groups, channels)
        features = (batch * pixels, parts, channels)
        title = f"merge {level}"
        for ending, fused in (("", False), (", residual + ReLU", True)):
            rows += [
                Typical(title + ending, merge_bytes(*size, residual=fused), _merge(features, level, fused)),
                Typical(
                    f"{title}{ending}, gradient",
                    merge_gradient_bytes(*size, relu=fused),
                    _merge_gradient(features, level, fused),
                ),
            ]
    case = ranking(queries, gallery, IDENTITIES)
    moved = rank_bytes(queries, gallery, columns(case[3]))
    # It needs the largest count for the shape of its result, and so waits for the host on the way.
    rows.append(Typical("count_ranks, float32, waits for the host", moved, _rank(case)))
    return rows


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


def _batch(batch: int):
    def prepare(device):
        arguments = tuple(x.to(device) for x in stored_batch(batch))
        out = (
            torch.empty((batch, 3, 256, 128), device=device),
            torch.empty((batch, 24, 3, 32, 32), device=device),
        )
        return lambda: assemble_batch(*arguments, height=256, width=128, size=32, out=out)

    return prepare


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


def _rank(case: tuple[Tensor, ...]):
    def prepare(device):
        arguments = tuple(x.to(device) for x in case)
        return lambda: count_ranks(*arguments)

    return prepare


def cuda_medians(
    work: dict[str, Callable[[int], object]], rounds: int = 50, warm_up: int = 5
) -> dict[str, float]:
    """Median seconds of each function on the current CUDA device, by events; in each round every one
    runs once, one after the other, with the number of the round to rotate its buffers by.

    Before each run the L2 cache is filled with other data, by reading: what a write leaves there
    would have to be written back on the time of the run. Then the device waits for a moment, so
    that the host has queued the whole run before it starts and launches are not timed. (A function
    that waits for the device itself pays for that, as it would in a program.)
    """
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    scrub_bytes = max(4 * getattr(properties, "L2_cache_size", 0), 1 << 28)
    scrub = torch.ones(scrub_bytes // 4, device="cuda")
    spans: dict[str, list] = {name: [] for name in work}
    for turn in range(-warm_up, rounds):
        for name, function in work.items():
            scrub.sum()
            torch.cuda._sleep(4_000_000)  # cycles: about two milliseconds
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function(turn)
            end.record()
            if turn >= 0:
                spans[name].append((start, end))
        torch.cuda.synchronize()
    return {
        name: statistics.median(start.elapsed_time(end) / 1e3 for start, end in pairs)
        for name, pairs in spans.items()
    }


def copy_bandwidth(rounds: int = 20) -> float:
    """Bytes a second of a large device-to-device copy, read and written bytes counted."""
    count = min(1 << 30, torch.cuda.mem_get_info()[0] // 4)
    source = torch.randint(0, 256, (count,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = cuda_medians({"copy": lambda turn: target.copy_(source)}, rounds)["copy"]
    return 2 * count / seconds
