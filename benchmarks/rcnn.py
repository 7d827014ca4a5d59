"""Maps by DensePose R-CNN (R_50_FPN_s1x) on random weights, against detectron2's own on the same weights.

    PYTHONPATH=tests/helpers:detectron2:detectron2/projects/DensePose python benchmarks/rcnn.py
        --config detectron2/projects/DensePose/configs/densepose_rcnn_R_50_FPN_s1x.yaml [--crops 4]

Without `--config`, or where detectron2 is missing, its rows are left out. A crop has 128x64 pixels; ours sees
it with its border at 320 rows, in 416x224, and takes the crop as the box, two crops side by side, each on a
thread. detectron2 sees a crop as its apply_net.py does, at 1333x667 with its own detector; and, for the same
work as ours, the same 416x224 pixels and the same box, one crop after the other on all threads, without the
maps. The light model, DensePoseFnL's, sees what ours sees. A photograph has 480x640 pixels and is seen at
800x1067 by both, with the detector; the weights are such that it finds a few people. Before anything is
timed, heads and boxes are compared. With --device cuda crops that wait go through the network together.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from result import Result, parser
from torch import Tensor
from zoo_files import MOBILE, VARIANTS, zoo_weights

from dsareid.densepose.estimators.densepose_rcnn import RCNN, network_input, photograph_size
from dsareid.densepose.estimators.rcnn import BYTES
from dsareid.densepose.estimators.rcnn_names import build
from dsareid.ground.machine import cores, keep_freed_memory, on_threads, one_thread_an_operation

MODEL, LIGHT = "R_50_FPN_s1x", "mobile_parsing_rcnn_b_wc2m_s3x"


@torch.inference_mode()
def drawn_weights(photograph: np.ndarray, people: int = 3) -> dict[str, Tensor]:
    """Random weights whose detector is sure of `people` people in the photograph, and of nobody else."""
    weights = {name: torch.from_numpy(value) for name, value in zoo_weights(**VARIANTS[MODEL]).items()}
    scores = "roi_heads.box_predictor.cls_score"
    weights[f"{scores}.weight"] *= 4  # surer of each, so that few lie between
    network, size = build(weights), photograph_size(*photograph.shape[:2])
    _, found = network.detector(network.levels(network_input(photograph, *size)[None]), *size)
    between = float(found.double().logit()[people - 1 : people + 1].mean())
    weights[f"{scores}.bias"] += torch.tensor([-between / 2, between / 2])
    return weights


def side_by_side(estimator: RCNN, images: list[np.ndarray]) -> None:
    """As estimate_maps does it: a thread each."""
    with one_thread_an_operation():
        list(on_threads(estimator, images, cores()))


class Theirs:
    """detectron2's model; raises ImportError without it."""

    def __init__(self, config: Path, weights: dict[str, Tensor]):
        sys.path.append(sys.path.pop(0))  # benchmarks/densepose.py must not stand before its package
        from densepose import add_densepose_config
        from detectron2.config import get_cfg
        from detectron2.modeling import build_model

        settings = get_cfg()
        add_densepose_config(settings)
        settings.merge_from_file(str(config))
        settings.MODEL.DEVICE = "cpu"
        self.model = build_model(settings).eval()
        self.model.load_state_dict(weights)

    @torch.inference_mode()
    def detect(self, images: list[np.ndarray]) -> list:
        """As its DefaultPredictor."""
        found = []
        for image in images:
            size = photograph_size(*image.shape[:2])
            given = [{"image": self._bytes(network_input(image, *size), *size)}]
            found.append(self.model.inference(given)[0]["instances"])
        return found

    @torch.inference_mode()
    def given(self, seen: list[tuple[Tensor, Tensor]]) -> list:
        """Heads of one box in each picture."""
        from detectron2.structures import Boxes, Instances

        found = []
        for pixels, box in seen:
            height, width = pixels.shape[2:]
            person = Instances((height, width))
            person.pred_boxes, person.pred_classes = Boxes(box.clone()), torch.zeros(1, dtype=torch.int64)
            given = [{"image": self._bytes(pixels[0], height, width)}]
            found.append(self.model.inference(given, detected_instances=[person], do_postprocess=False)[0])
        return found

    def _bytes(self, pixels: Tensor, height: int, width: int) -> Tensor:
        return pixels[:, :height, :width] + torch.tensor(BYTES.mean)[:, None, None]


def verify(theirs: Theirs, crops: RCNN, images: list[np.ndarray], photograph: np.ndarray) -> tuple[int, int]:
    """Compare heads of crops and the people of a photograph.

    Returns:
        How many people have a score of at least .5, whose maps ours makes, and of at least .05, whose heads
        detectron2 computes.
    """
    seen = [crops._crop(image) for image in images[:2]]
    with torch.inference_mode():
        for (pixels, box), found in zip(seen, theirs.given(seen)):
            heads = crops.network(pixels, [box])
            torch.testing.assert_close(heads.u, found.pred_densepose.u, rtol=1e-4, atol=1e-4)
        height, width = photograph_size(*photograph.shape[:2])
        levels = crops.network.levels(network_input(photograph, height, width)[None])
        boxes, scores = crops.network.detector(levels, height, width)
    found = theirs.detect([photograph])[0]
    torch.testing.assert_close(found.scores, scores, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.pred_boxes.tensor, boxes, rtol=1e-3, atol=0.1)
    return int((scores >= 0.5).sum()), len(scores)


def speeds(work: dict[str, Callable[[], object]], count: int, rounds: int) -> dict[str, list[float]]:
    """Pictures a second, the ways in turns."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, function in work.items():
            began = time.perf_counter()
            function()
            if turn:
                found[name].append(count / (time.perf_counter() - began))
    return found


def measure(result: Result, arguments: argparse.Namespace) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (128, 64, 3), dtype=np.uint8) for _ in range(arguments.crops)]
    photographs = [random.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(2)]
    weights = drawn_weights(photographs[0])
    device = arguments.device
    crops, people = RCNN(weights, device), RCNN(weights, device, detect=True)
    light = {key: torch.from_numpy(value) for key, value in zoo_weights(**MOBILE[LIGHT]).items()}
    mobile = RCNN(light, device)
    faster = [RCNN(weights, device, detect=detect, bfloat16=True) for detect in (False, True)]
    of_crops: dict[str, Callable[[], object]] = {
        "dsareid": lambda: side_by_side(crops, images),
        "dsareid, --bfloat16": lambda: side_by_side(faster[0], images),
        f"dsareid, {LIGHT}": lambda: side_by_side(mobile, images),
    }
    of_photographs: dict[str, Callable[[], object]] = {
        "dsareid": lambda: side_by_side(people, photographs),
        "dsareid, --bfloat16": lambda: side_by_side(faster[1], photographs),
    }
    differing = [np.mean(crops(x).iuv[..., 0] != faster[0](x).iuv[..., 0]) for x in images]
    result.note(f"In bfloat16 {np.mean(differing):.1%} of the pixels of a crop have another part.")
    try:
        if arguments.config is None or device != "cpu":
            raise ImportError("no --config, or not on the processor")
        theirs = Theirs(arguments.config, weights)
    except ImportError as error:
        result.note(f"detectron2: not run, {error}")
    else:
        found = verify(theirs, crops, images, photographs[0])
        result.note("People in the first photograph, by scores of .5 and of .05: {} and {}.".format(*found))
        seen = [crops._crop(image) for image in images]
        of_crops["detectron2, as apply_net.py"] = lambda: theirs.detect(images)
        of_crops["detectron2, the same pixels and box"] = lambda: theirs.given(seen)
        of_photographs["detectron2, as apply_net.py"] = lambda: theirs.detect(photographs)
    for case, work, count in (
        ("crops of 128x64", of_crops, len(images)),
        ("photographs of 480x640", of_photographs, len(photographs)),
    ):
        result.add("Maps", case, speeds(work, count, arguments.rounds), unit="pictures/s", against="dsareid")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", type=Path, help="of detectron2's model")
    options.add_argument("--crops", type=int, default=4)
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    keep_freed_memory()  # as the command does; detectron2 gains as well
    with Result(arguments) as result:
        measure(result, arguments)


if __name__ == "__main__":
    main()
