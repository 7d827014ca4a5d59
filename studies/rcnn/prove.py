"""Compare dsareid's DensePose R-CNN with detectron2's own, on random weights under the zoo's names.

    git clone https://github.com/facebookresearch/detectron2
    pip install fvcore iopath yacs omegaconf hydra-core pycocotools cloudpickle tabulate termcolor
    PYTHONPATH=detectron2:detectron2/projects/DensePose python studies/rcnn/prove.py detectron2 PHOTO...

detectron2 needs no compilation for this. With DensePoseFnL's source, github.com/zetyquickly/DensePoseFnL, by
`--mobile FOLDER`, and timm, its two light models are compared too. For each model both get the same weights,
drawn from a seed, the same pixels and the same boxes. The biases of the heads are set such that all parts
occur and about half of a box is a person. The table that it prints stands in README.md.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/helpers"))

from zoo_files import MOBILE, VARIANTS, zoo_shapes, zoo_weights  # noqa: E402

from dsareid.data.images import read_image  # noqa: E402
from dsareid.densepose.estimators.densepose_rcnn import network_input, read_heads  # noqa: E402
from dsareid.densepose.estimators.rcnn import BYTES, UNIT, DensePoseRCNN, Heads, Look  # noqa: E402
from dsareid.densepose.estimators.rcnn_names import build  # noqa: E402

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
    boxes: float  # largest difference of what the detector finds, in pixels; inf: another number of people
    scores: float
    people: int  # that the detector finds
    seconds: tuple[float, float]  # theirs, ours


class Sources(NamedTuple):
    """The folders of the other projects."""

    detectron2: Path
    mobile: Path | None


def their_model(name: str, sources: Sources, weights: dict[str, Tensor]):
    from densepose import add_densepose_config
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    config = get_cfg()
    add_densepose_config(config)
    if name in MOBILE:
        assert sources.mobile is not None
        add_mobile(sources.mobile, config)
        config.merge_from_file(str(sources.mobile / f"configs/{name}.yaml"))
        config.MODEL.TIMMNETS.PRETRAINED = False
    else:
        configs = sources.detectron2 / "projects/DensePose/configs"
        config.merge_from_file(str(configs / f"densepose_rcnn_{name}.yaml"))
    config.MODEL.DEVICE = "cpu"
    model = build_model(config).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if name in MOBILE:  # counters that timm 0.4.12 does not have there
        counters = [x for x in shapes if "bottom_up" in x and x.endswith("num_batches_tracked")]
        shapes = {key: value for key, value in shapes.items() if key not in counters}
    assert shapes == dict(zoo_shapes(**(MOBILE | VARIANTS)[name])), f"{name}: names or shapes are others"
    model.load_state_dict(weights, strict=name not in MOBILE)
    return model


def add_mobile(source: Path, config) -> None:
    """Let detectron2 know the parts of DensePoseFnL."""
    import timm.models
    from detectron2.layers import FrozenBatchNorm2d

    # Its code was written for timm 0.4.12. Now a module has another name, and normalisation holds the
    # activation, which freezing it would drop.
    sys.modules.setdefault("timm.models.efficientnet_builder", timm.models._efficientnet_builder)
    FrozenBatchNorm2d.convert_frozen_batchnorm = classmethod(lambda cls, module: module)
    if str(source) not in sys.path:
        sys.path.insert(0, str(source))
    import backbone  # noqa: F401
    import roi_heads  # noqa: F401
    from config import add_timmnets_config

    add_timmnets_config(config)


def balanced(weights: dict[str, Tensor], picture: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """The weights with biases by which all parts have the same mean score, and half of a box is a person."""
    network = build(weights)
    predictor = network.predictor
    seen = []
    network.head.register_forward_hook(lambda module, given, found: seen.append(found))
    network(picture[None], [boxes])
    for _ in range(8):  # confidences multiply scores, so once is not enough
        heads = predictor(seen[0])
        for name, scores, layer in (
            ("ann_index", heads.coarse, predictor.coarse),
            ("index_uv", heads.fine, predictor.fine),
        ):
            middle = scores.mean((0, 2, 3))
            if name == "ann_index":  # the background against the best of the others
                best = (scores - middle[:, None, None])[:, 1:].amax(1)
                middle[0] = (scores[:, 0] - best).median()
            layer.bias.data -= middle / (scores.abs().mean() / layer(seen[0]).abs().mean())
            weights[f"{HEADS}.{name}_lowres.bias"] = layer.bias.data.clone()
    return weights


def boxes_of(height: int, width: int) -> Tensor:
    """A large box, one at the border, a small one, and one with fractions."""
    shares = [[0.1, 0.05, 0.6, 0.95], [0.45, 0.2, 1, 0.8], [0.3, 0.3, 0.38, 0.5], [0.123, 0.2, 0.42, 0.97]]
    return torch.tensor(shares) * torch.tensor([width, height, width, height])


def detections(theirs, ours: DensePoseRCNN, pixels: Tensor, picture: Tensor) -> tuple[float, float, int]:
    """How far apart boxes and scores of the two detectors are, and how many people they find."""
    theirs.roi_heads.densepose_on = False
    found = theirs.inference([{"image": pixels}], do_postprocess=False)[0]
    theirs.roi_heads.densepose_on = True
    boxes, scores = ours.detector(ours.levels(picture[None]), *pixels.shape[1:])
    if len(found) != len(boxes) or not len(boxes):
        return float("inf"), float("inf"), len(boxes)
    apart = (found.pred_boxes.tensor - boxes).abs().max(), (found.scores - scores).abs().max()
    return float(apart[0]), float(apart[1]), len(boxes)


def compare(theirs, ours: DensePoseRCNN, image: np.ndarray) -> Row:
    """Give both networks a photograph, and boxes in it."""
    from densepose.converters import ToChartResultConverter
    from detectron2.structures import Boxes, Instances

    height, width = size_of(image)
    look = ours.plan.look
    boxes, picture = boxes_of(height, width), network_input(image, height, width, look)
    given = Instances((height, width))
    given.pred_boxes, given.pred_classes = Boxes(boxes.clone()), torch.zeros(len(boxes), dtype=torch.int64)
    pixels = network_input(image, height, width, Look(look.bgr, (0.0,) * 3, (1.0,) * 3))[:, :height, :width]
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
    share = person / pixels_of_boxes
    found = detections(theirs, ours, pixels, picture)
    return Row(apart, uv, differ, clear, pixels_of_boxes, len(parts), share, *found, seconds)


def size_of(image: np.ndarray) -> tuple[int, int]:
    scale = SHORTEST / min(image.shape[:2])
    return round(scale * image.shape[0]), round(scale * image.shape[1])


def compare_model(name: str, sources: Sources, images: Sequence[np.ndarray]) -> list[Row]:
    """Give both the same weights, balanced on the first photograph."""
    drawn = zoo_weights(**(MOBILE | VARIANTS)[name])
    weights = {key: torch.from_numpy(value) for key, value in drawn.items()}
    size, look = size_of(images[0]), UNIT if name in MOBILE else BYTES
    weights = balanced(weights, network_input(images[0], *size, look), boxes_of(*size))
    theirs, ours = their_model(name, sources, weights), build(weights)
    return [compare(theirs, ours, image) for image in images]


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
    parser.add_argument("--mobile", type=Path, help="DensePoseFnL's source")
    parser.add_argument("--models", nargs="+", choices=[*VARIANTS, *MOBILE])
    arguments = parser.parse_args()
    models = arguments.models or [*VARIANTS, *(MOBILE if arguments.mobile else ())]
    sources = Sources(arguments.detectron2, arguments.mobile)
    images = [read_image(path) for path in arguments.photographs]
    print("| model | heads | U, V | another part (clear) | parts | person | boxes, scores | seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for name in models:
        rows = compare_model(name, sources, images)
        wrong = f"{sum(x.differ for x in rows)} of {sum(x.pixels for x in rows):,}"
        people = f"{min(x.person for x in rows):.0%} to {max(x.person for x in rows):.0%}"
        found = f"{max(x.boxes for x in rows):.1e}, {max(x.scores for x in rows):.1e} of"
        theirs, ours = (sum(x.seconds[k] for x in rows) for k in (0, 1))
        print(
            f"| {name} | {max(x.heads for x in rows):.1e} | {max(x.uv for x in rows):.1e} "
            f"| {wrong} ({sum(x.clear for x in rows)}) | {min(x.parts for x in rows)} | {people} "
            f"| {found} {sum(x.people for x in rows)} | {theirs:.1f}, {ours:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
