"""Warp 64 images of 256x128 to 24 part images of 32x32, against everything one could use instead.

    python benchmarks/warp.py

One thread, to float32 where nothing else is said. Every peer's result is compared with ours before
anything is timed. The minimal C++ loop makes no check. Buffers rotate through more memory than the last-
level cache holds, and were touched before; into fresh memory the warp pays for page faults as well, so
reuse `out=`.
"""

import ctypes
import mmap

import numba
import numpy as np
import torch
from common import compile_peer, paired_runs, thread_runs
from result import Result, parser

from dsa_ext import iuv_to_dsap

BATCH, HEIGHT, WIDTH, SIZE = 64, 256, 128, 32
SETS = 4  # 31 MB each


def make_batch(foreground: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [64, 3, 256, 128] images and IUV maps: a person-sized block of 6 x 4 parts, each with a
    smooth chart and some noise, so that about 1.6 pixels meet in a filled cell at 45 %."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=np.uint8)
    iuv = np.zeros((BATCH, 3, HEIGHT, WIDTH), dtype=np.uint8)
    height = int(HEIGHT * min(0.95, foreground**0.5 * 1.15))
    width = int(round(foreground * HEIGHT * WIDTH / height))
    y, x = np.mgrid[:height, :width]
    down, across = y / height * 6, x / width * 4
    part = 1 + np.floor(down) * 4 + np.floor(across)
    for b in range(BATCH):
        top, left = rng.integers(0, HEIGHT - height + 1), rng.integers(0, WIDTH - width + 1)
        block = iuv[b, :, top : top + height, left : left + width]
        block[0] = rng.permutation(np.arange(1, 25))[part.astype(int) - 1]
        for plane, chart in ((1, down % 1), (2, across % 1)):
            noise = rng.normal(0, 4, (height, width))
            block[plane] = np.clip(chart * 255 + noise, 0, 255).astype(np.uint8)
    return image, iuv


def make_narrow(foreground: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The same with people in tall narrow ellipses, which leave most rows of 16 pixels partly background."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (BATCH, 3, HEIGHT, WIDTH), dtype=np.uint8)
    iuv = np.zeros((BATCH, 3, HEIGHT, WIDTH), dtype=np.uint8)
    tall = HEIGHT * 0.46
    wide = foreground * HEIGHT * WIDTH / (np.pi * tall)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for b in range(BATCH):
        top = HEIGHT / 2 + rng.uniform(-8, 8) - tall
        left = WIDTH / 2 + rng.uniform(-20, 20) - wide
        down, across = (y - top) / (2 * tall), (x - left) / (2 * wide)
        person = (down - 0.5) ** 2 + (across - 0.5) ** 2 < 0.25
        down, across = np.clip(down, 0, 0.999) * 6, np.clip(across, 0, 0.999) * 4
        part = (np.floor(down) * 4 + np.floor(across)).astype(int)
        iuv[b, 0] = np.where(person, rng.permutation(np.arange(1, 25))[part], 0)
        for plane, chart in ((1, down % 1), (2, across % 1)):
            noisy = chart * 255 + rng.normal(0, 4, person.shape)
            iuv[b, plane] = np.where(person, np.clip(noisy, 0, 255), 0)
    return image, iuv


def numpy_parts(image: np.ndarray, iuv: np.ndarray, out: np.ndarray) -> None:
    """What most people write: a loop over images and parts."""
    out[:] = 0
    for b in range(len(image)):
        i, u, v = iuv[b]
        for part in range(24):
            y, x = np.nonzero(i == part + 1)
            row = np.minimum(u[y, x].astype(np.int64) * SIZE // 255, SIZE - 1)
            column = np.minimum(v[y, x].astype(np.int64) * SIZE // 255, SIZE - 1)
            out[b, part][:, row, column] = image[b][:, y, x] / np.float32(255)


@numba.njit(cache=False)
def numba_loop(image, iuv, out):
    out[:] = 0
    for b in range(image.shape[0]):
        for y in range(image.shape[2]):
            for x in range(image.shape[3]):
                part = iuv[b, 0, y, x]
                if part:
                    row = min(int(iuv[b, 1, y, x]) * SIZE // 255, SIZE - 1)
                    column = min(int(iuv[b, 2, y, x]) * SIZE // 255, SIZE - 1)
                    for c in range(3):
                        out[b, part - 1, c, row, column] = image[b, c, y, x] / np.float32(255)


def torch_scatter(image: torch.Tensor, iuv: torch.Tensor, out: torch.Tensor) -> None:
    """The deterministic torch form: the highest pixel index of each cell, then a gather."""
    part, u, v = iuv.flatten(2).long().unbind(1)  # [B, H*W]
    row, column = ((x * SIZE // 255).clamp(max=SIZE - 1) for x in (u, v))
    cells = 24 * SIZE * SIZE
    cell = torch.where(part == 0, cells, (part - 1) * SIZE * SIZE + row * SIZE + column)
    pixel = torch.arange(cell.shape[1]).expand_as(cell)
    source = torch.full((len(image), cells + 1), -1).scatter_reduce(1, cell, pixel, "amax")[:, :cells]
    index = source.clamp(min=0)[:, None].expand(-1, 3, -1)
    value = (image.flatten(2).float() / 255).gather(2, index)  # [B, 3, 24*S*S]
    value = torch.where(source[:, None] < 0, 0.0, value)
    out.copy_(value.unflatten(2, (24, SIZE, SIZE)).transpose(1, 2))


def bench(result: Result, foreground: float, rounds: int, make=make_batch) -> None:
    peer = compile_peer("warp_minimal.cpp").warp_minimal
    peer.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int] * 4 + [ctypes.c_float]
    arrays = [make(foreground, seed) for seed in range(SETS)]
    sets = [(torch.from_numpy(image), torch.from_numpy(iuv)) for image, iuv in arrays]
    floating = [(image, iuv / torch.tensor([1, 255, 255])[:, None, None]) for image, iuv in sets]
    outs = [torch.zeros(BATCH, 24, 3, SIZE, SIZE) for _ in range(SETS)]
    bytes_out = [torch.zeros(BATCH, 24, 3, SIZE, SIZE, dtype=torch.uint8) for _ in range(SETS)]
    halves = [torch.zeros(BATCH, 24, 3, SIZE, SIZE, dtype=torch.float16) for _ in range(SETS)]
    brains = [torch.zeros(BATCH, 24, 3, SIZE, SIZE, dtype=torch.bfloat16) for _ in range(SETS)]

    def with_buffers(function, buffers=outs):
        return lambda turn: function(*sets[turn % SETS], buffers[turn % SETS])

    def minimal(image, iuv, out):
        peer(image.data_ptr(), iuv.data_ptr(), out.data_ptr(), BATCH, HEIGHT, WIDTH, SIZE, 0.0)

    def ours(image, iuv, out):
        iuv_to_dsap(image, iuv, size=SIZE, dtype=out.dtype, out=out)

    def numpy_form(function):
        return lambda image, iuv, out: function(image.numpy(), iuv.numpy(), out.numpy())

    torch.set_num_threads(1)
    slow = {
        "numpy, loop over parts": with_buffers(numpy_form(numpy_parts)),
        "torch scatter_reduce + gather": with_buffers(torch_scatter),
        "numba, one loop": with_buffers(numpy_form(numba_loop)),
    }
    fast = {
        "minimal C++ loop": with_buffers(minimal),
        "dsa_ext": with_buffers(ours),
        "dsa_ext, floating IUV": lambda turn: ours(*floating[turn % SETS], outs[turn % SETS]),
        "dsa_ext, uint8 out": with_buffers(ours, bytes_out),
        "dsa_ext, float16 out": with_buffers(ours, halves),
        "dsa_ext, bfloat16 out": with_buffers(ours, brains),
        "fill and read only": lambda turn: (
            outs[turn % SETS].zero_(),
            [x.view(torch.int64).sum() for x in sets[turn % SETS]],
        ),
    }

    def into_fresh_memory(turn):
        pages = mmap.mmap(-1, outs[0].nbytes)  # the allocator might hand back touched memory
        out = torch.frombuffer(pages, dtype=torch.float32).view(outs[0].shape)
        ours(*sets[turn % SETS], out)

    expected = iuv_to_dsap(*sets[0], size=SIZE, dtype=torch.float32)
    same = ("minimal C++ loop", "dsa_ext", "dsa_ext, floating IUV")
    for name, function in (slow | {k: fast[k] for k in same}).items():
        outs[0].fill_(-1)
        function(0)
        if not torch.equal(outs[0], expected):
            raise SystemExit(f"{name} does not compute the same as dsa_ext.iuv_to_dsap")

    runs = paired_runs(fast | {"dsa_ext, fresh memory": into_fresh_memory}, rounds)
    runs |= paired_runs(slow, max(3, rounds // 20), warm_up=1)
    filled = (sets[0][1][:, 0] > 0).float().mean().item()
    shape = ", narrow" if make is make_narrow else ""
    case = f"{100 * filled:.0f} % foreground{shape}"
    result.add("A batch on one thread", case, runs, against="minimal C++ loop")
    threads = {
        "the warp": with_buffers(ours),
        "zero_() of the output alone": lambda turn: outs[turn % SETS].zero_(),
    }
    for name, function in threads.items():
        found = thread_runs(function, rounds)
        result.add("On two threads", f"{name}, {case}", found, against="one thread")


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=60, help="timed runs of each candidate")
    arguments = options.parse_args()
    with Result(arguments) as result:
        for share in (0.10, 0.18):
            bench(result, share, arguments.rounds, make_narrow)
        for share in (0.15, 0.45, 0.70):
            bench(result, share, arguments.rounds)
