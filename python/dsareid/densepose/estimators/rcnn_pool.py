"""The places of a box in the features of a picture: ROIAlign, as DensePose R-CNN has it."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align


class Pooling(NamedTuple):
    """How ROIAlign takes its samples; the defaults are the zoo's."""

    aligned: bool = False  # whether a pixel's middle is at one half (detectron2's ROIAlignV2)
    samples: int = 2  # of a place, in each direction; 0: as many as the box has features


def pool(features: Tensor, boxes: list[Tensor] | Tensor, size: int, stride: int, how: Pooling) -> Tensor:
    """Places of features at one stride, size x size of each box.

    Args:
        boxes: [n, 4] for each picture, or [n, 5] with the picture's number first.
    """
    return roi_align(features.float(), boxes, size, 1 / stride, how.samples, how.aligned)


def pool_levels(levels: Sequence[Tensor], boxes: Sequence[Tensor], size: int, how: Pooling) -> Tensor:
    """Places of the level that fits each box: p4 for 224 x 224 pixels (arXiv:1612.03144, equation 1)."""
    every = torch.cat(list(boxes))
    picture = torch.cat([torch.full((len(x), 1), float(n)) for n, x in enumerate(boxes)]).to(every)
    area = (every[:, 2] - every[:, 0]) * (every[:, 3] - every[:, 1])
    level = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8)).clamp(2, 5)
    pooled = every.new_zeros(len(every), levels[0].shape[1], size, size)
    for number, features in enumerate(levels, 2):
        (chosen,) = (level == number).nonzero(as_tuple=True)
        rows = torch.cat([picture, every], 1)[chosen]
        pooled[chosen] = pool(features, rows, size, 2**number, how)
    return pooled
