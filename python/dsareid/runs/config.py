"""All settings of a training run, as typed dataclasses, and the presets."""

import math
import operator
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import tyro
from pydantic import TypeAdapter, ValidationError

from dsareid.data.batch import AugmentConfig, GuideConfig
from dsareid.ground.errors import DSAError, first_problem
from dsareid.ground.files import atomic_path
from dsareid.models.features import Branches
from dsareid.models.losses import LossConfig
from dsareid.models.reid import ClassifierKind, Guidance, Streams

ModelName = Literal["dsa", "dsa-global", "dsa-local", "two-branch", "baseline", "dsap"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Layout = Literal["auto", "channels_last", "contiguous"]
BatchNormKind = Literal["batch", "sync", "frozen"]


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the network; the defaults are the paper's."""

    width: float = 1.0
    """Scales the channels of the MF-Stream's trunk; 1 is ResNet-50."""
    head_width: float = 1.0
    """Scales the channels of the heads and of the DSAG-Stream."""
    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Blocks in conv2_x .. conv5_x of the MF-Stream."""
    classifier: ClassifierKind = "two-layer"
    """ID classifiers: two fully connected layers (the paper's), or BatchNorm and a single one.
    bnneck: the latter, and images are matched by what its BatchNorm makes of f (not in the paper)."""
    zero_init: bool = False
    """Start every residual block as its shortcut (for small networks without ImageNet weights)."""


@dataclass(frozen=True)
class OptimConfig:
    """Adam and its learning rate."""

    rate: float = 8e-4
    """Learning rate after the warm-up."""
    warm_up_from: float = 8e-6
    """Learning rate of the first step; it rises linearly from step to step."""
    warm_up_epochs: float = 20
    """Length of the warm-up."""
    schedule: Literal["step", "cosine"] = "step"
    """After the warm-up: halved every `halve_every` epochs, or down to 0 along a cosine."""
    halve_every: int = 40
    """For schedule "step": first at warm-up + this many epochs, then again and again."""
    weight_decay: float = 5e-4
    """Adam's weight decay."""


# What a setting may be. Checked when a TrainConfig is made, so that a run never starts with others.
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, math.inf),
    "seed": (0, 2**63 - 1),
    "height": (32, 4096),
    "width": (32, 4096),
    "dsap_size": (4, 256),
    "identities": (2, math.inf),
    "images": (2, math.inf),
    "accumulate": (1, math.inf),
    "network.width": (1 / 64, 8),
    "network.head_width": (1 / 32, 8),
    "optim.rate": (0, 10),
    "optim.warm_up_from": (0, 10),
    "optim.warm_up_epochs": (0, math.inf),
    "optim.halve_every": (1, math.inf),
    "optim.weight_decay": (0, 10),
    "loss.id_f": (0, math.inf),
    "loss.id_z": (0, math.inf),
    "loss.triplet_z": (0, math.inf),
    "loss.margin": (0, math.inf),
    "loss.smoothing": (0, 1),
    "loss.distill": (0, math.inf),
    "loss.temperature": (1e-3, math.inf),
    "augment.pad": (0, 4096),
    "augment.flip": (0, 1),
    "augment.erase": (0, 1),
    "augment.drop_person": (0, 1),
    "augment.drop_part": (0, 1),
}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    data: Path
    """The data set, or a store of it: dsareid data describe ROOT says what it is taken for.
    With --resume the run remembers it."""
    out: Path
    """The run's folder; it is created."""
    protocol: str = ""
    """Which split of the data set, where it has several: CUHK01's 485-s0, for example."""
    model: ModelName = "dsa"
    """dsa: both streams; dsa-global and dsa-local: with one kind of branches.
    two-branch: the MF-Stream alone. baseline: ResNet-50, global feature.
    dsap: the guiding stream alone, on DSAP-images."""
    guidance: Guidance = "add"
    """How the guide's features d steer f. add: z = f + d (the paper's).
    concat: [f, d] through one fully connected layer for each branch (Table 5).
    distill: nothing is fused, the guide's logits teach those of f (not in the paper)."""
    epochs: int = 320
    """Passes over the training set."""
    seed: int = 0
    """Of initial weights, batches and augmentation."""
    height: int = 256
    """Rows of the network's input."""
    width: int = 128
    """Columns of the network's input."""
    dsap_size: int = 32
    """Rows and columns S of a part image."""
    identities: int = 16
    """P: identities in a batch."""
    images: int = 4
    """K: images of each identity in a batch."""
    accumulate: int = 1
    """Batches whose mean gradient makes a step of the optimizer."""
    weights: str = "imagenet"
    """Where the trunk starts: "imagenet" (downloaded), "none" (random), or a file.
    A file holds torchvision's ResNet-50 as .pth or .safetensors.
    The folder of another run: all but the classifiers start where that run ended."""
    device: str = "auto"
    """auto (CUDA if there is one), cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """auto: bfloat16 or float16 on CUDA, float32 on the CPU."""
    layout: Layout = "auto"
    """How weights and features lie in memory. auto: channels_last on CUDA, contiguous on the CPU."""
    compile: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile the network with torch.compile: a few minutes at the start, faster steps after."""
    batchnorm: BatchNormKind = "batch"
    """batch: by the statistics of the batch; of several processes by each one's share of it.
    sync: of the whole batch (CUDA only).
    frozen: by the running statistics, which stay as they are, as for fine-tuning."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    guide: GuideConfig = field(default_factory=GuideConfig)

    def __post_init__(self):
        for name, (least, most) in _RANGES.items():
            value = operator.attrgetter(name)(self)
            if not least <= value <= most:  # a NaN is neither
                where = f"at least {least}" if most == math.inf else f"{least}..{most}"
                raise DSAError(f"{_flag(name)} must be {where}, not {value}")
        # The steps by which the narrowest layer stays whole: 64 channels in the trunk, 32 in the guide.
        for name, step in {"dsap_size": 4, "network.width": 1 / 64, "network.head_width": 1 / 32}.items():
            value = operator.attrgetter(name)(self)
            if value % step:
                what = f"1/{round(1 / step)}" if step < 1 else step
                raise DSAError(f"{_flag(name)} must be a multiple of {what}, not {value}")
        if min(self.network.depths) < 1:
            raise DSAError(f"--network.depths must be at least 1 each, not {self.network.depths}")
        if self.guidance != "add" and self.streams != "both":
            raise DSAError(f"--guidance {self.guidance} needs two streams, but --model {self.model} has one")

    @property
    def streams(self) -> Streams:
        """Which streams the model has."""
        return {"two-branch": "mf", "baseline": "mf", "dsap": "dsag"}.get(self.model, "both")

    @property
    def branches(self) -> Branches:
        """Which branches its streams have."""
        return {"baseline": "global", "dsa-global": "global", "dsa-local": "local"}.get(self.model, "both")

    @property
    def guided(self) -> bool:
        """Whether there is a guiding stream."""
        return self.streams != "mf"

    @property
    def needs_iuv(self) -> bool:
        return self.guided and self.guide.needs_iuv


# The paper's recipe (section 4.1); every default above is its own.
PAPER = TrainConfig(data=tyro.MISSING, out=tyro.MISSING)

# A network for two CPU cores that learns from random weights in minutes. Where it departs from the
# paper (initialisation, classifier, learning rate, IUV dropping) it does so because so small a
# network on so little data needs it; the losses, the streams and the merging are the paper's.
DEMO = TrainConfig(
    data=tyro.MISSING,
    out=tyro.MISSING,
    epochs=30,
    height=96,
    width=48,
    dsap_size=16,
    identities=12,
    images=4,
    weights="none",
    network=NetworkConfig(
        width=1 / 4, head_width=1 / 8, depths=(2, 2, 3, 2), classifier="batchnorm", zero_init=True
    ),
    optim=OptimConfig(
        rate=1.2e-2, warm_up_from=1.2e-4, warm_up_epochs=2.5, schedule="cosine", weight_decay=1e-5
    ),
    augment=AugmentConfig(pad=5, drop_person=0.3, drop_part=0.2),
)

# For comparing methods on the synthetic data set, one core, at most 8 minutes a run: the demo's network,
# trained for longer. Its learning rate was chosen for two-branch alone (studies/synthetic).
STUDY = replace(DEMO, epochs=60, precision="bfloat16", optim=replace(DEMO.optim, warm_up_epochs=5))

PRESETS: dict[str, TrainConfig] = {"paper": PAPER, "demo": DEMO, "study": STUDY}

_ADAPTER = TypeAdapter(TrainConfig)


def save_config(config: TrainConfig, path: str | os.PathLike) -> None:
    """Write the settings as JSON.

    Raises:
        DSAError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(_ADAPTER.dump_json(config, indent=2))


def load_config(path: str | os.PathLike) -> TrainConfig:
    """Read settings that save_config wrote.

    Raises:
        DSAError: the file is missing, or is not the settings of a run.
    """
    path = Path(path)
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DSAError(f"{path.parent}: not a run's folder (no {path.name} in it)") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DSAError(f"{path}: not the settings of a run: {first_problem(error)}") from error
