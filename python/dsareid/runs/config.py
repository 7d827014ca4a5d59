"""All settings of a training run, as typed dataclasses, without torch."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import TypeAdapter, ValidationError

from dsareid.data.augment import AugmentConfig
from dsareid.ground.bounds import check_bounds
from dsareid.ground.errors import DSAError, first_problem
from dsareid.ground.files import atomic_path, check_is_text
from dsareid.models.options import (
    GUIDE_INPUT_NEEDS_IUV,
    RESNET,
    Guidance,
    GuideInputName,
    InputSide,
    LossConfig,
    NetworkConfig,
    PartSide,
)
from dsareid.models.table import MODELS, Branches, ModelName, Streams

Precision = Literal["auto", "float32", "bfloat16", "float16"]
MemoryLayout = Literal["auto", "channels_last", "contiguous"]
BatchNormKind = Literal["batch", "sync", "frozen"]

Rate = Annotated[float, Ge(0), Le(10)]
AtLeastOne = Annotated[int, Ge(1)]
AtLeastTwo = Annotated[int, Ge(2)]


@dataclass(frozen=True)
class OptimConfig:
    """Adam and its learning rate."""

    rate: Rate = 8e-4
    """Learning rate after the warm-up."""
    warm_up_from: Rate = 8e-6
    """Learning rate of the first step; it rises linearly from step to step."""
    warm_up_epochs: Annotated[float, Ge(0)] = 20
    """Length of the warm-up."""
    schedule: Literal["step", "cosine"] = "step"
    """After the warm-up: halved every `halve_every` epochs, or down to 0 along a cosine."""
    halve_every: AtLeastOne = 40
    """For schedule "step": first at warm-up + this many epochs, then again and again."""
    weight_decay: Rate = 5e-4
    """Adam's weight decay."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are the paper's recipe (section 4.1).

    Raises:
        DSAError: a setting out of its bounds, or settings that exclude each other.
    """

    data: Path
    """The data set, or a store of it: dsareid data describe ROOT says what it is taken for.
    With resume the run remembers it."""
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
    guide_input: GuideInputName = "part-images"
    """part-images: the 24 DSAP-images, densely aligned (the paper's).
    part-crops: the 24 parts cut out, not aligned inside (CSA, Table 4).
    image-patches: 24 patches of a grid, which take no DensePose at all (a control, not in the paper)."""
    epochs: AtLeastOne = 320
    """Passes over the training set."""
    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    """Seed of initial weights, batches and augmentation."""
    height: InputSide = 256
    """Rows of the network's input."""
    width: InputSide = 128
    """Columns of the network's input."""
    dsap_size: PartSide = 32
    """Rows and columns S of a part image."""
    identities: AtLeastTwo = 16
    """P: identities in a batch."""
    images: AtLeastTwo = 4
    """K: images of each identity in a batch."""
    accumulate: AtLeastOne = 1
    """Batches whose mean gradient makes a step of the optimizer."""
    weights: str = "imagenet"
    """Where the trunk starts: "imagenet" (downloaded), "none" (random), or a file.
    A file, .pth or .safetensors, holds torchvision's ResNet-50, or the model of timm that is the trunk, by
    timm's names or another's: a state dict, or a checkpoint with one in it, whose names may have a prefix,
    as "module.".
    The folder of another run: all but the classifiers start where that run ended."""
    device: str = "auto"
    """auto (CUDA if there is one), cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """auto: bfloat16 or float16 on CUDA, float32 on the CPU."""
    layout: MemoryLayout = "auto"
    """How weights and features lie in memory. auto: channels_last on CUDA, contiguous on the CPU."""
    compile: bool = False
    """Compile the network with torch.compile: a few minutes at the start, faster steps after."""
    batchnorm: BatchNormKind = "batch"
    """batch: by the statistics of the batch; of several processes by each one's share of it.
    sync: of the whole batch (CUDA only).
    frozen: by the running statistics, which stay as they are, as for fine-tuning."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_bounds(self)
        for path in (self.data, self.out):
            if isinstance(path, Path):  # the command line leaves them open at first
                check_is_text(path)
        if self.guidance != "add" and self.streams != "both":
            raise DSAError(f"`guidance={self.guidance}` needs two streams, but `model={self.model}` has one")

    @property
    def streams(self) -> Streams:
        """Which streams the model has."""
        return MODELS[self.model].streams

    @property
    def branches(self) -> Branches:
        """Which branches its streams have."""
        return MODELS[self.model].branches

    @property
    def guide(self) -> GuideInputName | None:
        """What its guiding stream is given; None without one."""
        return None if self.streams == "mf" else self.guide_input

    @property
    def needs_iuv(self) -> bool:
        """Whether training needs an IUV map for each image."""
        return self.guide is not None and GUIDE_INPUT_NEEDS_IUV[self.guide]

    @property
    def title(self) -> str:
        """The model in a table, with what makes it another than the method."""
        changes = f" ({', '.join(self.differences)})" if self.differences else ""
        return MODELS[self.model].title + changes

    @property
    def differences(self) -> list[str]:
        """What makes trunk and guide others than the method's."""
        found = [self.network.trunk] if self.network.trunk != RESNET and self.streams != "dsag" else []
        found += [self.guidance] if self.guidance != "add" else []
        return found + ([self.guide] if self.guide not in (None, "part-images") else [])


CONFIG = "config.json"
"""Its name in a run's folder."""

_ADAPTER = TypeAdapter(TrainConfig)


def config_values(config: TrainConfig) -> dict[str, Any]:
    """The settings as plain values, nested as the dataclasses are."""
    return _ADAPTER.dump_python(config, mode="json")


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
    except DSAError as error:  # of settings that exclude each other
        raise DSAError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise DSAError(f"{path.parent}: not a run's folder (no {path.name} in it)") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DSAError(f"{path}: not the settings of a run: {first_problem(error)}") from error
