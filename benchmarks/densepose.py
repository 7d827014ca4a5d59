"""Read and convert a detectron2 dump of 10,000 boxes: seconds, and memory beside the file's size.

    python benchmarks/densepose.py [--boxes 10000] [--folder FOLDER]

The dump is what apply_net.py dump writes for images of 128x64 with one person each: labels int64 and uv
float32 of a box of about 120x56, by torch.save, pickled with classes that stand for detectron2's. `read`
gives the list of people with their charts undecoded, `decode` makes uint8 I, U, V of every chart, and
`convert` is all of `dsareid densepose convert`: maps, lists and contact sheet. Each has its floor beside
it: the bytes of the file read once, and Pillow alone writing as many PNGs of such maps. Before anything is
timed every map of a small dump is compared with one pasted by hand.

The work is done once, in a process of its own, so that its peak memory is of this alone. Pages mapped from
the file count in the peak, though the system takes them back when it needs memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from dataclasses import make_dataclass
from pathlib import Path

import numpy as np
import torch
from common import process_memory
from PIL import Image
from result import Result, parser

from dsareid.data.iuv import read_iuv
from dsareid.densepose import Detections, convert, read_source

HEIGHT, WIDTH = 128, 64
MODULE = "densepose.structures.chart_result"
FIELDS = [
    "labels",
    "uv",
    "sigma_1",
    "sigma_2",
    "kappa_u",
    "kappa_v",
    "fine_segm_confidence",
    "coarse_segm_confidence",
]
Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # box [4], labels [h, w], uv [2, h, w]


def chart_class() -> type:
    """A class that pickles under detectron2's name, as its module is registered here."""
    kind = make_dataclass(
        "DensePoseChartResultWithConfidences",
        [(name, object, None) for name in FIELDS],
        namespace={"__module__": MODULE},
    )
    for end in ("densepose", "densepose.structures", MODULE):
        sys.modules[end] = types.ModuleType(end)
    sys.modules[MODULE].DensePoseChartResultWithConfidences = kind
    return kind


def random_person(rng: np.random.Generator) -> Found:
    """A box, and a chart of smooth bands of parts, which compresses about as a body does."""
    x0, y0 = rng.uniform(0, 6), rng.uniform(0, 6)
    x1, y1 = rng.uniform(WIDTH - 6, WIDTH), rng.uniform(HEIGHT - 6, HEIGHT)
    box = torch.tensor([x0, y0, x1, y1])
    width, height = int(box[2] - box[0]), int(box[3] - box[1])
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    labels = 1 + (y * 12).long().clamp(max=11) * 2 + (x > 0)
    labels *= x.abs() < 0.3 + 0.4 * torch.rand(1)
    uv = torch.stack([(y * 12) % 1, x.abs()]) + 0.02 * torch.randn(2, height, width)
    return box, labels, uv * (labels > 0)


def make(folder: Path, boxes: int) -> tuple[Path, list[Found]]:
    """Images and a dump; returns also the first few people, to verify by."""
    kind, rng, entries, first = chart_class(), np.random.default_rng(0), [], []
    torch.manual_seed(0)
    (folder / "data/query").mkdir(parents=True)
    image = folder / "one.jpg"
    Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(image)
    for number in range(boxes):
        name = f"query/{number:06d}.jpg"
        (folder / "data" / name).hardlink_to(image)
        box, labels, uv = random_person(rng)
        entries.append(
            {
                "file_name": f"/anywhere/{name}",
                "scores": torch.rand(1),
                "pred_boxes_XYXY": box[None],
                "pred_densepose": [kind(labels, uv)],
            }
        )
        if number < 20:
            first.append((box, labels, uv))
    path = folder / "dump.pkl"
    torch.save(entries, path)
    return path, first


def verify(folder: Path) -> None:
    path, people = make(folder, 20)
    convert(path, folder / "iuv", folder / "data")
    for number, (box, labels, uv) in enumerate(people):
        x, y = int(box[0]), int(box[1])
        height, width = labels.shape
        expected = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        expected[y : y + height, x : x + width, 0] = labels
        coordinates = (uv.clamp(0, 1) * 255).byte() * (labels > 0)
        expected[y : y + height, x : x + width, 1:] = coordinates.permute(1, 2, 0)
        if not np.array_equal(read_iuv(folder / f"iuv/query/{number:06d}.png"), expected):
            raise SystemExit(f"map {number} is not the chart pasted at its box")


def timed(work: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure(path: Path, folder: Path) -> dict[str, float]:
    """In this process: seconds, and the growth of memory, in bytes."""
    peak, own, found = process_memory("VmHWM"), process_memory("RssAnon"), {}
    found["read"], detections = timed(lambda: read_source(path))
    found["peak of reading"] = process_memory("VmHWM") - peak
    found["decode"], found["people"] = timed(lambda: decode(detections))
    found["own of reading and decoding"] = process_memory("RssAnon") - own
    detections = None  # the next call maps the file again
    found["convert"], _ = timed(lambda: convert(path, folder / "iuv", folder / "data"))
    found["peak of all"] = process_memory("VmHWM") - peak
    return found


def decode(detections: list[Detections]) -> int:
    people = [person for image in detections for person in image.people]
    return sum(len(person.chart()) == 3 for person in people)


def floors(path: Path, folder: Path, boxes: int) -> dict[str, float]:
    def read_bytes() -> None:
        with open(path, "rb", buffering=0) as file:
            block = bytearray(1 << 20)
            while file.readinto(block):
                pass

    (folder / "pillow").mkdir()
    maps = [Image.open(file).copy() for file in sorted((folder / "iuv/query").iterdir())[:200]]

    def write_maps() -> None:
        for number in range(boxes):
            maps[number % len(maps)].save(folder / f"pillow/{number:06d}.png")

    return {"bytes": timed(read_bytes)[0], "pillow": timed(write_maps)[0]}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--boxes", type=int, default=10_000)
    options.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child, arguments.child.parent)))
        return
    with Result(arguments) as result, tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        small, large = Path(temporary, "small"), Path(temporary, "large")
        verify(small)
        path, _ = make(large, arguments.boxes)
        command = [sys.executable, __file__, "--child", str(path)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(output)
        floor = floors(path, large, arguments.boxes)
        size = path.stat().st_size
        case = f"{found['people']:,} boxes, a file of {size / 1e6:,.0f} MB"
        reading = {
            "bytes of the file": [floor["bytes"]],
            "read": [found["read"]],
            "decode": [found["decode"]],
        }
        result.add("Reading", case, reading, unit="s", against="bytes of the file")
        writing = {"Pillow writes as many PNGs": [floor["pillow"]], "convert": [found["convert"]]}
        result.add("Converting", case, writing, unit="s", against="Pillow writes as many PNGs")
        memory = {
            "the file": [size / 1e6],
            "peak of reading, mapped pages included": [found["peak of reading"] / 1e6],
            "own after reading and decoding": [found["own of reading and decoding"] / 1e6],
            "peak of all, mapped pages included": [found["peak of all"] / 1e6],
        }
        result.add("Memory", case, memory, unit="MB", against="the file")


if __name__ == "__main__":
    main()
