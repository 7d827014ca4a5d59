"""The settings that a model file holds."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from annotated_types import Gt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsareid.ground.errors import DSAError, first_problem
from dsareid.inference.formats.base import Convention, ExportPrecision
from dsareid.models.options import (
    RESNET,
    ClassifierKind,
    Depth,
    HeadWidth,
    InputSide,
    TrunkStage,
    TrunkWidth,
)
from dsareid.models.table import Branches

METADATA = "dsareid"
"""The name under which a file holds its settings, as JSON."""


class ModelSettings(BaseModel):
    """The settings of an exported model: its size, its precision, its layers, its identity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["dsareid MF-Stream"] = "dsareid MF-Stream"
    version: Literal[1] = 1
    model: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """The model's identity: 16 hex digits over its settings and weights, see network.identity."""
    height: InputSide
    width: InputSide
    dimension: Annotated[int, Field(ge=1, le=1 << 20)]
    precision: ExportPrecision = "float32"
    """The type that the network computes in; the types of images and features do not depend on it."""
    convention: Convention = "dsareid"
    """How a graph takes its images."""
    image: str = (
        "uint8 (B, height, width, 3) RGB, resized to this size bilinearly as Pillow does; "
        "normalised inside of the network"
    )
    features: str = "float32 (B, dimension): f_G and f_L of the MF-Stream, each L2-normalised, side by side"
    branches: Branches
    trunk: str = RESNET
    trunk_stage: TrunkStage = "sixteenth"
    network_width: TrunkWidth
    head_width: HeadWidth
    depths: tuple[Depth, Depth, Depth, Depth]
    classifier: ClassifierKind

    @property
    def pieces(self) -> int:
        """How many pieces of one length a feature has, each of norm 1."""
        return 2 if self.branches == "both" else 1

    @property
    def description(self) -> str:
        """Of the features, for people."""
        return f"f of the MF-Stream, {self.precision}"


class Facts(BaseModel):
    """What another network than ours takes and gives, as far as it is known; None: not stated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: InputSide | None = None
    width: InputSide | None = None
    mean: tuple[float, float, float] | None = None
    """Of red, green and blue, where white is 1."""
    std: tuple[Annotated[float, Gt(0)], Annotated[float, Gt(0)], Annotated[float, Gt(0)]] | None = None
    layout: Literal["NCHW", "NHWC"] | None = None
    channels: Literal["RGB", "BGR"] | None = None
    output: str | None = None
    """Of a file with several outputs, the name of the features."""
    weights: str | None = None
    """Of a network by name, the file of its weights; None: its library's own."""

    @property
    def stated(self) -> bool:
        """Whether anything is stated."""
        return self != Facts()


class OtherSettings(BaseModel):
    """The settings of another network than ours: where it comes from, and its facts, all known."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """The model's identity: 16 hex digits over its file or weights, and its facts."""
    source: str
    """A file's name, or timm:NAME or torchvision:NAME."""
    dimension: Annotated[int, Field(ge=1, le=1 << 20)]
    height: InputSide
    width: InputSide
    facts: Facts
    precision: str = "float32"
    pieces: ClassVar[int] = 1

    @property
    def description(self) -> str:
        """Of the features, for people."""
        facts = self.facts
        mean, std = (" ".join(f"{x:g}" for x in values or ()) for values in (facts.mean, facts.std))
        return (
            f"output of {self.source}, L2-normalised; input {self.height}x{self.width}, mean {mean}, "
            f"std {std}, {facts.layout}, {facts.channels}"
        )


AnySettings = ModelSettings | OtherSettings


def parse_settings(path: Path, text: str | None) -> ModelSettings:
    """The settings in a file.

    Raises:
        DSAError: there are none, or they are not as `dsareid export` writes them.
    """
    if text is None:
        raise DSAError(f"{path}: holds no settings of dsareid; expected a file that dsareid export wrote")
    try:
        return ModelSettings.model_validate_json(text)
    except ValidationError as error:
        raise DSAError(
            f"{path}: not the settings that dsareid export writes: {first_problem(error)}"
        ) from error
