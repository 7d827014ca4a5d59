"""Whether training data leaks: a million tiny batches, and stores of two sizes.

    python tests/robustness/soak_loader.py [--batches 1000000]

Prints the anonymous memory of the process (RssAnon: what it allocated, without mapped files) along the way.
Exit code 1 where it grows by more than 1 MB over the last nine tenths, or by more than 8 MB with a store
that is sixteen times as large.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dsareid.data.augment import AugmentConfig
from dsareid.data.batch import BatchConfig, InputConfig
from dsareid.data.layouts.base import TRAIN
from dsareid.data.loader import TrainData
from dsareid.data.store.pack import pack
from dsareid.data.store.reader import Store, open_store


def anonymous() -> float:
    """MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell RssAnon in /proc/self/status")


def write_data(root: Path, images: int, height: int, width: int) -> None:
    """Noise in Market-1501's layout, with IUV maps."""
    from PIL import Image

    from dsareid.data.iuv import write_iuv

    rng = np.random.default_rng(0)
    for folder in (root / TRAIN, root / "iuv" / TRAIN):
        folder.mkdir(parents=True)
    for number in range(images):
        name = f"{number // 4 + 1:04d}_c{number % 4 + 1}s1_{number:06d}_00"
        pixels, iuv = (rng.integers(0, n, (height, width, 3), dtype=np.uint8) for n in (256, 25))
        Image.fromarray(pixels).save(root / TRAIN / f"{name}.bmp")
        write_iuv(root / "iuv" / TRAIN / f"{name}.png", iuv)


def train_data(store: Store, batch: int, height: int, width: int, dsap_size: int) -> TrainData:
    config = BatchConfig(
        InputConfig(height, width, "part-images", dsap_size), batch, AugmentConfig(pad=2), seed=0
    )
    return TrainData(store.select(TRAIN, iuv=True), config, torch.device("cpu"))


def soak(batches: int, folder: Path) -> bool:
    write_data(folder / "tiny", 64, 16, 8)
    data = train_data(pack(folder / "tiny", folder / "tiny-store"), 8, 16, 8, 4)
    rng = np.random.default_rng(0)
    steps, start, seen = 1000, time.monotonic(), []
    for epoch in tqdm(range(batches // steps), unit="k batches", disable=None, leave=False):
        index = rng.integers(0, data.images, (steps, 8))
        for _ in data.batches(epoch, index, np.zeros_like(index)):
            pass
        seen.append(anonymous())
    tenth = len(seen) // 10
    seconds = time.monotonic() - start
    print(
        f"{batches:,} batches of 8 samples in {seconds:.0f} s, {seconds / batches * 1e6:.1f} us each; "
        f"anonymous memory after a tenth {seen[tenth]:.1f} MB, at the end {seen[-1]:.1f} MB"
    )
    return seen[-1] - seen[tenth] <= 1


def one_epoch(path: Path) -> float:
    """The memory after every image of a store was seen once."""
    store = open_store(path)
    data = train_data(store, 64, 128, 64, 32)
    index = np.arange(data.images).reshape(-1, 64)
    for _ in data.batches(0, index, np.zeros_like(index)):
        pass
    return anonymous()


def compare_sizes(folder: Path) -> bool:
    found = {}
    for images in (1024, 16384):
        write_data(folder / f"data-{images}", images, 128, 64)
        path = pack(folder / f"data-{images}", folder / f"store-{images}").path
        command = [sys.executable, __file__, "--one-epoch", str(path)]  # a process of its own
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[images] = float(done.stdout)
        size = sum(file.stat().st_size for file in path.iterdir())
        print(f"an epoch over a store of {size / 1e6:,.0f} MB: anonymous memory {found[images]:.1f} MB")
    return found[16384] - found[1024] <= 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=1_000_000, help="at least 10,000")
    parser.add_argument("--one-epoch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.batches < 10_000:
        parser.error("--batches must be at least 10,000")
    if arguments.one_epoch:
        print(one_epoch(arguments.one_epoch))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        steady = [compare_sizes(Path(folder)), soak(arguments.batches, Path(folder))]
    return 0 if all(steady) else 1


if __name__ == "__main__":
    sys.exit(main())
