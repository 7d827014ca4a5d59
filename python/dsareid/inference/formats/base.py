"""The parts of an export format. Imports no torch, so that --help does not wait for it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dsareid.inference.network import PixelNetwork
    from dsareid.inference.settings import AnySettings, ModelSettings

ExportPrecision = Literal["float32", "bfloat16"]
"""The type that an exported network computes in."""


Convention = Literal["dsareid", "torchreid", "ultralytics"]
"""How a graph takes its images:

- dsareid: uint8 (B, H, W, 3); the graph normalises them;
- torchreid: float32 (B, 3, H, W), normalised by ImageNet's mean and standard deviation, as by torchreid and
  boxmot;
- ultralytics: float32 (B, 3, H, H), 0..1, crops stretched to squares; the graph squeezes and normalises them.
"""


class LoadedModel(NamedTuple):
    """A model file, ready to be run."""

    settings: "AnySettings"
    device: "torch.device"
    """The device of the images that `compute` takes."""
    compute: "Callable[[Tensor], Tensor]"
    """uint8 (B, H, W, 3) -> float32 (B, D)."""


class ModelFormat(NamedTuple):
    """A format of an exported model."""

    suffix: str
    write: "Callable[[PixelNetwork, ModelSettings, Path], None]"
    """Writes the file; DSAError if a package is missing."""
    load: Callable[[Path, str], LoadedModel]
    """Loads the file onto a device: auto, cpu, cuda or cuda:N. DSAError if it is not as `write` writes it."""
    precisions: tuple[ExportPrecision, ...] = ("float32",)
    conventions: tuple[Convention, ...] = ("dsareid",)
    runs_code: bool = False
    """Whether a malicious file can run code when it is loaded."""
