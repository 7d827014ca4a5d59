"""Compare dsareid's DensePose R-CNN with detectron2's own, on random weights under the zoo's names.

    git clone https://github.com/facebookresearch/detectron2
    pip install fvcore iopath yacs omegaconf hydra-core pycocotools cloudpickle tabulate termcolor
    PYTHONPATH=detectron2:detectron2/projects/DensePose python studies/rcnn/prove.py detectron2 PHOTO...

detectron2 needs no compilation for this. For each model of the zoo both get the same weights, drawn from a
seed, the same pixels and the same boxes. The biases of the heads are set such that all parts occur and about
half of a box is a person. The table that it prints stands in README.md.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/helpers"))

from zoo_files import VARIANTS, zoo_shapes, zoo_weights  # noqa: E402

from dsareid.data.images import read_image  # noqa: E402
from dsareid.densepose.estimators.densepose_rcnn import network_input, read_heads  # noqa: E402
from dsareid.densepose.estimators.rcnn import BGR_MEAN, Heads, build  # noqa: E402

SHORTEST = 480  # rows or columns of a photograph, as both networks see it
HEADS = "roi_heads.densepose_predictor"
NOISE = 1e-4  # of scores: where two parts are nearer, float32 may choose either


class Row(NamedTuple):
    """One model on one photograph."""

    heads: float  # largest difference, as a share of the head's largest value
    uv: float  # largest difference where both have the same part
    differ: int  # pixels with another part
    clear: int  # of those, where the best two scores are farther apart than NOISE
    pixels: int
    parts: int
    person: float  # share of the boxes' pixels
    seconds: tuple[float, float]  # theirs, ours


def their_model(name: str, source: Path, weights: dict[str, Tensor]):
    from densepose import add_densepose_config
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    add_densepose_config(config)
    config.merge_from_file(str(source / f"projects/DensePose/configs/densepose_rcnn_{name}.yaml"))
    config.MODEL.DEVICE = "cpu"
    model = build_model(config).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == dict(zoo_shapes(**VARIANTS[name])), f"{name}: the zoo's names or shapes are others"
    model.load_state_dict(weights)
    return model


def balanced(weights: dict[str, Tensor], picture: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """The weights with biases by which all parts have the same mean score, and half of a box is a person."""
    for _ in range(4):  # confidences multiply scores, so once is not enough
        heads = build(weights)(picture[None], [boxes])
        for name, scores in (("ann_index", heads.coarse), ("index_uv", heads.fine)):
            middle = scores.mean((0, 2, 3))
            if name == "ann_index":  # the background against the best of the others
                best = (scores - middle[:, None, None])[:, 1:].amax(1)
                middle[0] = (scores[:, 0] - best).median()
            weights[f"{HEADS}.{name}_lowres.bias"] = weights[f"{HEADS}.{name}_lowres.bias"] - middle
    return weights


def boxes_of(height: int, width: int) -> Tensor:
    """A large box, one at the border, a small one, and one with fractions."""
    shares = [[0.1, 0.05, 0.6, 0.95], [0.45, 0.2, 1, 0.8], [0.3, 0.3, 0.38, 0.5], [0.123, 0.2, 0.42, 0.97]]
    return torch.tensor(shares) * torch.tensor([width, height, width, height])


def compare(name: str, source: Path, image: np.ndarray) -> Row:
    from densepose.converters import ToChartResultConverter
    from detectron2.structures import Boxes, Instances

    scale = SHORTEST / min(image.shape[:2])
    height, width = (round(scale * n) for n in image.shape[:2])
    boxes, picture = boxes_of(height, width), network_input(image, height, width)
    weights = {key: torch.from_numpy(value) for key, value in zoo_weights(**VARIANTS[name]).items()}
    weights = balanced(weights, picture, boxes)
    theirs, ours = their_model(name, source, weights), build(weights)
    given = Instances((height, width))
    given.pred_boxes, given.pred_classes = Boxes(boxes.clone()), torch.zeros(len(boxes), dtype=torch.int64)
    pixels = picture[:, :height, :width] + torch.tensor(BGR_MEAN)[:, None, None]
    began = time.perf_counter()
    found = theirs.inference([{"image": pixels}], detected_instances=[given], do_postprocess=False)[0]
    between = time.perf_counter()
    heads = ours(picture[None], [boxes])
    seconds = between - began, time.perf_counter() - between
    their_heads = Heads(*(getattr(found.pred_densepose, x) for x in ("coarse_segm", "fine_segm", "u", "v")))
    apart = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(heads, their_heads))
    uv, differ, clear, pixels_of_boxes, person = 0.0, 0, 0, 0, 0
    parts: set[int] = set()
    for k in range(len(boxes)):
        fields = {
            field: None if value is None else value[k : k + 1]
            for field, value in vars(found.pred_densepose).items()
        }
        result = ToChartResultConverter.convert(type(found.pred_densepose)(**fields), found.pred_boxes[k])
        labels, floats, _ = read_heads(Heads(*(x[k : k + 1] for x in heads)), *result.labels.shape)
        other = labels != result.labels
        uv = max(uv, float((floats - result.uv).abs()[:, ~other].max()))
        differ += int(other.sum())
        clear += int((other & (margin(heads, k, labels.shape) > NOISE)).sum())
        pixels_of_boxes, person = pixels_of_boxes + labels.numel(), person + int((labels > 0).sum())
        parts |= set(labels.unique().tolist()) - {0}
    return Row(apart, uv, differ, clear, pixels_of_boxes, len(parts), person / pixels_of_boxes, seconds)


def margin(heads: Heads, k: int, size: torch.Size) -> Tensor:
    """By how much the best score of a pixel exceeds the second, of the mask or of the parts."""
    found = []
    for head in (heads.coarse, heads.fine):
        scores = torch.nn.functional.interpolate(head[k : k + 1], tuple(size), mode="bilinear")
        best, second = scores[0].topk(2, 0).values
        found.append(best - second)
    return torch.minimum(*found)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("detectron2", type=Path, help="its source")
    parser.add_argument("photographs", type=Path, nargs="+")
    parser.add_argument("--models", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    print("| model | heads | U, V | another part (clear) | parts | person | seconds, theirs and ours |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in arguments.models:
        rows = [compare(name, arguments.detectron2, read_image(path)) for path in arguments.photographs]
        wrong = (
            f"{sum(x.differ for x in rows)} of {sum(x.pixels for x in rows):,} ({sum(x.clear for x in rows)})"
        )
        people = f"{min(x.person for x in rows):.0%} to {max(x.person for x in rows):.0%}"
        theirs, ours = (sum(x.seconds[k] for x in rows) for k in (0, 1))
        print(
            f"| {name} | {max(x.heads for x in rows):.1e} | {max(x.uv for x in rows):.1e} | {wrong} "
            f"| {min(x.parts for x in rows)} | {people} | {theirs:.1f}, {ours:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
