"""dsareid describe"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from dsareid.commands.options import peek
from dsareid.cost.describe import describe
from dsareid.data.batch import GuideConfig
from dsareid.engine import PRESETS
from dsareid.models.reid import Guidance
from dsareid.runs.config import ModelName, NetworkConfig, Precision
from dsareid.runs.folder import choose_device


def build(arguments: list[str]) -> Callable[..., None]:
    default = PRESETS.get(peek(arguments).preset, PRESETS["paper"])

    def command(
        preset: Literal["paper", "demo", "study"] = "paper",
        model: ModelName = default.model,
        guidance: Guidance = default.guidance,
        height: int = default.height,
        width: int = default.width,
        dsap_size: int = default.dsap_size,
        num_classes: int = 751,
        batch_size: int = 8,
        device: str = "auto",
        precision: Precision = default.precision,
        network: NetworkConfig = default.network,
        guide: GuideConfig = default.guide,
    ) -> None:
        """Say what a network costs and what its guide adds: parameters, multiply-adds, time, memory.

        Args:
            preset: Whose network it is. The defaults below are those of the chosen preset.
            model: As for train.
            guidance: As for train.
            height: Rows of the network's input.
            width: Columns of the network's input.
            dsap_size: Rows and columns S of a part image.
            num_classes: Identities that the classifiers tell apart; Market-1501 has 751 to train on.
            batch_size: Images at a time, of what is measured.
            device: auto (CUDA if there is one), cpu, cuda or cuda:N.
            precision: Of the training step. Inference is in float32.
        """
        config = dataclasses.replace(
            default,
            data=Path(),
            out=Path(),
            model=model,
            guidance=guidance,
            height=height,
            width=width,
            dsap_size=dsap_size,
            device=device,
            precision=precision,
            network=network,
            guide=guide,
        )
        for text in describe(config, num_classes, batch_size, choose_device(device)):
            print(text, end="\n\n", flush=True)

    return command
