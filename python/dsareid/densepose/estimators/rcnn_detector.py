"""DensePose R-CNN's own detector of people: proposals at five levels, then a score and a finer box for each.

Faster R-CNN with a feature pyramid (arXiv:1506.01497, 1612.03144), by the rules of detectron2's configuration
Base-DensePose-RCNN-FPN.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from dsareid.densepose.estimators.rcnn_pool import Pooling, pool_levels

PLACES, HIDDEN = 7, 1024  # of a box on each side; channels of the linear layers
RATIOS = 0.5, 1.0, 2.0  # of an anchor's height to its width
ANCHOR = 8  # an anchor's side, in strides of its level
MOST_PROPOSALS = 1000  # of a level, and of all
PROPOSAL_OVERLAP, PERSON_OVERLAP = 0.7, 0.5  # IoU from which the lesser box is dropped
LEAST_SCORE = 0.05
MOST_PEOPLE = 100
_LARGEST_STEP = math.log(1000 / 16)  # of a side's logarithm


class Detector(nn.Module):
    """From the pyramid's levels p2..p5 of `width` channels to people.

    Args:
        convolutions: whether a box goes through convolutions, in place of linear layers.
    """

    def __init__(self, width: int, pooling: Pooling, convolutions: bool = False):
        super().__init__()
        self.pooling = pooling
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.objectness, self.deltas = nn.Conv2d(width, 3, 1), nn.Conv2d(width, 12, 1)
        self.convolutions, features = convolutions, width * PLACES**2
        if convolutions:
            self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        else:
            self.fc1, self.fc2 = nn.Linear(features, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
            features = HIDDEN
        self.scores, self.boxes = nn.Linear(features, 2), nn.Linear(features, 4)

    def forward(self, levels: Sequence[Tensor], height: int, width: int) -> tuple[Tensor, Tensor]:
        """The people in one picture of height x width pixels.

        Returns:
            Boxes, float32 [n, 4], left, top, right, bottom, and scores [n], the best first.
        """
        proposals = self.propose(levels, height, width)
        x = pool_levels(levels, [proposals], PLACES, self.pooling)
        if self.convolutions:
            x = self.conv2(self.conv1(x).relu()).relu().flatten(1)
        else:
            x = self.fc2(self.fc1(x.flatten(1)).relu()).relu()
        scores = self.scores(x).softmax(1)[:, 0]  # 1 is the background
        boxes = clip_boxes_to_image(moved(proposals, self.boxes(x), (10, 10, 5, 5)), (height, width))
        sure = scores > LEAST_SCORE
        boxes, scores = boxes[sure], scores[sure]
        kept = nms(boxes, scores, PERSON_OVERLAP)[:MOST_PEOPLE]
        return boxes[kept], scores[kept]

    def propose(self, levels: Sequence[Tensor], height: int, width: int) -> Tensor:
        """Where people might be, [n, 4], the best first."""
        found, scores, level_of = [], [], []
        for number, level in enumerate([*levels, F.max_pool2d(levels[-1], 1, 2)]):
            x = self.conv(level.float()).relu()
            objectness = self.objectness(x)[0].permute(1, 2, 0).flatten()  # [H * W * 3]
            deltas = self.deltas(x)[0].unflatten(0, (3, 4)).permute(2, 3, 0, 1).flatten(0, 2)
            best, which = objectness.topk(min(MOST_PROPOSALS, len(objectness)))
            anchors = anchors_of(4 << number, level.shape[2], level.shape[3]).to(x)
            found.append(moved(anchors[which], deltas[which], (1, 1, 1, 1)))
            scores.append(best)
            level_of.append(torch.full_like(which, number))
        boxes = clip_boxes_to_image(torch.cat(found), (height, width))
        there = ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).nonzero()[:, 0]
        kept = batched_nms(
            boxes[there], torch.cat(scores)[there], torch.cat(level_of)[there], PROPOSAL_OVERLAP
        )
        return boxes[there[kept[:MOST_PROPOSALS]]]


def anchors_of(stride: int, height: int, width: int) -> Tensor:
    """Boxes around a level's cells, [height * width * 3, 4]: the ratio changes fastest, then the column."""
    ratios = torch.tensor(RATIOS)
    sides = torch.stack([ratios.rsqrt(), ratios.sqrt()], 1) * (ANCHOR * stride)  # width and height
    around = torch.cat([-sides, sides], 1) / 2
    y, x = torch.meshgrid(torch.arange(height) * stride, torch.arange(width) * stride, indexing="ij")
    cells = torch.stack([x, y, x, y], 2).float()
    return (cells[:, :, None] + around).flatten(0, 2)


def moved(boxes: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Boxes [n, 4], moved by `deltas` [n, 4] in units of their size (R-CNN, arXiv:1311.2524, appendix C)."""
    size = boxes[:, 2:] - boxes[:, :2]
    middle = boxes[:, :2] + 0.5 * size
    step = deltas / deltas.new_tensor(weights)
    middle = middle + step[:, :2] * size
    half = 0.5 * size * step[:, 2:].clamp(max=_LARGEST_STEP).exp()
    return torch.cat([middle - half, middle + half], 1)
