"""Small DensePose sources and the images that they are of."""

import numpy as np
import torch
from PIL import Image

HEIGHT, WIDTH = 40, 20


def write_images(root, *names, size=(WIDTH, HEIGHT), turned=1):
    """Grey images; `turned`: the EXIF orientation, by which the upright size is `size`."""
    exif = Image.Exif()
    exif[0x0112] = turned
    stored = size[::-1] if turned >= 5 else size
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", stored, (90, 120, 150)).save(root / name, **({"exif": exif} if turned > 1 else {}))
    return root


def person(mimic, box, part=2, seed=0):
    """A person in a dump: the box, and a chart that is all of one part but for a corner."""
    x0, y0, x1, y1 = box
    labels = torch.full((max(int(y1 - y0), 1), max(int(x1 - x0), 1)), part)
    labels[0, 0] = 0
    uv = torch.from_numpy(np.random.default_rng(seed).random((2, *labels.shape), np.float32))
    return box, mimic.DensePoseChartResult(labels, uv)


def dump(mimic, path, images, scores=None):
    """images: file name -> list of (box, chart); scores: file name -> list, 0.9 to 0.8 without it."""
    entries = []
    for name, people in images.items():
        boxes = torch.tensor([box for box, _ in people], dtype=torch.float32).reshape(-1, 4)
        given = torch.linspace(0.9, 0.8, len(people)) if scores is None else torch.tensor(scores[name])
        charts = [chart for _, chart in people]
        entries.append(
            {"file_name": name, "scores": given, "pred_boxes_XYXY": boxes, "pred_densepose": charts}
        )
    return mimic.save(entries, path)
