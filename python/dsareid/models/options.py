"""What a network may be: the models by name, their kinds and sizes, their losses. Without torch.

A bound stands here once, on its type; ground.bounds checks it in settings, pydantic in files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, MultipleOf

Streams = Literal["both", "mf", "dsag"]
Branches = Literal["both", "global", "local"]
Guidance = Literal["add", "concat", "distill"]
ClassifierKind = Literal["two-layer", "batchnorm", "bnneck"]
GuideInputName = Literal["part-images", "part-crops", "image-patches"]
GUIDE_INPUT_NEEDS_IUV: Mapping[GuideInputName, bool] = {
    "part-images": True,
    "part-crops": True,
    "image-patches": False,
}
"""Whether a guide input is made from IUV maps."""

ModelName = Literal["dsa", "dsa-global", "dsa-local", "two-branch", "baseline", "dsap"]
MatchedBy = Literal[
    "mf",
    "mf-global",
    "mf-local",
    "fused",
    "fused-global",
    "fused-local",
    "guide",
    "guide-global",
    "guide-local",
]
"""What images are matched by: features of the MF-Stream, of both streams fused, of the DSAG-Stream."""

SYMBOLS: Mapping[MatchedBy, str] = {
    "mf": "f",
    "mf-global": "f_G",
    "mf-local": "f_L",
    "fused": "z",
    "fused-global": "z_G",
    "fused-local": "z_L",
    "guide": "d",
    "guide-global": "d_G",
    "guide-local": "d_L",
}
"""What the paper calls them."""

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


@dataclass(frozen=True)
class Model:
    """A model that can be trained."""

    title: str
    """In tables."""
    about: str
    """In a sentence."""
    streams: Streams
    branches: Branches
    unguided: ModelName | None = None
    """The same without the guide."""


MODELS: Mapping[ModelName, Model] = {
    "dsa": Model(
        "DSA-reID",
        "DSA-reID: both streams in training, the MF-Stream alone for matching",
        "both",
        "both",
        "two-branch",
    ),
    "dsa-global": Model("dsa-global", "DSA-reID with global branches only", "both", "global", "baseline"),
    "dsa-local": Model("dsa-local", "DSA-reID with local branches only", "both", "local"),
    "two-branch": Model("two-branch", "the MF-Stream alone (two branches)", "mf", "both"),
    "baseline": Model("baseline", "ResNet-50 with a global feature (baseline)", "mf", "global"),
    "dsap": Model("DSAP-images alone", "the DSAG-Stream alone, on DSAP-images", "dsag", "both"),
}


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network; the defaults are the paper's."""

    width: TrunkWidth = 1.0
    """Scales the channels of the MF-Stream's trunk; 1 is ResNet-50."""
    head_width: HeadWidth = 1.0
    """Scales the channels of the heads and of the DSAG-Stream."""
    depths: tuple[Depth, Depth, Depth, Depth] = (3, 4, 6, 3)
    """Blocks in conv2_x .. conv5_x of the MF-Stream."""
    classifier: ClassifierKind = "two-layer"
    """ID classifiers: two fully connected layers (the paper's), or BatchNorm and a single one.
    bnneck: the latter, and images are matched by what its BatchNorm makes of f (not in the paper)."""
    zero_init: bool = False
    """Start every residual block as its shortcut (for small networks without ImageNet weights)."""


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
