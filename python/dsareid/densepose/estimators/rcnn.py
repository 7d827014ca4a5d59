"""DensePose R-CNN's chart models, by the names of detectron2's zoo (projects/DensePose): from boxes to heads.

A ResNet with a feature pyramid sees the picture. A decoder sums the levels at a quarter of the picture's
size; for each box 28 x 28 places of it go through eight convolutions, and four transposed ones give 112 x 112
scores of the mask, scores of parts, and U and V of each part. What a file holds tells the variant.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50, resnet101
from torchvision.ops import FeaturePyramidNetwork

from dsareid.densepose.estimators.rcnn_detector import Detector
from dsareid.densepose.estimators.rcnn_pool import WIDTH, pool, pool_levels
from dsareid.ground.errors import DSAError

LEVELS = "p2", "p3", "p4", "p5"  # at strides 4 to 32
BGR_MEAN = 103.53, 116.28, 123.675  # subtracted from the picture's bytes
STRIDE = 32  # of the last level: the sides of what the network sees are multiples of it
HIDDEN = 512  # channels of the head
LEAST_CONFIDENCE = 0.01
PARTS = 24


class Variant(NamedTuple):
    """What tells the models of the zoo apart, as far as maps depend on it."""

    depth: int = 50  # of the ResNet
    decoder: bool = True  # not in the legacy models, which pool 14 x 14 places of the level that fits a box
    deeplab: bool = False  # DL: atrous pooling before the convolutions of the head
    coarse: int = 2  # scores of the mask; 15 in the legacy models: the background and 14 body parts
    weighted: bool = False  # WC1M, WC2M: scores are multiplied by a confidence of their own


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
        self.variant = variant
        self.trunk = {50: resnet50, 101: resnet101}[variant.depth]()
        del self.trunk.fc
        for stage in (self.trunk.layer2, self.trunk.layer3, self.trunk.layer4):
            first = stage[0]  # detectron2 has the stride in the first convolution, torchvision in the second
            first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
        self.pyramid = FeaturePyramidNetwork([256, 512, 1024, 2048], WIDTH)
        self.decoder = Decoder() if variant.decoder else None
        self.head = Head(variant.deeplab)
        self.predictor = Predictor(variant)
        self.detector = Detector()
        self.kind = torch.float32  # of the convolutions but the last

    def use_bfloat16(self) -> None:
        """Compute all but boxes, scores and the last layer in bfloat16; normalisation keeps its numbers."""
        self.kind = torch.bfloat16
        for module in (self.trunk, self.pyramid, self.decoder, self.head):
            if module is None:
                continue
            module.to(self.kind)
            for norm in module.modules():
                if isinstance(norm, (nn.BatchNorm2d, nn.GroupNorm)):
                    norm.float()

    def levels(self, pictures: Tensor) -> list[Tensor]:
        """Features of pictures (B, 3, H, W), float32 B, G, R minus BGR_MEAN, sides multiples of STRIDE."""
        x = self.trunk.conv1(pictures.to(self.kind))
        x = self.trunk.maxpool(self.trunk.relu(self.trunk.bn1(x)))
        found = {}
        for level, stage in zip(
            LEVELS, (self.trunk.layer1, self.trunk.layer2, self.trunk.layer3, self.trunk.layer4)
        ):
            x = found[level] = stage(x)
        return list(self.pyramid(found).values())

    def forward(self, pictures: Tensor, boxes: Sequence[Tensor]) -> Heads:
        """The heads of each picture's boxes, float32 [n, 4]: left, top, right, bottom in pixels."""
        return self.heads(self.levels(pictures), boxes)

    def heads(self, levels: Sequence[Tensor], boxes: Sequence[Tensor]) -> Heads:
        """The heads of boxes, from the features of their pictures."""
        if self.decoder is not None:
            pooled = pool(self.decoder(levels), list(boxes), 28, 4)
        else:
            pooled = pool_levels(levels, boxes, 14)
        return self.predictor(self.head(pooled.to(self.kind)).float())


class Decoder(nn.Module):
    """The sum of the levels at stride 4 (semantic head of panoptic feature pyramids, arXiv:1901.02446)."""

    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleDict(
            {
                level: nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(max(1, steps)))
                for steps, level in enumerate(LEVELS)
            }
        )
        self.predictor = nn.Conv2d(WIDTH, WIDTH, 1)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        total = None
        for level, x in zip(LEVELS, levels):
            for conv in self.levels[level]:
                x = conv(x).relu()
                if level != LEVELS[0]:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            total = x if total is None else total + x
        return self.predictor(total)


class Atrous(nn.Module):
    """DeepLab's pooling with GroupNorm (arXiv:1706.05587): 1 x 1, three dilated convolutions, the mean."""

    def __init__(self):
        super().__init__()
        convs = [nn.Conv2d(WIDTH, WIDTH, 1, bias=False)]
        convs += [nn.Conv2d(WIDTH, WIDTH, 3, padding=n, dilation=n, bias=False) for n in (6, 12, 56)]
        convs.append(nn.Conv2d(WIDTH, WIDTH, 1, bias=False))
        self.convs, self.norms = nn.ModuleList(convs), nn.ModuleList(nn.GroupNorm(32, WIDTH) for _ in convs)
        self.project = nn.Conv2d(5 * WIDTH, WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        *local, pooled = zip(self.convs, self.norms)
        found = [norm(conv(x)).relu() for conv, norm in local]
        conv, norm = pooled
        mean = norm(conv(x.mean((2, 3), keepdim=True))).relu()
        return self.project(torch.cat([*found, mean.expand_as(x)], 1)).relu()


class Head(nn.Module):
    """Eight convolutions; with `deeplab` after the atrous pooling, and normalised."""

    def __init__(self, deeplab: bool):
        super().__init__()
        self.atrous = Atrous() if deeplab else nn.Identity()
        widths = [WIDTH, *[HIDDEN] * 8]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=not deeplab) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(32, HIDDEN) if deeplab else nn.Identity() for _ in self.convs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.atrous(x)
        for conv, norm in zip(self.convs, self.norms):
            x = norm(conv(x)).relu()
        return x


class Predictor(nn.Module):
    """A transposed convolution for each head, twice as large, and then twice as large again."""

    def __init__(self, variant: Variant):
        super().__init__()
        self.coarse, self.fine, self.u, self.v = (
            nn.ConvTranspose2d(HIDDEN, count, 4, stride=2, padding=1)
            for count in (variant.coarse, PARTS + 1, PARTS + 1, PARTS + 1)
        )
        if variant.weighted:
            self.coarse_confidence, self.fine_confidence = (
                nn.ConvTranspose2d(HIDDEN, 1, 4, stride=2, padding=1) for _ in range(2)
            )
        self.weighted = variant.weighted

    def forward(self, x: Tensor) -> Heads:
        coarse, fine, u, v = (_twice(head(x)) for head in (self.coarse, self.fine, self.u, self.v))
        if self.weighted:
            coarse = coarse * (F.softplus(_twice(self.coarse_confidence(x))) + LEAST_CONFIDENCE)
            fine = fine * (F.softplus(_twice(self.fine_confidence(x))) + LEAST_CONFIDENCE)
        return Heads(coarse, fine, u, v)


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


# ---- the zoo's names ----

_NAMES = (  # of the zoo, and of the modules above
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.", "trunk.bn1."),
    (r"backbone\.bottom_up\.stem\.conv1\.", "trunk.conv1."),
    (r"backbone\.bottom_up\.res([2-5])\.(\d+)\.shortcut\.norm\.", "trunk.layer{0}.{1}.downsample.1."),
    (r"backbone\.bottom_up\.res([2-5])\.(\d+)\.shortcut\.", "trunk.layer{0}.{1}.downsample.0."),
    (r"backbone\.bottom_up\.res([2-5])\.(\d+)\.conv([1-3])\.norm\.", "trunk.layer{0}.{1}.bn{2}."),
    (r"backbone\.bottom_up\.res([2-5])\.(\d+)\.conv([1-3])\.", "trunk.layer{0}.{1}.conv{2}."),
    (r"backbone\.fpn_lateral([2-5])\.", "pyramid.inner_blocks.{0}.0."),
    (r"backbone\.fpn_output([2-5])\.", "pyramid.layer_blocks.{0}.0."),
    (r"proposal_generator\.rpn_head\.conv\.", "detector.conv."),
    (r"proposal_generator\.rpn_head\.objectness_logits\.", "detector.objectness."),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.", "detector.deltas."),
    (r"roi_heads\.box_head\.(fc[12])\.", "detector.{0}."),
    (r"roi_heads\.box_predictor\.cls_score\.", "detector.scores."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "detector.boxes."),
    (r"roi_heads\.decoder\.(p[2-5])\.(\d)\.", "decoder.levels.{0}.{1}."),
    (r"roi_heads\.decoder\.predictor\.", "decoder.predictor."),
    (r"roi_heads\.densepose_head\.ASPP\.convs\.([0-3])\.0\.", "head.atrous.convs.{0}."),
    (r"roi_heads\.densepose_head\.ASPP\.convs\.([0-3])\.1\.", "head.atrous.norms.{0}."),
    (r"roi_heads\.densepose_head\.ASPP\.convs\.(4)\.1\.", "head.atrous.convs.{0}."),
    (r"roi_heads\.densepose_head\.ASPP\.convs\.(4)\.2\.", "head.atrous.norms.{0}."),
    (r"roi_heads\.densepose_head\.ASPP\.project\.0\.", "head.atrous.project."),
    (r"roi_heads\.densepose_head\.body_conv_fcn([1-8])\.norm\.", "head.norms.{0}."),
    (r"roi_heads\.densepose_head\.body_conv_fcn([1-8])\.", "head.convs.{0}."),
    (r"roi_heads\.densepose_predictor\.ann_index_lowres\.", "predictor.coarse."),
    (r"roi_heads\.densepose_predictor\.index_uv_lowres\.", "predictor.fine."),
    (r"roi_heads\.densepose_predictor\.([uv])_lowres\.", "predictor.{0}."),
    (r"roi_heads\.densepose_predictor\.coarse_segm_confidence_lowres\.", "predictor.coarse_confidence."),
    (r"roi_heads\.densepose_predictor\.fine_segm_confidence_lowres\.", "predictor.fine_confidence."),
)
# What a map does not depend on: how sure U and V are, the numbers that detectron2 derives, and what has a
# second name in dajes/DensePose-TorchScript.
_UNUSED = re.compile(
    r"proposal_generator\.anchor_generator\.|roi_heads\.densepose_predictor\.(sigma_2|kappa_[uv])_"
    r"|pixel_(mean|std)$|.*\.num_batches_tracked$|roi_heads\.densepose_losses\."
    r"|backbone\.(bottom_up\.stages|lateral_convs|output_convs)\."
    r"|roi_heads\.(decoder\.scale_heads|densepose_head\.stacked_convs)\."
)
_LESS = {"trunk.layer": 1, "pyramid.": 2, "head.convs": 1, "head.norms": 1}  # than the zoo's first number


def own_name(name: str) -> str | None:
    """The parameter of DensePoseRCNN that a weight of the zoo is; None: it is not needed.

    Raises:
        DSAError: no chart model has a weight of that name.
    """
    if _UNUSED.match(name):
        return None
    for pattern, own in _NAMES:
        if found := re.match(pattern, name):
            less = next((n for start, n in _LESS.items() if own.startswith(start)), 0)
            groups = [
                str(int(x) - less) if k == 0 and x.isdecimal() else x for k, x in enumerate(found.groups())
            ]
            if own.startswith("decoder.levels"):  # every second one is an upsampling
                groups[1] = str(int(groups[1]) // 2)
            return own.format(*groups) + name[found.end() :]
    raise DSAError(f"it has {name}, which no chart model of DensePose R-CNN has{_kind_of(name)}")


def _kind_of(name: str) -> str:
    """What a foreign weight tells of its model."""
    if "embed" in name:
        return ": a model of continuous surface embeddings (CSE), which have no U and V"
    if "keypoint" in name or "mask_head" in name:
        return ": a model of key points or masks"
    if "NLBlock" in name:
        return ": a head with non-local blocks, which no model of the zoo has"
    return ""


def variant_of(names: Mapping[str, Sequence[int]]) -> Variant:
    """The variant by the shapes of its parameters, named as own_name does.

    Raises:
        DSAError: parts of a chart model are missing.
    """
    if "predictor.fine.weight" not in names or "trunk.conv1.weight" not in names:
        raise DSAError("it is no chart model of DensePose R-CNN: a ResNet with the heads of parts, U and V")
    return Variant(
        depth=101 if "trunk.layer3.22.conv1.weight" in names else 50,
        decoder="decoder.predictor.weight" in names,
        deeplab="head.atrous.project.weight" in names,
        coarse=names.get("predictor.coarse.weight", (0, 2))[1],
        weighted="predictor.fine_confidence.weight" in names,
    )


def build(weights: Mapping[str, Tensor]) -> DensePoseRCNN:
    """The network of a file's weights, by the zoo's names.

    Raises:
        DSAError: they are not those of a chart model, some are missing, or have other shapes.
    """
    named = {own: value.float() for name, value in weights.items() if (own := own_name(name)) is not None}
    variant = variant_of({name: value.shape for name, value in named.items()})
    with torch.device("meta"):
        network = DensePoseRCNN(variant).eval().requires_grad_(False)
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = [
        f"{name} is {_shape(named.get(name))}, not {_shape(value)}"
        for name, value in expected.items()
        if name not in named or named[name].shape != value.shape
    ]
    wrong += [f"{name} is one too many" for name in named if name not in expected]
    if wrong:
        raise DSAError(f"{len(wrong):,} weights do not fit a model {variant}: {wrong[0]}")
    counted = {k: torch.zeros((), dtype=torch.int64) for k in network.state_dict() if k not in expected}
    network.load_state_dict(named | counted, assign=True)
    return network


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))
