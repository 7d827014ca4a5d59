"""What a format of an exported model is. Imports no torch, so that --help does not wait for it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dsareid.inference.network import PixelNetwork
    from dsareid.inference.settings import ModelSettings

ExportPrecision = Literal["float32", "bfloat16"]
"""What an exported network computes in."""


class LoadedModel(NamedTuple):
    """A model file, ready to be run."""

    settings: "ModelSettings"
    device: "torch.device"
    """Where `compute` takes its images."""
    compute: "Callable[[Tensor], Tensor]"
    """uint8 (B, H, W, 3) -> float32 (B, D)."""


class ModelFormat(NamedTuple):
    """A format of an exported model."""

    suffix: str
    write: "Callable[[PixelNetwork, ModelSettings, Path], None]"
    """Writes the file; DSAError where a package is missing."""
    load: Callable[[Path, str], LoadedModel]
    """Loads the file onto a device: auto, cpu, cuda or cuda:N. DSAError where it is not as we write it."""
    precisions: tuple[ExportPrecision, ...] = ("float32",)
    runs_code: bool = False
    """Whether a file made with bad intent can run code when it is loaded."""
