"""Assemble batches, against a minimal C++ loop that does the same, and against filling the output alone.

    python benchmarks/batch.py

64 samples of a store, augmented, to 3x256x128 and 24x3x32x32, float32 where nothing else is said. Results
are compared bit for bit before anything is timed. The loop makes no check; the buffers rotate, and the
samples are drawn anew each time from 2,000 images (98 MB of pixels and maps at 128x64).
"""

import ctypes

import numpy as np
import torch
from common import compile_peer, paired_runs, thread_runs
from result import Result, parser

from dsa_ext import assemble_batch, draw_augmentation
from dsa_ext.selftest.measure import person_batch
from dsareid.models.options import MEAN, STD

BATCH, IMAGES, SIZE, HEIGHT, WIDTH = 64, 2000, 32, 256, 128
SETS = 4


def make_store(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [2000, height, width, 3] images and maps, of 64 different people."""
    repeats = -(-IMAGES // BATCH)
    return tuple(
        x.permute(0, 2, 3, 1).repeat(repeats, 1, 1, 1)[:IMAGES].contiguous()
        for x in person_batch(BATCH, height, width)
    )


def empty(dtype: torch.dtype, last: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if last:
        image = torch.zeros(BATCH, HEIGHT, WIDTH, 3, dtype=dtype).permute(0, 3, 1, 2)
        return image, torch.zeros(BATCH, 24, SIZE, SIZE, 3, dtype=dtype).permute(0, 1, 4, 2, 3)
    shapes = (BATCH, 3, HEIGHT, WIDTH), (BATCH, 24, 3, SIZE, SIZE)
    return tuple(torch.zeros(shape, dtype=dtype) for shape in shapes)


def bench(result: Result, height: int, width: int, rounds: int) -> None:
    images, iuv = make_store(height, width)
    rng = np.random.default_rng(0)
    indices = [torch.from_numpy(rng.integers(0, IMAGES, BATCH)) for _ in range(8)]
    drawn = [draw_augmentation(0, turn, x, height=HEIGHT, width=WIDTH) for turn, x in enumerate(indices)]
    peer = compile_peer("batch_minimal.cpp").batch_minimal
    peer.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_int] * 6 + [ctypes.c_void_p] * 4
    mean, std = (np.array(x, np.float32) for x in (MEAN, STD))

    def ours(out, **options):
        return lambda turn: assemble_batch(
            images,
            iuv,
            indices[turn % 8],
            drawn[turn % 8],
            height=HEIGHT,
            width=WIDTH,
            size=SIZE,
            mean=MEAN,
            std=STD,
            out=out[turn % SETS],
            **options,
        )

    def minimal(out):
        return lambda turn: peer(
            images.data_ptr(),
            iuv.data_ptr(),
            indices[turn % 8].data_ptr(),
            drawn[turn % 8].data_ptr(),
            BATCH,
            height,
            width,
            HEIGHT,
            WIDTH,
            SIZE,
            mean.ctypes.data,
            std.ctypes.data,
            out[turn % SETS][0].data_ptr(),
            out[turn % SETS][1].data_ptr(),
        )

    def buffers(dtype=torch.float32, last=False):
        return [empty(dtype, last) for _ in range(SETS)]

    plain = buffers()
    work = {
        "minimal C++ loop": minimal(plain),
        "assemble_batch": ours(plain),
        "assemble_batch, channels_last": ours(buffers(last=True)),
        "assemble_batch, float16": ours(buffers(torch.float16)),
        "assemble_batch, bfloat16": ours(buffers(torch.bfloat16)),
        "fill the output only": lambda turn: [x.zero_() for x in plain[turn % SETS]],
    }
    torch.set_num_threads(1)
    for turn in range(8):
        expected = assemble_batch(
            images, iuv, indices[turn], drawn[turn], height=HEIGHT, width=WIDTH, size=SIZE, mean=MEAN, std=STD
        )
        work["minimal C++ loop"](turn)
        if not all(torch.equal(a, b) for a, b in zip(plain[turn % SETS], expected)):
            raise SystemExit("the minimal loop does not compute the same as dsa_ext.assemble_batch")
    case = f"store of {height}x{width}"
    result.add("A batch on one thread", case, paired_runs(work, rounds), against="minimal C++ loop")
    threads = thread_runs(work["assemble_batch"], rounds)
    result.add("assemble_batch on two threads", case, threads, against="one thread")


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=60, help="timed runs of each candidate")
    arguments = options.parse_args()
    with Result(arguments) as result:
        for height, width in ((128, 64), (256, 128)):
            bench(result, height, width, arguments.rounds)
