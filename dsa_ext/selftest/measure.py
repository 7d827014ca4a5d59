"""How speed is measured on a GPU, and the batch of people that it is measured with.

The formulas for the bytes that must move are beside each operation in dsa_ext/selftest/operations; the
self-test, benchmarks/kernels.py and benchmarks/roofline.py use them.
"""

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

FOREGROUND = 0.45
"""Default share of an image's pixels that belong to a part."""


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


def cuda_runs(
    work: dict[str, Callable[[int], object]], rounds: int = 50, warm_up: int = 5
) -> dict[str, list[float]]:
    """Seconds of each function in each round on the current CUDA device, measured by events. A round runs
    every function once, with the round's number as argument, by which it can rotate its buffers.

    Before each run the L2 cache is filled with other data, by reading: data left by a write would
    have to be written back during the run. Then the device waits for a moment, so
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
    return {name: [start.elapsed_time(end) / 1e3 for start, end in pairs] for name, pairs in spans.items()}


def copy_bandwidth(rounds: int = 20) -> float:
    """Bytes a second of a large device-to-device copy, read and written bytes counted."""
    count = min(1 << 30, torch.cuda.mem_get_info()[0] // 4)
    source = torch.randint(0, 256, (count,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = cuda_runs({"copy": lambda turn: target.copy_(source)}, rounds)["copy"]
    return 2 * count / statistics.median(seconds)
