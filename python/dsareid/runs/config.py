"""All settings of a training run, as typed dataclasses, without torch."""

import math
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
    INPUTS_OF_GUIDANCE,
    RESNET,
    STREAM_GUIDANCE,
    Guidance,
    GuideInputName,
    InputName,
    InputSide,
    LossConfig,
    NetworkConfig,
    PartSide,
)
from dsareid.models.table import MODELS, Branches, ModelName, Streams

Precision = Literal["auto", "float32", "bfloat16", "float16"]
MemoryLayout = Literal["auto", "channels_last", "contiguous"]
Convolution = Literal["auto", "grouped", "planes", "channels_last", "pairs", "patches"]
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
    """For schedule "step": epochs from the warm-up to the first halving, and between halvings."""
    weight_decay: Rate = 5e-4
    """Adam's weight decay."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run; the defaults are the paper's recipe (section 4.1).

    Raises:
        DSAError: a setting out of its bounds, or settings that exclude each other.
    """

    data: Path
    """The data set, or a store of it: dsareid data describe ROOT says what it is recognised as.
    Not needed with resume: the run remembers it."""
    out: Path
    """The run's folder; it is created."""
    protocol: str = ""
    """Which split of the data set, if it has several: for example CUHK01's 485-s0."""
    model: ModelName = "dsa"
    """dsa: both streams; dsa-global and dsa-local: with one kind of branches.
    two-branch: the MF-Stream alone. baseline: ResNet-50, global feature.
    dsap: the guiding stream alone, on DSAP-images."""
    guidance: Guidance = "add"
    """How the guide's features d steer f. add: z = f + d (the paper's).
    gate: the same for every other image of a batch, z = f for the rest (not in the paper).
    concat: [f, d] through one fully connected layer for each branch (Table 5).
    distill: nothing is fused, the guide's logits teach those of f (not in the paper).
    pool: the trunk's features are pooled into eight parts, each with an ID loss (not in the paper).
    texture: a head on f predicts the person's texture, as all views show it (not in the paper)."""
    guide_input: GuideInputName = "part-images"
    """part-images: the 24 DSAP-images, densely aligned (the paper's).
    part-crops: the 24 parts cut out, not aligned inside (CSA, Table 4).
    masked-patches: 24 patches of a grid, without the background (a control, not in the paper).
    image-patches: 24 patches of a grid, without DensePose (a control, not in the paper).
    With guidance pool and texture it stands for the image's map and the person's texture.
    Controls: others (another person's); for pool stripes; for texture pictures (a mean picture)."""
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
    """Batches per optimizer step, which uses their mean gradient."""
    weights: str = "imagenet"
    """The trunk's initial weights: "imagenet" (downloaded), "none" (random), a file, or a run's folder.
    A .pth or .safetensors file holds torchvision's ResNet-50, or the trunk's timm model with timm's or other
    names: a state dict, or a checkpoint that contains one. Names may have a prefix, such as "module.".
    From another run's folder, all weights but the classifiers' are loaded."""
    device: str = "auto"
    """auto (CUDA if there is one), cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """auto: bfloat16 or float16 on CUDA, float32 on the CPU."""
    layout: MemoryLayout = "auto"
    """How weights and features lie in memory. auto: channels_last on CUDA, contiguous on the CPU."""
    convolution: Convolution = "auto"
    """How the convolutions of the branches are computed; all ways give the same up to rounding.
    auto: on CUDA, without compile, the fastest, as the first run on that card measured it."""
    compile: bool = False
    """Compile the network with torch.compile: a few minutes at the start, faster steps after."""
    batchnorm: BatchNormKind = "batch"
    """batch: normalise by the batch's statistics; with several processes, by those of each one's share.
    sync: by those of the whole batch (CUDA only).
    frozen: by the running statistics, which do not change (for fine-tuning)."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        check_bounds(self)
        for path in (self.data, self.out):
            if isinstance(path, Path):  # the command line leaves them open at first
                check_is_text(path)
        if self.guidance != "add" and MODELS[self.model].streams != "both":
            raise DSAError(f"`guidance={self.guidance}` needs two streams, but `model={self.model}` has one")
        allowed = INPUTS_OF_GUIDANCE[self.guidance]
        if self.guide_input not in allowed:
            raise DSAError(
                f"`guidance={self.guidance}` takes `guide_input` {', '.join(allowed)}, not {self.guide_input}"
            )

    @property
    def streams(self) -> Streams:
        """Which streams the model has."""
        return MODELS[self.model].streams if self.guidance in STREAM_GUIDANCE else "mf"

    @property
    def branches(self) -> Branches:
        """Which branches its streams have."""
        return MODELS[self.model].branches

    @property
    def guide(self) -> InputName | None:
        """The guide's input; None without a guide."""
        if self.guidance == "pool":
            return "part-map" if self.guide_input == "part-images" else self.guide_input
        return None if self.streams == "mf" else self.guide_input

    @property
    def needs_iuv(self) -> bool:
        """Whether training needs an IUV map for each image."""
        seen = self.guide_input if self.guidance == "texture" else self.guide
        return seen is not None and GUIDE_INPUT_NEEDS_IUV[seen]

    @property
    def target_length(self) -> int:
        """How many values guidance texture predicts of a person; 0 for any other guidance."""
        if self.guidance != "texture":
            return 0
        if self.guide_input == "pictures":
            return 3 * math.prod(self.picture)
        return 3 * 13 * self.dsap_size**2

    @property
    def picture(self) -> tuple[int, int]:
        """Rows and columns of a person's mean picture, a control of guidance texture."""
        return self.height // 2, self.width // 2

    @property
    def title(self) -> str:
        """The model's name in tables, with its differences from the paper's method."""
        changes = f" ({', '.join(self.differences)})" if self.differences else ""
        return MODELS[self.model].title + changes

    @property
    def about(self) -> str:
        """A description in one line, without its differences from the paper's method."""
        if self.guidance in STREAM_GUIDANCE:
            return MODELS[self.model].about
        return "the MF-Stream, with a head that is there in training only"

    @property
    def differences(self) -> list[str]:
        """Trunk, guidance and guide input, if they are not the paper's."""
        found = [self.network.trunk] if self.network.trunk != RESNET and self.streams != "dsag" else []
        found += [self.guidance] if self.guidance != "add" else []
        alone = MODELS[self.model].streams == "mf"
        return found + ([self.guide_input] if self.guide_input != "part-images" and not alone else [])


CONFIG = "config.json"
"""The name of the settings' file in a run's folder."""

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
    except DSAError as error:  # settings that exclude each other
        raise DSAError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise DSAError(f"{path.parent}: not a run's folder (no {path.name} in it)") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DSAError(f"{path}: not the settings of a run: {first_problem(error)}") from error
