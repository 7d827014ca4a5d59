"""Maps from pictures alone: pictures side by side, a thread each, against one by one on all threads.

    DSA_REAL=FOLDER python benchmarks/estimate.py [--crops 96] [--rounds 5]

FOLDER/bodypix holds the weights. Crops of 64x128 are drawn at random: the work does not depend on what is in
them. Checks first that both ways give the same maps; then times them in turn, and prints medians.
"""

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.densepose import MapEstimator, estimate_maps, load_estimator

WEIGHTS = Path(os.environ.get("DSA_REAL", "real")) / "bodypix"


def make_crops(folder: Path, count: int) -> list[Path]:
    draw = np.random.default_rng(0)
    files = [folder / f"{k:05d}.jpg" for k in range(count)]
    for file in files:
        coarse = Image.fromarray(draw.integers(0, 256, (16, 8, 3), dtype=np.uint8))
        coarse.resize((64, 128), Image.Resampling.BICUBIC).save(file)
    return files


def plain_loop(estimator: MapEstimator, files: list[Path], out: Path) -> None:
    """A picture after the other, each operation on all threads."""
    out.mkdir()
    for file in files:
        write_iuv(out / f"{file.stem}.png", estimator(file).iuv)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crops", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "crops").mkdir()
        files = make_crops(root / "crops", arguments.crops)
        estimator = load_estimator(weights=WEIGHTS, device="cpu")
        seconds: dict[str, list[float]] = {"side by side": [], "plain loop": []}
        for number in range(arguments.rounds + 1):  # the first is for checking
            ours, loop = root / f"ours{number}", root / f"loop{number}"
            start = time.perf_counter()
            estimate_maps(root / "crops", ours, weights=WEIGHTS, device="cpu")
            middle = time.perf_counter()
            plain_loop(estimator, files, loop)
            end = time.perf_counter()
            if number:
                seconds["side by side"].append(middle - start)
                seconds["plain loop"].append(end - middle)
            same = [
                np.mean(read_iuv(ours / f"{x.stem}.png") == read_iuv(loop / f"{x.stem}.png")) for x in files
            ]
            if np.mean(same) < 0.999:
                raise SystemExit(f"the maps differ in {1 - np.mean(same):.2%} of their bytes")
    ratio = statistics.median(b / a for a, b in zip(*seconds.values()))
    for name, found in seconds.items():
        print(f"{name:>14}: {arguments.crops / statistics.median(found):6.1f} crops a second")
    print(f"side by side is {ratio:.2f} x as fast, on {torch.get_num_threads()} threads")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
