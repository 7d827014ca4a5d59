"""The places of a box in the features of a picture: ROIAlign, as DensePose R-CNN has it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

WIDTH = 256  # channels of a level


def pool(features: Tensor, boxes: list[Tensor], size: int, stride: int) -> Tensor:
    """Places of features at one stride, size x size of each box [n, 4] of each picture."""
    return roi_align(features.float(), boxes, size, spatial_scale=1 / stride, sampling_ratio=2, aligned=False)


def pool_levels(levels: Sequence[Tensor], boxes: Sequence[Tensor], size: int) -> Tensor:
    """Places of the level that fits each box: p4 for 224 x 224 pixels (arXiv:1612.03144, equation 1)."""
    every = torch.cat(list(boxes))
    picture = torch.cat([torch.full((len(x), 1), float(n)) for n, x in enumerate(boxes)]).to(every)
    area = (every[:, 2] - every[:, 0]) * (every[:, 3] - every[:, 1])
    level = torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8)).clamp(2, 5)
    pooled = every.new_zeros(len(every), WIDTH, size, size)
    for number, features in enumerate(levels, 2):
        (chosen,) = (level == number).nonzero(as_tuple=True)
        rows = torch.cat([picture, every], 1)[chosen]
        pooled[chosen] = roi_align(
            features.float(), rows, size, 1 / 2**number, sampling_ratio=2, aligned=False
        )
    return pooled
