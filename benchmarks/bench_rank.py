"""mAP and CMC of a Market-1501 sized ranking: time beyond the matrix product, and memory.

    python benchmarks/bench_rank.py [--queries 3368] [--gallery 15913] [--dimensions 512]
                                    [--threads 2] [--repeats 5] [--peer-queries 200]

Verifies `dsareid.evaluation.rank` against sorting every query in numpy, on whole-number features
with ties everywhere, before anything is timed. Then prints, on random features with Market-like
labels, medians of paired runs: the matrix product alone, the whole of `rank`, their difference, and
the same work by a sort per query in numpy (on the first --peer-queries queries, scaled up). Peak
memory is measured in a process of its own.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

try:
    import dsareid.evaluation
except ImportError:  # not installed: use this checkout
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))
    import dsareid.evaluation

IDENTITIES, CAMERAS = 750, 6


def make_case(queries: int, gallery: int, dimensions: int, whole_numbers: bool = False) -> tuple:
    """Arguments of `rank`: random features and labels."""
    draw = torch.Generator().manual_seed(0)

    def features(count: int) -> torch.Tensor:
        if whole_numbers:
            return torch.randint(-2, 3, (count, dimensions), generator=draw).float()
        return torch.randn(count, dimensions, generator=draw)

    def labels(high: int, count: int) -> torch.Tensor:
        return torch.randint(0, high, (count,), generator=draw)

    return (
        features(queries), features(gallery),
        labels(IDENTITIES, queries), labels(IDENTITIES, gallery),
        labels(CAMERAS, queries), labels(CAMERAS, gallery),
    )


def sort_every_query(case: tuple) -> tuple[float, np.ndarray]:
    """The peer: sort the gallery of each query in numpy; mAP and the first 50 of CMC."""
    query, gallery, query_ids, ids, query_cams, cams = (x.numpy() for x in case)
    distances = (gallery**2).sum(1) - 2 * query @ gallery.T
    aps, cmc = [], np.zeros(50)
    for i, row in enumerate(distances):
        order = np.argsort(row, kind="stable")
        order = order[(ids[order] != query_ids[i]) | (cams[order] != query_cams[i])]
        places = np.flatnonzero(ids[order] == query_ids[i])
        if len(places):
            aps.append(np.mean(np.arange(1, len(places) + 1) / (places + 1)))
            cmc[places[0] :] += 1
    return float(np.mean(aps)), cmc / len(aps)


def matrix_product(query: torch.Tensor, gallery: torch.Tensor, tile: int = 256) -> None:
    """The product alone, in tiles into memory that is reused."""
    out = torch.empty(tile, len(gallery))
    for part in query.split(tile):
        torch.mm(part, gallery.T, out=out[: len(part)])


def seconds(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def memory(field: str) -> int:
    """VmRSS (resident now) or VmHWM (its peak) of this process in bytes, on Linux.

    getrusage would not do: its peak begins with that of the process which started this one.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def measure_memory(options: argparse.Namespace) -> None:
    """In a process of its own: print by how much `rank` raises the peak above the features."""
    torch.set_num_threads(options.threads)
    case = make_case(options.queries, options.gallery, options.dimensions)
    dsareid.evaluation.rank(*make_case(64, 2000, 16))  # loads what is loaded once
    before = memory("VmRSS")
    dsareid.evaluation.rank(*case)
    print(memory("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=15913)
    parser.add_argument("--dimensions", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-queries", type=int, default=200)
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_only:
        measure_memory(options)
        return

    torch.set_num_threads(options.threads)
    case = make_case(300, options.gallery, options.dimensions, whole_numbers=True)
    result = dsareid.evaluation.rank(*case)
    mean, cmc = sort_every_query(case)
    assert abs(result.mAP - mean) < 1e-12, (result.mAP, mean)
    assert np.allclose(result.cmc.numpy(), cmc, rtol=0, atol=1e-12)
    print("verified against sorting every query: 300 queries, whole numbers, ties")

    case = make_case(options.queries, options.gallery, options.dimensions)
    peer_queries = min(options.peer_queries, options.queries)
    few = tuple(x[:peer_queries] if i % 2 == 0 else x for i, x in enumerate(case))
    matrix_product(*case[:2])
    product, whole, beyond, peer = [], [], [], []
    for _ in range(options.repeats):
        product.append(seconds(matrix_product, *case[:2]))
        whole.append(seconds(dsareid.evaluation.rank, *case))
        beyond.append(whole[-1] - product[-1])
        peer.append(seconds(sort_every_query, few) * options.queries / peer_queries)

    command = [sys.executable, __file__, "--memory-only"]
    for name in ("queries", "gallery", "dimensions", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    above = int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    print(
        f"{options.queries} x {options.gallery}, {options.dimensions} dimensions, "
        f"{options.threads} threads, median of {options.repeats}"
    )
    print(f"matrix product alone          {statistics.median(product):8.2f} s")
    print(f"rank                          {statistics.median(whole):8.2f} s")
    print(f"rank beyond the product       {statistics.median(beyond):8.2f} s")
    print(
        f"numpy, a sort per query       {statistics.median(peer):8.2f} s"
        f"  (from {peer_queries} queries; {statistics.median(peer) / statistics.median(whole):.1f}"
        " times rank)"
    )
    print(f"memory above the features     {above / 2**20:8.0f} MiB at the peak")


if __name__ == "__main__":
    main()
