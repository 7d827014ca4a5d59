"""Rank and re-rank large galleries: time beside the matrix products alone, and memory.

    python benchmarks/gallery.py [--queries 10000] [--gallery 1000000] [--dimension 512]
                                 [--threads 2] [--rerank 3368 15913]

Features are written to files in a temporary folder, a block at a time, and mapped into memory; one in a
hundred is a copy of another. First `rank` is verified against sorting every query in numpy, on whole
numbers. Its time stands beside that of the same matrix products alone, of the same tiles and taken in
turns with it. Memory is what the process's own (RssAnon) grew by at the peak: the pages of the mapped
files are not in it, as they are the features, and go when memory is short. k-reciprocal re-ranking is of
`--rerank` queries and gallery images; all pairs of these would take the memory that stands beside it.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from common import process_memory
from rank import assert_agrees, distances_of, make_case, sort_every_query
from result import Result, parser

from dsareid.evaluation import FeatureDistances, Labels, Ranking, k_reciprocal, rank

BLOCK = 1 << 14  # images
PER_IDENTITY, CAMERAS = 20, 6
MEMORY = "Memory above the features"


def write_features(path: Path, ids: torch.Tensor, centres: torch.Tensor, seed: int) -> np.ndarray:
    """Features around the centres of their identities, in a file of which nothing stays in memory."""
    draw = torch.Generator().manual_seed(seed)
    shape = (len(ids), centres.shape[1])
    array = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for first in range(0, len(ids), BLOCK):
        part = centres[ids[first : first + BLOCK]]
        part = 0.4 * part + torch.randn(part.shape, generator=draw)
        part[::100] = part[0].clone()
        array[first : first + BLOCK] = part.numpy()
    array.flush()
    del array
    return np.load(path, mmap_mode="r")


def make_files(folder: Path, queries: int, gallery: int, dimension: int) -> tuple:
    """Arguments of `rank`, the features mapped."""
    draw = torch.Generator().manual_seed(0)
    identities = max(1, gallery // PER_IDENTITY)
    centres = torch.randn(identities, dimension, generator=draw)
    ids = [torch.randint(0, identities, (count,), generator=draw) for count in (queries, gallery)]
    cams = [torch.randint(0, CAMERAS, (count,), generator=draw) for count in (queries, gallery)]
    files = [
        write_features(folder / f"{name}.npy", own, centres, seed)
        for seed, (name, own) in enumerate(zip(("query", "gallery"), ids))
    ]
    return *files, *ids, *cams


@contextlib.contextmanager
def own_memory() -> Iterator[list[int]]:
    """The first item is, at the end, by how many bytes RssAnon, sampled every 5 ms, rose at most."""
    before, peak, done = process_memory("RssAnon"), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process_memory("RssAnon") - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def timed_products() -> Iterator[tuple[list[float], list[float]]]:
    """Seconds of each matrix product of a ranking, and of the same one once more, alone, right after it: so a
    machine with other work on it disturbs both alike."""
    inside, alone, product = [], [], FeatureDistances.product

    def timed(self, *arguments) -> None:
        for seconds in (inside, alone):
            start = time.perf_counter()
            product(self, *arguments)
            seconds.append(time.perf_counter() - start)

    FeatureDistances.product = timed
    try:
        yield inside, alone
    finally:
        FeatureDistances.product = product


def verify(result: Result, folder: Path, dimension: int) -> None:
    case = make_case(200, 20_000, dimension, "whole numbers")
    case[1][::100] = case[1][0].clone()
    expected = sort_every_query(distances_of(case), *case[2:])
    for name, features in zip(("query", "gallery"), case):
        np.save(folder / f"small-{name}.npy", features.numpy())
    mapped = [np.load(folder / f"small-{name}.npy", mmap_mode="r") for name in ("query", "gallery")]
    assert_agrees(rank(*mapped, *case[2:]), expected, 1e-12)
    halves = [array.astype(np.float16) for array in mapped]
    assert_agrees(rank(*halves, *case[2:]), expected, 1e-12)
    result.note("Verified against sorting every query: 200 x 20,000, whole numbers, copies; float16 too.")


def measure_rank(result: Result, folder: Path, queries: int, gallery: int, dimension: int) -> None:
    case = make_files(folder, queries, gallery, dimension)
    with own_memory() as peak, timed_products() as (inside, alone):
        start = time.perf_counter()
        found = rank(*case)
        whole = time.perf_counter() - start - sum(alone)
    case_name = f"{queries:,} x {gallery:,}, {dimension} dimensions"
    times = {
        "matrix products alone": [sum(alone)],
        "matrix products inside of rank": [sum(inside)],
        "rank": [whole],
    }
    result.add("mAP and CMC", case_name, times, unit="s", against="matrix products alone")
    result.add(MEMORY, f"rank, {case_name}", {"at the peak": [peak[0] / 2**20]}, unit="MiB")
    result.note(f"{case_name}: mAP {100 * found.mAP:.1f}, in {len(alone)} tiles.")


def measure_rerank(result: Result, queries: int, gallery: int, dimension: int) -> None:
    case = make_case(queries, gallery, dimension)
    identities = 1 + int(max(case[2].max(), case[3].max()))
    centres = 0.3 * torch.randn(identities, dimension, generator=torch.Generator().manual_seed(1))
    for features, ids in zip(case[:2], case[2:4]):
        features += centres[ids]
    with own_memory() as peak:
        start = time.perf_counter()
        distances = k_reciprocal(*case[:2])
        ready = time.perf_counter() - start
        found = Ranking(distances, Labels(*case[2:])).result()
        whole = time.perf_counter() - start
    plain = rank(*case)
    case_name = f"{queries:,} x {gallery:,}, {dimension} dimensions"
    result.add(
        "k-reciprocal re-ranking", case_name, {"until the first row": [ready], "all": [whole]}, unit="s"
    )
    memory = {"at the peak": [peak[0] / 2**20], "all pairs": [(queries + gallery) ** 2 * 4 / 2**20]}
    result.add(MEMORY, f"re-ranking, {case_name}", memory, unit="MiB")
    result.note(f"{case_name}: mAP {100 * plain.mAP:.1f}, re-ranked {100 * found.mAP:.1f}.")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--queries", type=int, default=10_000)
    arguments.add_argument("--gallery", type=int, default=1_000_000)
    arguments.add_argument("--dimension", type=int, default=512)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument(
        "--rerank", type=int, nargs=2, default=(3368, 15913), metavar=("QUERIES", "GALLERY")
    )
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    with Result(options) as result:
        with tempfile.TemporaryDirectory(prefix="dsa-gallery-") as name:
            folder = Path(name)
            verify(result, folder, options.dimension)
            measure_rank(result, folder, options.queries, options.gallery, options.dimension)
        measure_rerank(result, *options.rerank, options.dimension)


if __name__ == "__main__":
    main()
