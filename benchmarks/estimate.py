"""Estimate maps from pictures alone: side by side, a thread each, against one by one on all threads.

    python benchmarks/estimate.py [--crops 400] [--rounds 5]

The weights are found as `dsareid densepose estimate` finds them. Crops of 64x128 are drawn at random: the
work does not depend on what is in them. Reading and writing are part of it, of both ways; the command also
notes by which settings each map was made. Before anything is timed both ways are checked to give the same
maps.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from common import process_memory
from PIL import Image
from result import Result, parser

from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.densepose import MapEstimator, estimate_maps, load_estimator


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
    options = parser(__doc__)
    options.add_argument("--crops", type=int, default=400)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    with Result(arguments) as result, tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "crops").mkdir()
        files = make_crops(root / "crops", arguments.crops)
        estimator = load_estimator(device="cpu")
        speeds: dict[str, list[float]] = {"one by one": [], "side by side": []}
        for number in range(arguments.rounds + 1):  # the first is for checking
            ours, loop = root / f"ours{number}", root / f"loop{number}"
            start = time.perf_counter()
            estimate_maps(root / "crops", ours, device="cpu")
            middle = time.perf_counter()
            plain_loop(estimator, files, loop)
            end = time.perf_counter()
            if number:
                speeds["side by side"].append(len(files) / (middle - start))
                speeds["one by one"].append(len(files) / (end - middle))
            same = [
                np.mean(read_iuv(ours / f"{x.stem}.png") == read_iuv(loop / f"{x.stem}.png")) for x in files
            ]
            if np.mean(same) < 0.999:
                raise SystemExit(f"the maps differ in {1 - np.mean(same):.2%} of their bytes")
        case = f"{arguments.crops} crops of 64x128"
        result.add("Maps, read, estimated and written", case, speeds, unit="crops/s", against="one by one")
        result.add("Memory", case, {"peak": [process_memory("VmHWM") / 2**20]}, unit="MiB")


if __name__ == "__main__":
    main()
