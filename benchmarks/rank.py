"""Rank a gallery of Market-1501's size: time beyond the matrix product, against peers, and memory.

    python benchmarks/rank.py [--queries 3368] [--gallery 15913] [--dimensions 512]
                              [--threads 2] [--repeats 5] [--peer-queries 200]

mAP and CMC of two kinds of features: random ones, whose matches stand anywhere, and separated ones, whose
matches stand in front. `rank` works from features, `Ranking` from ready distances, as the peers do. Both
are verified against sorting every query in numpy, on whole-number features with ties everywhere, before
anything is timed. The sort in numpy is of the first `--peer-queries` queries, scaled up. Memory is
measured in a process of its own.

torchreid's package comes without the source of its compiled evaluation, which is timed where
`import rank_cy` works. To get it:

    pip install cython setuptools
    git clone https://github.com/KaiyangZhou/deep-person-reid
    cd deep-person-reid/torchreid/metrics/rank_cylib && python setup.py build_ext --inplace
    export PYTHONPATH=$PWD
"""

import argparse
import subprocess
import sys
import time

import numpy as np
import torch
from common import process_memory
from result import Result, parser

import dsareid.evaluation
from dsareid.evaluation import Labels, Ranking

try:
    import rank_cy
except ImportError:
    rank_cy = None

IDENTITIES, CAMERAS = 750, 6
READY = "Ranking, ready distances"


def make_case(queries: int, gallery: int, dimensions: int, kind: str = "random") -> tuple:
    """Arguments of `rank`; kind is "random", "separated" or "whole numbers"."""
    draw = torch.Generator().manual_seed(0)

    def labels(high: int, count: int) -> torch.Tensor:
        return torch.randint(0, high, (count,), generator=draw)

    def features(ids: torch.Tensor) -> torch.Tensor:
        if kind == "whole numbers":
            return torch.randint(-2, 3, (len(ids), dimensions), generator=draw).float()
        noise = torch.randn(len(ids), dimensions, generator=draw)
        return noise + 2 * centres[ids] if kind == "separated" else noise

    centres = torch.randn(IDENTITIES, dimensions, generator=draw)
    query_ids, gallery_ids = labels(IDENTITIES, queries), labels(IDENTITIES, gallery)
    return (
        features(query_ids),
        features(gallery_ids),
        query_ids,
        gallery_ids,
        labels(CAMERAS, queries),
        labels(CAMERAS, gallery),
    )


def distances_of(case: tuple) -> torch.Tensor:
    """Squared Euclidean distances [queries, gallery], without what is the same in a whole row."""
    query, gallery = case[:2]
    return torch.addmm(gallery.square().sum(1), query, gallery.T, alpha=-2)


def sort_every_query(distances: torch.Tensor, *labels: torch.Tensor) -> tuple[float, np.ndarray]:
    """The peer in numpy: sort the gallery of each query; mAP and the first 50 of CMC."""
    query_ids, ids, query_cams, cams = (x.numpy() for x in labels)
    aps, cmc = [], np.zeros(50)
    for i, row in enumerate(distances.numpy()):
        order = np.argsort(row, kind="stable")
        order = order[(ids[order] != query_ids[i]) | (cams[order] != query_cams[i])]
        places = np.flatnonzero(ids[order] == query_ids[i])
        if len(places):
            aps.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
            cmc[places[0] :] += 1
    return float(np.mean(aps)), cmc / len(aps)


def torchreid(distances: torch.Tensor, *labels: torch.Tensor) -> tuple[float, np.ndarray]:
    """The compiled peer; float32 sums, and ties in no order."""
    cmc, mean = rank_cy.evaluate_cy(distances.numpy(), *(x.numpy() for x in labels), 50)
    return mean, cmc


def matrix_product(query: torch.Tensor, gallery: torch.Tensor, tile: int = 256) -> None:
    """The product alone, in tiles into memory that is reused."""
    out = torch.empty(tile, len(gallery))
    for part in query.split(tile):
        torch.mm(part, gallery.T, out=out[: len(part)])


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure_memory(options: argparse.Namespace) -> None:
    """In a process of its own: print by how much `rank` raises the peak above the features."""
    torch.set_num_threads(options.threads)
    case = make_case(options.queries, options.gallery, options.dimensions)
    dsareid.evaluation.rank(*make_case(64, 2000, 16))  # loads what is loaded once
    before = process_memory("VmRSS")
    dsareid.evaluation.rank(*case)
    print(process_memory("VmHWM") - before)


def assert_agrees(result: dsareid.evaluation.RankResult, peer: tuple, tolerance: float) -> None:
    mean, cmc = peer
    assert abs(result.mAP - mean) < tolerance, (result.mAP, mean)
    assert np.allclose(result.cmc.numpy(), cmc, rtol=0, atol=tolerance)


def verify(result: Result, options: argparse.Namespace) -> None:
    case = make_case(300, options.gallery, options.dimensions, "whole numbers")
    distances, labels = distances_of(case), case[2:]
    expected = sort_every_query(distances, *labels)
    assert_agrees(dsareid.evaluation.rank(*case), expected, 1e-12)
    assert_agrees(Ranking(distances, Labels(*labels)).result(), expected, 1e-12)
    result.note("Verified against sorting every query: 300 queries, whole numbers, ties.")


def measure(result: Result, options: argparse.Namespace, kind: str) -> None:
    case = make_case(options.queries, options.gallery, options.dimensions, kind)
    labels, distances = case[2:], distances_of(case)
    few = min(options.peer_queries, options.queries)
    few_labels = tuple(x if i % 2 else x[:few] for i, x in enumerate(labels))
    work = {
        "matrix product alone": lambda: matrix_product(*case[:2]),
        "rank": lambda: dsareid.evaluation.rank(*case),
        READY: lambda: Ranking(distances, Labels(*labels)).result(),
        "numpy, a sort per query": lambda: sort_every_query(distances[:few], *few_labels),
    }
    if rank_cy is not None:
        work["torchreid, compiled"] = lambda: torchreid(distances, *labels)
        # Sums in float32, and what ties among random numbers it may order otherwise.
        assert_agrees(work[READY](), torchreid(distances, *labels), 1e-4)
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(-1, options.repeats):
        for name, function in work.items():
            spent = seconds(function)
            if turn >= 0:
                scale = options.queries / few if name.startswith("numpy") else 1
                times[name].append(spent * scale)
    beyond = [whole - product for whole, product in zip(times["rank"], times["matrix product alone"])]
    case = f"{kind} features"
    names = ["matrix product alone", "rank"]
    features = {name: times.pop(name) for name in names} | {"rank beyond the product": beyond}
    result.add("From features", case, features, unit="s", against="matrix product alone")
    result.add("From ready distances", case, times, unit="s", against=READY)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--queries", type=int, default=3368)
    arguments.add_argument("--gallery", type=int, default=15913)
    arguments.add_argument("--dimensions", type=int, default=512)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--peer-queries", type=int, default=200)
    arguments.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.memory_only:
        measure_memory(options)
        return

    torch.set_num_threads(options.threads)
    with Result(options) as result:
        verify(result, options)
        if rank_cy is None:
            result.note("torchreid's compiled evaluation was not there.")
        for kind in ("random", "separated"):
            measure(result, options, kind)
        command = [sys.executable, __file__, "--memory-only"]
        for name in ("queries", "gallery", "dimensions", "threads"):
            command += [f"--{name}", str(getattr(options, name))]
        above = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        case = f"{options.queries:,} x {options.gallery:,}"
        result.add("Memory above the features, at the peak", case, {"rank": [above / 2**20]}, unit="MiB")


if __name__ == "__main__":
    main()
