"""DensePose R-CNN's chart models, from boxes to heads: detectron2's zoo, and DensePoseFnL's light models.

A trunk with a feature pyramid sees the picture. Some places of its features in each box go through the
convolutions of a head, and transposed ones give scores of the mask, scores of parts, U and V of each part.

In the zoo the trunk is a ResNet, and a decoder first sums the levels at a quarter of the picture's size: 28 x
28 places of it, eight convolutions, 112 x 112 scores. DensePoseFnL takes 32 x 32 places of the finest level
of a mobile trunk, four narrow convolutions, and gives 64 x 64 scores.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import ResNet, resnet50, resnet101
from torchvision.ops import FeaturePyramidNetwork

from dsareid.densepose.estimators import rcnn_mobile
from dsareid.densepose.estimators.rcnn_detector import Detector
from dsareid.densepose.estimators.rcnn_mobile import BiFPN, MobileTrunk
from dsareid.densepose.estimators.rcnn_pool import Pooling, pool, pool_levels

LEVELS = "p2", "p3", "p4", "p5"  # at strides 4 to 32
STRIDE = 32  # of the last level: the sides of what the network sees are multiples of it
LEAST_CONFIDENCE = 0.01
PARTS = 24
MOBILE = "spnasnet_100"


class Look(NamedTuple):
    """How a network wants the bytes of a picture: (x - mean) / std, each of three channels."""

    bgr: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


BYTES = Look(True, (103.53, 116.28, 123.675), (1.0, 1.0, 1.0))  # the zoo's
UNIT = Look(False, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # DensePoseFnL's


class Variant(NamedTuple):
    """What tells the models apart, as far as maps depend on it."""

    trunk: str = "R_50"  # or R_101, or MOBILE: DensePoseFnL's
    decoder: bool = True  # not in the legacy models, which pool places of the level that fits a box
    deeplab: bool = False  # DL: atrous pooling before the convolutions of the head
    coarse: int = 2  # scores of the mask; or 15: the background and 14 body parts
    weighted: bool = False  # WC1M, WC2M: scores are multiplied by a confidence of their own


class _Plan(NamedTuple):
    """The sizes of a variant."""

    width: int  # channels of a level
    hidden: int  # of the head
    convs: int  # of the head
    dilations: tuple[int, ...]  # of the atrous pooling; none: there is no such pooling
    normalised: bool  # whether the head has GroupNorm, in place of biases
    places: int  # of a box, on each side
    pooling: Pooling
    twice: bool  # whether the scores are made twice as large again
    look: Look


def _plan(variant: Variant) -> _Plan:
    if variant.trunk == MOBILE:
        width = rcnn_mobile.WIDTH
        return _Plan(width, width, 4, (6, 12, 18), False, 32, Pooling(True, 0), False, UNIT)
    dilations = (6, 12, 56) if variant.deeplab else ()
    places = 28 if variant.decoder else 14
    return _Plan(256, 512, 8, dilations, variant.deeplab, places, Pooling(), True, BYTES)


class Heads(NamedTuple):
    """What the network says of each box, float32 [N, C, h, w]."""

    coarse: Tensor  # C = 2 or 15; 0 is the background
    fine: Tensor  # C = 25; 0 is the background
    u: Tensor
    v: Tensor


class DensePoseRCNN(nn.Module):
    """The network."""

    def __init__(self, variant: Variant):
        super().__init__()
        self.variant, self.plan = variant, _plan(variant)
        width, hidden = self.plan.width, self.plan.hidden
        self.mobile = variant.trunk == MOBILE
        self.trunk: nn.Module = MobileTrunk() if self.mobile else _resnet(variant.trunk)
        widths = [256, 512, 1024, 2048]
        self.pyramid: nn.Module = BiFPN() if self.mobile else FeaturePyramidNetwork(widths, width)
        self.decoder = Decoder(width) if variant.decoder else None
        self.head = Head(self.plan)
        self.predictor = Predictor(variant, hidden, self.plan.twice)
        self.detector = Detector(width, self.plan.pooling, convolutions=self.mobile)
        self.kind = torch.float32  # of the convolutions but the last

    def use_bfloat16(self) -> None:
        """Compute all but boxes, scores and the last layer in bfloat16; BatchNorm keeps its numbers."""
        self.kind = torch.bfloat16
        for module in (self.trunk, self.pyramid, self.decoder, self.head):
            if module is None:
                continue
            module.to(self.kind)
            for norm in module.modules():
                if isinstance(norm, nn.BatchNorm2d):  # GroupNorm of two types is not there on CUDA
                    norm.float()

    def levels(self, pictures: Tensor) -> list[Tensor]:
        """Features of pictures (B, 3, H, W), float32 as plan.look says, sides multiples of STRIDE."""
        x = pictures.to(self.kind)
        found = _resnet_levels(self.trunk, x) if isinstance(self.trunk, ResNet) else self.trunk(x)
        return list(self.pyramid(dict(zip(LEVELS, found))).values())

    def forward(self, pictures: Tensor, boxes: Sequence[Tensor]) -> Heads:
        """The heads of each picture's boxes, float32 [n, 4]: left, top, right, bottom in pixels."""
        return self.heads(self.levels(pictures), boxes)

    def heads(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Heads:
        """The heads of boxes, from the features of their pictures."""
        places, pooling = self.plan.places, self.plan.pooling
        if self.decoder is not None:
            pooled = pool(self.decoder(levels), list(boxes), places, 4, pooling)
        elif self.mobile:
            pooled = pool(levels[0], list(boxes), places, 4, pooling)
        else:
            pooled = pool_levels(levels, boxes, places, pooling)
        return self.predictor(self.head(pooled.to(self.kind)).float())


def _resnet(name: str) -> ResNet:
    """torchvision's, with the stride of a stage where detectron2 has it: in its first convolution."""
    trunk = {"R_50": resnet50, "R_101": resnet101}[name]()
    del trunk.fc
    for stage in (trunk.layer2, trunk.layer3, trunk.layer4):
        first = stage[0]
        first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
    return trunk


def _resnet_levels(trunk: ResNet, x: Tensor) -> list[Tensor]:
    x = trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(x))))
    found = []
    for stage in (trunk.layer1, trunk.layer2, trunk.layer3, trunk.layer4):
        x = stage(x)
        found.append(x)
    return found


class Decoder(nn.Module):
    """The sum of the levels at stride 4 (semantic head of panoptic feature pyramids, arXiv:1901.02446)."""

    def __init__(self, width: int):
        super().__init__()
        self.levels = nn.ModuleDict(
            {
                level: nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(max(1, steps)))
                for steps, level in enumerate(LEVELS)
            }
        )
        self.predictor = nn.Conv2d(width, width, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        total = None
        for level, x in zip(LEVELS, levels):
            for conv in cast(nn.ModuleList, self.levels[level]):
                x = conv(x).relu()
                if level != LEVELS[0]:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            total = x if total is None else total + x
        return self.predictor(total)


class Atrous(nn.Module):
    """DeepLab's pooling (arXiv:1706.05587): 1 x 1, three dilated convolutions, the mean."""

    def __init__(self, width: int, dilations: Sequence[int], normalised: bool):
        super().__init__()
        bias = not normalised
        convs = [nn.Conv2d(width, width, 1, bias=bias)]
        convs += [nn.Conv2d(width, width, 3, padding=n, dilation=n, bias=bias) for n in dilations]
        convs.append(nn.Conv2d(width, width, 1, bias=bias))
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.GroupNorm(32, width) if normalised else nn.Identity() for _ in convs)
        self.project = nn.Conv2d(5 * width, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        *local, pooled = zip(self.convs, self.norms)
        found = [norm(conv(x)).relu() for conv, norm in local]
        conv, norm = pooled
        mean = norm(conv(x.mean((2, 3), keepdim=True))).relu()
        return self.project(torch.cat([*found, mean.expand_as(x)], 1)).relu()


class Head(nn.Module):
    """Convolutions, in some models after the atrous pooling."""

    def __init__(self, plan: _Plan):
        super().__init__()
        atrous = Atrous(plan.width, plan.dilations, plan.normalised) if plan.dilations else nn.Identity()
        self.atrous: nn.Module = atrous
        widths = [plan.width, *[plan.hidden] * plan.convs]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=not plan.normalised) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(
            nn.GroupNorm(32, plan.hidden) if plan.normalised else nn.Identity() for _ in self.convs
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.atrous(x)
        for conv, norm in zip(self.convs, self.norms):
            x = norm(conv(x)).relu()
        return x


class Predictor(nn.Module):
    """A transposed convolution for each head, twice as large, and in the zoo twice as large again."""

    def __init__(self, variant: Variant, hidden: int, twice: bool):
        super().__init__()
        self.coarse, self.fine, self.u, self.v = (
            nn.ConvTranspose2d(hidden, count, 4, stride=2, padding=1)
            for count in (variant.coarse, PARTS + 1, PARTS + 1, PARTS + 1)
        )
        if variant.weighted:
            self.coarse_confidence, self.fine_confidence = (
                nn.ConvTranspose2d(hidden, 1, 4, stride=2, padding=1) for _ in range(2)
            )
        self.weighted, self.twice = variant.weighted, twice

    def forward(self, x: Tensor) -> Heads:
        coarse, fine, u, v = (self._larger(head(x)) for head in (self.coarse, self.fine, self.u, self.v))
        if self.weighted:
            coarse = coarse * (F.softplus(self._larger(self.coarse_confidence(x))) + LEAST_CONFIDENCE)
            fine = fine * (F.softplus(self._larger(self.fine_confidence(x))) + LEAST_CONFIDENCE)
        return Heads(coarse, fine, u, v)

    def _larger(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False) if self.twice else x
