"""The detector of DensePose R-CNN; detectron2 gave the numbers here (studies/rcnn compares the two)."""

import numpy as np
import pytest
import torch
from zoo_files import VARIANTS, zoo_weights

from dsareid.densepose.estimators.densepose_rcnn import network_input, photograph_size
from dsareid.densepose.estimators.rcnn_detector import anchors_of, moved
from dsareid.densepose.estimators.rcnn_names import build


@pytest.mark.slow
def test_people_are_those_that_detectron2_finds():
    weights = zoo_weights(**VARIANTS["R_50_FPN_s1x"])
    network = build({name: torch.from_numpy(value) for name, value in weights.items()})
    picture = np.random.default_rng(2).integers(0, 256, (90, 150, 3), dtype=np.uint8)
    with torch.inference_mode():
        levels = network.levels(network_input(picture, 90, 150)[None])
        boxes, scores = network.detector(levels, 90, 150)
    assert len(boxes) == len(scores) == 100
    assert scores[:3].tolist() == pytest.approx([0.972014307975769, 0.9360473155975342, 0.9325307011604309])
    first = [0.0, 7.62837028503418, 45.52647399902344, 44.45539855957031]
    assert boxes[0].tolist() == pytest.approx(first, abs=1e-3)
    assert float(scores.sum()) == pytest.approx(46.07818549871445, rel=1e-5)
    assert float(boxes.double().sum()) == pytest.approx(25511.027607917786, rel=1e-5)
    assert (scores.diff() <= 0).all()


def test_anchors_stand_on_the_cells_of_a_level():
    anchors = anchors_of(4, 2, 3)
    assert anchors.shape == (18, 4)
    half = 22.627416610717773, 11.313708305358887  # as wide as it is high, twice
    assert anchors[0].tolist() == pytest.approx([-half[0], -half[1], half[0], half[1]])
    assert anchors[1].tolist() == [-16, -16, 16, 16]
    assert anchors[2].tolist() == pytest.approx([-half[1], -half[0], half[1], half[0]])
    assert anchors[4].tolist() == [-12, -16, 20, 16]  # the next column
    assert anchors[10].tolist() == [-16, -12, 16, 20]  # the next row
    assert anchors_of(64, 1, 1)[1].tolist() == [-256, -256, 256, 256]


def test_boxes_are_moved_in_their_own_units():
    boxes = torch.tensor([[10.0, 20, 30, 60]] * 3)
    deltas = torch.tensor([[0.0, 0, 0, 0], [1, -0.5, 0, 0], [0, 0, np.log(2), 100]])
    found = moved(boxes, deltas, (1, 1, 1, 1))
    assert found[0].tolist() == [10, 20, 30, 60]
    assert found[1].tolist() == [30, 0, 50, 40]
    assert found[2].tolist() == pytest.approx([0, 40 - 1250, 40, 40 + 1250])  # sides grow 62.5 times at most
    assert moved(boxes[:1], deltas[1:2], (10, 5, 1, 1))[0].tolist() == pytest.approx([12, 16, 32, 56])


@pytest.mark.parametrize(
    "size, seen",
    [
        ((480, 640), (800, 1067)),
        ((1000, 300), (1333, 400)),
        ((333, 900), (493, 1333)),
        ((128, 64), (1333, 667)),
    ],
)
def test_the_size_of_a_photograph(size, seen):
    assert photograph_size(*size) == seen
