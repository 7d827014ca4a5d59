"""The choices for a network: kinds and sizes of its parts, weights of its losses. Imports no torch.

Each bound is declared here once, on its type; ground.bounds checks it in settings, pydantic in files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MultipleOf

from dsareid.ground.errors import DSAError

Guidance = Literal["add", "gate", "concat", "distill", "pool", "texture"]
STREAM_GUIDANCE: tuple[Guidance, ...] = ("add", "gate", "concat", "distill")
"""Those with a second stream, the DSAG-Stream; the others have a head of their own."""
RESNET = "resnet50"  # our own trunk; all other names are timm's
TrunkStage = Literal["sixteenth", "whole"]
ClassifierKind = Literal["two-layer", "batchnorm", "bnneck"]
GuideInputName = Literal[
    "part-images", "part-crops", "masked-patches", "image-patches", "others", "stripes", "pictures"
]
InputName = GuideInputName | Literal["part-map"]  # what the network gets; with "pool" a part map
GUIDE_INPUT_NEEDS_IUV: Mapping[InputName, bool] = {
    "part-images": True,
    "part-crops": True,
    "masked-patches": True,
    "image-patches": False,
    "part-map": True,
    "others": True,
    "stripes": False,
    "pictures": False,
}
"""Whether each guide input needs IUV maps."""
POOLED_INPUTS: tuple[InputName, ...] = ("part-map", "others", "stripes")
"""Those of guidance "pool", in which each pixel of the image has a part."""
_FED: tuple[GuideInputName, ...] = ("part-images", "part-crops", "masked-patches", "image-patches")
INPUTS_OF_GUIDANCE: Mapping[Guidance, tuple[GuideInputName, ...]] = {
    "add": _FED,
    "gate": _FED,
    "concat": _FED,
    "distill": _FED,
    "pool": ("part-images", "others", "stripes"),
    "texture": ("part-images", "others", "pictures"),
}
"""What each guidance may go by; the first is its own, all others are controls."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation per channel, which normalise every image."""

# Sides of the network's input and of a part image. Widths are multiples of 1/64 or 1/32, so that every layer
# has a whole number of channels: the narrowest has 64 in the trunk and 32 in heads and guide at width 1.
InputSide = Annotated[int, Ge(32), Le(4096)]
PartSide = Annotated[int, Ge(4), Le(256), MultipleOf(4)]
TrunkWidth = Annotated[float, Ge(1 / 64), Le(8), MultipleOf(1 / 64)]
HeadWidth = Annotated[float, Ge(1 / 32), Le(8), MultipleOf(1 / 32)]
Depth = Annotated[int, Ge(1), Le(100)]
Weight = Annotated[float, Ge(0)]
PAPER_DEPTHS = (3, 4, 6, 3)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network; the defaults are the paper's."""

    width: TrunkWidth = 1.0
    """Scales the channels of the trunk resnet50; 1 is ResNet-50."""
    head_width: HeadWidth = 1.0
    """Scales the channels of the heads and of the DSAG-Stream.
    With a timm trunk they also scale with its channels, relative to ResNet-50's 1024."""
    depths: tuple[Depth, Depth, Depth, Depth] = PAPER_DEPTHS
    """Blocks in conv2_x .. conv5_x of the MF-Stream; with a timm trunk only the last number counts."""
    classifier: ClassifierKind = "two-layer"
    """ID classifiers. two-layer: two fully connected layers (the paper's).
    batchnorm: BatchNorm and a single layer.
    bnneck: the same, and images are matched by f after that BatchNorm (not in the paper)."""
    zero_init: bool = False
    """Start every residual block as its shortcut (for small networks without ImageNet weights)."""
    trunk: str = RESNET
    """The MF-Stream's backbone: resnet50 (the paper's conv1..conv4_x), or the name of a timm model."""
    trunk_stage: TrunkStage = "sixteenth"
    """Where a timm trunk ends. sixteenth: at its last stage of stride 16, or of the nearest stride.
    whole: at its last stage, with the stride of that stage removed."""

    def __post_init__(self) -> None:
        if self.trunk == RESNET and self.trunk_stage != "sixteenth":
            raise DSAError(f"`network.trunk_stage={self.trunk_stage}` is only for timm trunks")
        if self.trunk != RESNET and (self.width != 1 or self.depths[:3] != PAPER_DEPTHS[:3]):
            raise DSAError(
                f"`network.trunk={self.trunk}` has its own sizes: `network.width` must be 1, and "
                f"`network.depths` must begin with {', '.join(map(str, PAPER_DEPTHS[:3]))}"
            )


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    id_f: Weight = 0.5
    """ID loss on f_G, and on f_L (the mean over its eight parts)."""
    id_z: Weight = 1.0
    """ID loss on z_G, and on z_L; with guidance distill also on d_G and d_L."""
    triplet_z: Weight = 1.5
    """Batch-hard triplet loss on z_G, and on z_L; with guidance distill also on d_G and d_L."""
    margin: Weight = 0.3
    """Margin of the triplet loss."""
    smoothing: Annotated[float, Ge(0), Le(1)] = 0.1
    """Label smoothing of every ID loss."""
    pool: Weight = 1.0
    """For guidance pool: ID loss on the pooled parts that are seen, their mean (not in the paper)."""
    texture: Weight = 1.0
    """For guidance texture: smooth L1 loss of the predicted texture, its mean (not in the paper)."""
    distill: Weight = 1.0
    """For guidance distill: weight of the distillation loss after the warm-up (not in the paper)."""
    temperature: Annotated[float, Ge(1e-3)] = 4.0
    """For guidance distill: divides the logits of both guide and f."""
