"""Make training batches from files or a store, by every way one could take, on all cores.

    python benchmarks/loader.py [--data ROOT] [--plot docs/loader.png]

A batch is 64 images, resized to 256x128, augmented (pad and crop, flip, erase) and normalised, and their
24 DSAP-images of 32x32, float32. The ways:

    a  what one writes today: Pillow, torchvision transforms, a numpy loop over parts, DataLoader, 2 workers
    b  the same with one flat numpy scatter in place of the loop
    c  the same with dsa_ext.iuv_to_dsap in the collate function (dsareid.data.torch_dataset)
    d  the same in spdl, a library that loads with threads, on 2 threads
    e  DSAP-images warped beforehand, as uint8 in a memory-mapped store; the images as in f
    f  dsa_ext.assemble_batch on a store of pixels and IUV maps, 2 threads
    g  f as training takes it: dsareid.data.loader, assembled ahead by a thread

a to d read files of 128x64 and warp the image before its augmentation, which is less work than f does. e
has no augmentation of its DSAP-images either. Before anything is timed all ways make the same batch without
augmentation: a to d and f bit for bit, e to what 8 bits can hold. The ways take turns.

What holds a to d back is the decoding of files and torchvision's transforms: a fast warp alone changes
little. What warping on the fly buys over e is the augmented view (in e no pixel of the part images is
cropped, erased or flipped), any S, parts that can be dropped, and no pass over the data before.

Without `--data` a synthetic data set is made first (`dsareid synth`, a minute).
"""

import contextlib
import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import compile_peer, made_data
from peers.file_loaders import (
    AHEAD,
    BATCH,
    HEIGHT,
    SIZE,
    THREADS,
    WIDTH,
    Batches,
    collate_way,
    flat_scatter,
    loop_over_parts,
    numpy_way,
    spdl_way,
)
from result import Result, parser
from torch import Tensor

from dsa_ext import assemble_batch, draw_augmentation, iuv_to_dsap
from dsareid.data.augment import AugmentConfig
from dsareid.data.batch import BatchConfig, InputConfig
from dsareid.data.layouts.base import TRAIN
from dsareid.data.loader import TrainData
from dsareid.data.store.pack import pack
from dsareid.data.store.reader import Split
from dsareid.models.options import MEAN, STD


@dataclass
class Way:
    """One way to a batch."""

    letter: str
    title: str
    store: str | None  # its size; None: files
    stored: float  # bytes an image
    prepared: float  # seconds an image, once
    batches: Callable[[bool], Batches]  # endless; with augmentation or without, then in order
    timed: int  # batches a turn

    @property
    def name(self) -> str:
        return f"({self.letter}) {self.title}"


# ---- stores ----


def draws(split: Split, augment: bool) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Which images, and how they are augmented."""
    rng, epoch = np.random.default_rng(0), 0
    while True:
        order = rng.permutation(split.rows) if augment else split.rows
        for start in range(0, len(order) - BATCH + 1, BATCH):
            index = torch.from_numpy(order[start : start + BATCH])
            yield index, draw_augmentation(0, epoch, index, height=HEIGHT, width=WIDTH) if augment else None
        epoch += 1


def buffers() -> list[tuple[Tensor, Tensor]]:
    """The memory of a few batches, in turn."""
    return [(torch.zeros(BATCH, 3, HEIGHT, WIDTH), torch.zeros(BATCH, 24, 3, SIZE, SIZE)) for _ in range(4)]


def assembled(split: Split) -> Callable[[bool], Batches]:
    def batches(augment: bool) -> Batches:
        out, store = buffers(), split.store
        for turn, (index, params) in enumerate(draws(split, augment)):
            yield assemble_batch(
                store.images,
                store.iuv,
                index,
                params,
                height=HEIGHT,
                width=WIDTH,
                size=SIZE,
                mean=MEAN,
                std=STD,
                out=out[turn % len(out)],
            )

    return batches


def prepared_dsap(split: Split, path: Path) -> float:
    """Write the DSAP-images of every image as uint8 [N, 24, 3, S, S]; returns the seconds."""
    start, store = time.perf_counter(), split.store
    shape = (len(store.images), 24, 3, SIZE, SIZE)
    out = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    for first in range(0, len(out), BATCH):
        image, iuv = (
            torch.from_numpy(np.array(x[first : first + BATCH])).permute(0, 3, 1, 2)
            for x in (store.images, store.iuv)
        )
        fill = [round(255 * x) for x in MEAN]
        out[first : first + BATCH] = iuv_to_dsap(image, iuv, size=SIZE, fill=fill).numpy()
    out.flush()
    return time.perf_counter() - start


def expanded(split: Split, path: Path) -> Callable[[bool], Batches]:
    peer = compile_peer("dsap_expand.cpp", "-mavx2", "-mfma").dsap_expand
    peer.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_int] * 3 + [ctypes.c_void_p] * 3
    stored = np.load(path, mmap_mode="r")
    mean, std = (np.array(x, np.float32) for x in (MEAN, STD))

    def batches(augment: bool) -> Batches:
        out, store = buffers(), split.store
        with ThreadPoolExecutor(THREADS) as pool:
            for turn, (index, params) in enumerate(draws(split, augment)):
                image, dsap = out[turn % len(out)]
                assemble_batch(
                    store.images,
                    None,
                    index,
                    params,
                    height=HEIGHT,
                    width=WIDTH,
                    mean=MEAN,
                    std=STD,
                    out=(image, None),
                )

                def expand(part: int, dsap=dsap, index=index) -> None:
                    first, last = (BATCH * k // THREADS for k in (part, part + 1))
                    peer(
                        stored.ctypes.data,
                        index.data_ptr(),
                        first,
                        last,
                        SIZE * SIZE,
                        mean.ctypes.data,
                        std.ctypes.data,
                        dsap.data_ptr(),
                    )

                list(pool.map(expand, range(THREADS)))
                yield image, dsap

    return batches


def as_trained(split: Split) -> Callable[[bool], Batches]:
    def batches(augment: bool) -> Batches:
        settings = AugmentConfig() if augment else AugmentConfig(pad=0, flip=0, erase=0)
        config = BatchConfig(InputConfig(HEIGHT, WIDTH, "part-images", SIZE), BATCH, settings, 0)
        data = TrainData(split, config, torch.device("cpu"))
        rng, epoch = np.random.default_rng(0), 0
        while True:
            order = rng.permutation(len(split)) if augment else np.arange(len(split))
            index = order[: len(order) // BATCH * BATCH].reshape(-1, BATCH)
            for batch in data.batches(epoch, index, np.zeros_like(index)):
                yield batch.image, batch.dsap
            epoch += 1

    return batches


# ---- the contest ----


def file_bytes(root: Path) -> float:
    """Image and map of an image on disk, on average."""
    images = list((root / TRAIN).iterdir())
    both = [*images, *(root / "iuv" / TRAIN).iterdir()]
    return sum(path.stat().st_size for path in both) / len(images)


def all_ways(root: Path, folder: Path) -> list[Way]:
    size = file_bytes(root)
    ways = [
        Way(
            "a",
            "files, numpy loop over parts, DataLoader",
            None,
            size,
            0,
            numpy_way(root, loop_over_parts),
            12,
        ),
        Way("b", "files, flat numpy scatter, DataLoader", None, size, 0, numpy_way(root, flat_scatter), 16),
        Way("c", "files, our warp in the collate, DataLoader", None, size, 0, collate_way(root), 16),
        Way("d", "files, our warp, spdl on 2 threads", None, size, 0, spdl_way(root), 16),
    ]
    for height, width in ((128, 64), (256, 128)):
        start = time.perf_counter()
        split = pack(root, folder / f"store-{height}", height, width).select(TRAIN, iuv=True)
        packed = (time.perf_counter() - start) / len(split.store.images)
        pixels, dsap = height * width * 3, 24 * 3 * SIZE * SIZE
        path = folder / f"dsap-{height}.npy"
        warped = prepared_dsap(split, path) / len(split.store.images)
        at = f"{height}x{width}"
        ways += [
            Way(
                "e", "store, warped beforehand", at, pixels + dsap, packed + warped, expanded(split, path), 30
            ),
            Way("f", "store, assemble_batch", at, 2 * pixels, packed, assembled(split), 30),
            Way("g", "store, as training takes it", at, 2 * pixels, packed, as_trained(split), 30),
        ]
    return ways


def verify(ways: list[Way]) -> None:
    """Every way's first batch without augmentation. Stores of 256x128 are another image: f is theirs."""
    expected = {}
    for way in [*(w for w in ways if w.letter == "f"), *ways]:
        with contextlib.closing(way.batches(False)) as source:
            image, dsap = (x.clone() for x in next(source))
        key = way.store == "256x128"
        image_wanted, dsap_wanted = expected.setdefault(key, (image, dsap))
        near = 1 / 255 / min(STD) if way.letter == "e" else 0  # empty cells hold the mean, rounded
        if not torch.equal(image, image_wanted) or (dsap - dsap_wanted).abs().max() > near:
            raise SystemExit(f"{way.name} does not make the same batch")


def turn(way: Way) -> float:
    """Images a second, after the batches that loaders keep ready. Nothing of it runs on afterwards."""
    torch.set_num_threads(THREADS)
    with contextlib.closing(way.batches(True)) as source:
        for _ in range(2 * AHEAD):
            next(source)
        start = time.perf_counter()
        for _ in range(way.timed):
            next(source)
        return way.timed * BATCH / (time.perf_counter() - start)


def measure(ways: list[Way], rounds: int) -> list[list[float]]:
    """Images a second of each way in each round."""
    speeds: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for way, found in zip(ways, speeds):
            found.append(turn(way))
    return speeds


def report(result: Result, ways: list[Way], speeds: list[list[float]]) -> None:
    for store in ("128x64", "256x128"):
        runs = {way.name: found for way, found in zip(ways, speeds) if way.store in (None, store)}
        result.add("To a ready batch", f"store of {store}", runs, unit="images/s", against=ways[0].name)
    for title, unit, of in (
        ("On disk, an image with its map", "KB", lambda way: way.stored / 1e3),
        ("Once, an image", "ms", lambda way: way.prepared),
    ):
        for store in ("128x64", "256x128"):
            values = {way.name: [of(way)] for way in ways if way.store in (None, store) and of(way)}
            result.add(title, f"store of {store}", values, unit=unit)


def plot(ways: list[Way], speeds: list[list[float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = {"e": "#8a9199", "f": "#1f6f8b", "g": "#1f6f8b"}
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(ways) + 1.1), layout="constrained")
    names = [f"{way.name}, {way.store}" if way.store else way.name for way in ways]
    medians = [statistics.median(found) for found in speeds]
    bars = axes.barh(names, medians, color=[colours.get(way.letter, "#c9793f") for way in ways])
    labels = [
        f"{speed:,.0f}   {way.stored / 1e3:.0f} KB an image" for speed, way in zip(medians, ways, strict=True)
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(medians) / 2, max(medians) * 8)
    axes.invert_yaxis()
    axes.set_xlabel(f"images a second to a ready batch with part images, {THREADS} cores (logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, help="a data set with files of 128x64")
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--plot", type=Path, metavar="PNG")
    arguments = options.parse_args()
    with Result(arguments) as result, tempfile.TemporaryDirectory() as folder:
        root = arguments.data or made_data(Path(folder))
        ways = all_ways(root, Path(folder))
        verify(ways)
        speeds = measure(ways, arguments.rounds)
        report(result, ways, speeds)
        if arguments.plot:
            plot(ways, speeds, arguments.plot)


if __name__ == "__main__":
    main()
