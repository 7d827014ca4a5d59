"""Aligned pooling: the trunk's own features, pooled through the map into the eight body parts and classified.

There is no second stream. It is in training only; its gradient reaches the trunk that f is made of.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsa_ext.parts import BODY_NAMES, GROUPS
from dsareid.models.branch import linear

PARTS = len(BODY_NAMES)
SEEN = 1 / 4
"""A part is seen if it covers this much of the feature map, in cells."""


class PartScores(NamedTuple):
    """A batch's parts: scores over the identities, and which of them are seen."""

    logits: Tensor  # (B, 8, N)
    seen: Tensor  # bool (B, 8)


class PartPooling(nn.Module):
    """Pools a feature map into the body's parts and classifies each part's mean.

    Args:
        channels: of the feature map.
        num_classes: identities in the training set.
    """

    groups: Tensor

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(PARTS * channels)
        self.classify = linear(PARTS, channels, num_classes, bias=False)
        nn.init.normal_(self.classify.weight, std=0.001)
        groups = torch.tensor([0, *(group + 1 for group in GROUPS[PARTS])])
        self.register_buffer("groups", groups, persistent=False)

    def forward(self, x: Tensor, part: Tensor) -> PartScores:
        """x: floating (B, C, h, w). part: uint8 (B, H, W), of each pixel; 0 is the background."""
        pooled, seen = self.pooled(x, part)
        return PartScores(self.classify(pooled.flatten(1)).unflatten(1, (PARTS, -1)), seen)

    def embedding(self, x: Tensor, part: Tensor) -> Tensor:
        """(B, 8 * C) for matching: each part of norm 1, 0 if it is not seen; all of norm 1 together.

        Args: as forward.
        """
        pooled, seen = self.pooled(x, part)
        parts = F.normalize(pooled.float(), dim=2) * seen[..., None]
        return F.normalize(parts.flatten(1), dim=1)

    def pooled(self, x: Tensor, part: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of x over each part, normalised over the batch, (B, 8, C), and whether it is seen, bool
        (B, 8). Arguments as forward."""
        group = self.groups[part.long()]  # [B, H, W], 0 the background
        groups = torch.arange(1, PARTS + 1, device=part.device)[:, None, None]
        members = (group[:, None] == groups).float()  # [B, 8, H, W]
        cells = x.shape[2], x.shape[3]
        share = F.adaptive_avg_pool2d(members, cells).flatten(2)  # [B, 8, h*w], of each cell
        seen = share.sum(2) >= SEEN
        # A part that is not seen takes the mean of all: it does not count, but BatchNorm sees it.
        share = torch.where(seen[..., None], share, 1.0)
        weight = (share / share.sum(2, keepdim=True)).to(x.dtype)
        means = weight @ x.flatten(2).transpose(1, 2)  # [B, 8, C]
        return self.norm(means.flatten(1)).unflatten(1, (PARTS, -1)), seen
