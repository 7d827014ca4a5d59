"""What a network may be: kinds and sizes of its parts, its losses. Without torch.

A bound stands here once, on its type; ground.bounds checks it in settings, pydantic in files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MultipleOf

from dsareid.ground.errors import DSAError

Guidance = Literal["add", "concat", "distill"]
RESNET = "resnet50"  # the trunk of our own; others are timm's
TrunkStage = Literal["sixteenth", "last"]
ClassifierKind = Literal["two-layer", "batchnorm", "bnneck"]
GuideInputName = Literal["part-images", "part-crops", "image-patches"]
GUIDE_INPUT_NEEDS_IUV: Mapping[GuideInputName, bool] = {
    "part-images": True,
    "part-crops": True,
    "image-patches": False,
}
"""Whether a guide input is made from IUV maps."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""By which images are normalised, a channel each: ImageNet's."""

# Sides of the network's input; sides of a part image; scales that leave the narrowest layer whole: it has
# 64 channels in the trunk and 32 in heads and guide.
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
    With a trunk of timm also its channels do, in parts of ResNet-50's 1024."""
    depths: tuple[Depth, Depth, Depth, Depth] = PAPER_DEPTHS
    """Blocks in conv2_x .. conv5_x of the MF-Stream; with a trunk of timm the last number alone counts."""
    classifier: ClassifierKind = "two-layer"
    """ID classifiers: two fully connected layers (the paper's), or BatchNorm and a single one.
    bnneck: the latter, and images are matched by what its BatchNorm makes of f (not in the paper)."""
    zero_init: bool = False
    """Start every residual block as its shortcut (for small networks without ImageNet weights)."""
    trunk: str = RESNET
    """What the MF-Stream stands on: resnet50, the paper's conv1..conv4_x, or a model of timm by its name."""
    trunk_stage: TrunkStage = "sixteenth"
    """Where a trunk of timm ends. sixteenth: at its last stage of stride 16, or the nearest.
    last: at its last stage, whose stride is taken out."""

    def __post_init__(self) -> None:
        if self.trunk == RESNET and self.trunk_stage != "sixteenth":
            raise DSAError(f"`network.trunk_stage={self.trunk_stage}` is for trunks of timm")
        if self.trunk != RESNET and (self.width != 1 or self.depths[:3] != PAPER_DEPTHS[:3]):
            raise DSAError(
                f"`network.trunk={self.trunk}` has sizes of its own: `network.width` must be 1, and "
                f"`network.depths` begin with {', '.join(map(str, PAPER_DEPTHS[:3]))}"
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
    distill: Weight = 1.0
    """For guidance distill: weight of what the guide teaches, after the warm-up (not in the paper)."""
    temperature: Annotated[float, Ge(1e-3)] = 4.0
    """For guidance distill: divides the logits, the guide's and the learner's."""
