"""Ways to search a gallery: exact, by faiss and by Milvus Lite; what they find, and what they take.

    python benchmarks/growing.py [--sizes 10000 100000 1000000] [--queries 500] [--threads 2]

Features of 512 numbers are drawn by a rule with the statistics of a trained network: OSNet x0.25 (MSMT17) on
3,884 pictures of 971 people of CUHK01, where of a squared norm of 1 the mean of all has .43, people .33 with
variances that fall as k^-1.1 along the axes, and pictures of one person .24, falling as k^-0.6. Each person
has ten pictures, and queries are further pictures of people in the gallery.

Exact is `dsareid search` over a folder of features, which it reads in blocks from the disk; indexes of faiss
and Milvus are in memory. Recall is the share of the exact first k that a way returns among its first k; mAP
is of the first 100, by who is on the pictures. Queries are asked one at a time. The exact search is compared
with faiss' before anything is timed.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from result import Result, parser

from dsareid.evaluation.nearest import nearest
from dsareid.gallery.rows import GalleryInfo, GalleryRow
from dsareid.gallery.store import GalleryStore

DIMENSION, PICTURES, TOP = 512, 10, 100
MEAN, PEOPLE, WITHIN = (0.43, 0.0), (0.33, 1.1), (0.24, 0.6)  # share of the squared norm, and how it falls
BATCH = 4096
M, BUILD, ASK = 16, 200, 128
Find = Callable[[np.ndarray], np.ndarray]
"""One query, float32 [D] -> rows of the gallery, at most TOP, nearest first."""


def spectrum(share: float, falls: float) -> np.ndarray:
    """Standard deviations along the axes, [D]."""
    variance = np.arange(1, DIMENSION + 1) ** -falls
    return np.sqrt(share * variance / variance.sum()).astype(np.float32)


def draw_features(people: np.ndarray, centres: np.ndarray, seed: int) -> np.ndarray:
    """A picture of each of these people, float32 [N, D] of norm 1."""
    found = centres[people] + spectrum(*WITHIN) * np.random.default_rng(seed).standard_normal(
        (len(people), DIMENSION), np.float32
    )
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def make_case(size: int, queries: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gallery features and people, query features and people."""
    draw = np.random.default_rng(size)
    count = max(1, size // PICTURES)
    mean = np.full(DIMENSION, np.sqrt(MEAN[0] / DIMENSION), np.float32)
    centres = mean + spectrum(*PEOPLE) * draw.standard_normal((count, DIMENSION), np.float32)
    people = draw.permutation(np.arange(size) % count)
    asked = draw.integers(0, count, queries)
    return draw_features(people, centres, size + 1), people, draw_features(asked, centres, size + 2), asked


class Way:
    """A way to search, once it has the gallery.

    Attributes:
        seconds: it took to take the gallery in.
        size: bytes that it holds, for all rows.
    """

    def __init__(self, find: Find, seconds: float, size: float):
        self.find, self.seconds, self.size = find, seconds, size


def exact(features: np.ndarray, folder: Path) -> Way:
    began = time.perf_counter()
    np.save(folder / "features.npy", features)
    mapped = np.load(folder / "features.npy", mmap_mode="r")
    seconds = time.perf_counter() - began

    def find(query: np.ndarray) -> np.ndarray:
        return nearest(torch.from_numpy(query[None]), mapped, TOP)[1][0].numpy()

    return Way(find, seconds, features.nbytes)


def of_faiss(features: np.ndarray, index: faiss.Index) -> Way:
    began = time.perf_counter()
    for start in range(0, len(features), BATCH):
        index.add(features[start : start + BATCH])
    seconds = time.perf_counter() - began
    return Way(lambda query: index.search(query[None], TOP)[1][0], seconds, len(faiss.serialize_index(index)))


def faiss_hnsw() -> faiss.Index:
    index = faiss.IndexHNSWFlat(DIMENSION, M)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, ASK
    return index


def of_milvus(features: np.ndarray, folder: Path, index: str) -> tuple[Way, GalleryStore]:
    parameters = {"M": M, "efConstruction": BUILD} if index == "HNSW" else {}
    info = GalleryInfo(
        model="drawn", dimension=DIMENSION, features="drawn", index=index, parameters=parameters
    )
    place = folder / f"{index}.db"
    began = time.perf_counter()
    with GalleryStore(place, info) as store:
        for start in range(0, len(features), BATCH):
            store.put(
                [
                    GalleryRow(key=f"{row:08d}", stamp="", file=f"/{row}.jpg", vector=features[row])
                    for row in range(start, min(start + BATCH, len(features)))
                ]
            )
    store = GalleryStore(place)  # opened again: all of it is on the disk, and indexed
    asked = {"ef": ASK} if index == "HNSW" else {}

    def find(query: np.ndarray) -> np.ndarray:
        (hits,) = store.nearest(query[None], TOP, "", asked)
        vectors = np.stack([hit["vector"] for hit in hits]).astype(np.float64)
        rows = np.array([int(hit["key"]) for hit in hits])
        return rows[np.square(vectors - query).sum(1).argsort(kind="stable")]

    find(features[0])
    return Way(find, time.perf_counter() - began, store.size() or 0), store


def ask(way: Way, queries: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The rows found for each query, [Q, TOP], -1 where there are fewer, and seconds of each."""
    found, seconds = np.full((len(queries), TOP), -1), []
    for number, query in enumerate(queries):
        began = time.perf_counter()
        rows = way.find(query)
        seconds.append(time.perf_counter() - began)
        found[number, : len(rows)] = rows[:TOP]
    return found, seconds


def recall(found: np.ndarray, truth: np.ndarray, k: int) -> float:
    """The share of the exact first k among the first k, in per cent."""
    shared = [len(set(one[:k]) & set(other[:k])) for one, other in zip(found, truth)]
    return 100 * float(np.mean(shared)) / k


def mean_precision(found: np.ndarray, people: np.ndarray, asked: np.ndarray) -> float:
    """mAP of the first TOP, in per cent; a person has PICTURES pictures."""
    right = (people[found] == asked[:, None]) & (found >= 0)
    precision = right.cumsum(1) / np.arange(1, found.shape[1] + 1)
    return 100 * float(((precision * right).sum(1) / PICTURES).mean())


def measure(result: Result, size: int, count: int, folder: Path) -> None:
    features, people, queries, asked = make_case(size, count)
    ways = {"exact, from the disk": exact(features, folder)}
    ways["faiss, flat"] = of_faiss(features, faiss.IndexFlatL2(DIMENSION))
    truth, flat = (ask(ways[name], queries[:50])[0] for name in ways)
    assert recall(flat, truth, TOP) > 99.9, "faiss and the exact search disagree"
    ways[f"faiss, HNSW M {M}, ef {ASK}"] = of_faiss(features, faiss_hnsw())
    stores = []
    for index, name in (("FLAT", "gallery, flat"), ("HNSW", f"gallery, HNSW M {M}, ef {ASK}")):
        ways[name], store = of_milvus(features, folder, index)
        stores.append(store)
    answers = {name: ask(way, queries) for name, way in ways.items()}
    for store in stores:
        store.close()
    truth, case = next(iter(answers.values()))[0], f"{size:,} rows"
    for k in (1, 10):
        shares = {name: [recall(found, truth, k)] for name, (found, _) in answers.items()}
        result.add(f"Recall of the exact first {k}", case, shares, unit="%")
    precision = {name: [mean_precision(found, people, asked)] for name, (found, _) in answers.items()}
    result.add("mAP of the first 100", case, precision, unit="%")
    base = next(iter(ways))
    for title, part in (("A query, half of them sooner", 0.5), ("A query, 99 of 100 sooner", 0.99)):
        times = {name: [float(np.quantile(seconds, part))] for name, (_, seconds) in answers.items()}
        result.add(title, case, times, unit="ms", against=base)
    result.add("Time to add them all", case, {name: [way.seconds] for name, way in ways.items()}, unit="s")
    result.add("Bytes a row", case, {name: [way.size / size] for name, way in ways.items()}, unit="bytes")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    arguments.add_argument("--queries", type=int, default=500)
    arguments.add_argument("--threads", type=int, default=2)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    with Result(options) as result:
        for size in options.sizes:
            folder = Path(tempfile.mkdtemp())
            try:
                measure(result, size, options.queries, folder)
            finally:
                shutil.rmtree(folder)


if __name__ == "__main__":
    main()
