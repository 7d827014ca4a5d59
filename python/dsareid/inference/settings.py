"""The settings that a model file holds."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsareid.ground.errors import DSAError, first_problem
from dsareid.inference.formats.base import ExportPrecision
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
