"""Call the small pieces of the data path, each by itself.

    python benchmarks/micro.py [--rounds 200]

One thread; the output is given, so that no memory is allocated. A stored sample is of 128x64, a made one of
256x128 with 24 part images of 32x32.
"""

from collections.abc import Callable

import numpy as np
import torch
from common import paired_runs
from result import Result, parser

from dsa_ext import assemble_batch, draw_augmentation, iuv_to_dsap
from dsa_ext.selftest.operations.batch import stored_batch
from dsareid.data.sampler import PKSampler
from dsareid.models.options import MEAN, STD

SETTINGS = {"height": 256, "width": 128, "size": 32, "mean": MEAN, "std": STD}


def assembling(
    images: torch.Tensor, iuv: torch.Tensor | None, *others: torch.Tensor, **settings: int
) -> Callable:
    """`assemble_batch` of these into memory that is there already."""
    own = SETTINGS | settings
    out = assemble_batch(images, iuv, *others, **own)
    return lambda _: assemble_batch(images, iuv, *others, out=out, **own)


def pieces() -> dict[str, Callable[[int], object]]:
    images, iuv, index, params = stored_batch(64)
    image, chart = (x.permute(0, 3, 1, 2) for x in (images, iuv))
    warped = iuv_to_dsap(image, chart, size=32, dtype=torch.float32)
    sampler = PKSampler(np.sort(np.random.default_rng(0).integers(0, 751, 12_936)), 16, 4, 0)
    return {
        "assemble_batch, 1 sample": assembling(images, iuv, index[:1], params[:1]),
        "assemble_batch, 64 samples": assembling(images, iuv, index, params),
        "the same, images alone": assembling(images, None, index, params),
        "the same, neither resized nor augmented": assembling(images, iuv, index, height=128, width=64),
        "iuv_to_dsap of 64 stored samples": lambda _: iuv_to_dsap(image, chart, size=32, out=warped),
        "draw_augmentation of 64": lambda turn: draw_augmentation(
            0, turn % 8, index, height=256, width=128, drop_person=0.3, drop_part=0.2
        ),
        "an epoch of PKSampler, 12,936 images": lambda _: sampler.epoch(0),
    }


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=200, help="timed runs of each piece")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    with Result(arguments) as result:
        result.add("A call", "one thread", paired_runs(pieces(), arguments.rounds, warm_up=5), unit="us")
