"""dsareid describe"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from dsareid.commands.early_options import known_preset, peek
from dsareid.engine.presets import PresetName, preset
from dsareid.models.options import Guidance, GuideInputName, NetworkConfig
from dsareid.models.table import ModelName
from dsareid.runs.config import Precision


def build(arguments: list[str]) -> Callable[..., None]:
    chosen = peek(arguments)
    default = preset(known_preset(chosen.preset), Path(), Path(), trunk=chosen.trunk)

    def command(
        preset: PresetName = "paper",
        model: ModelName = default.model,
        guidance: Guidance = default.guidance,
        guide_input: GuideInputName = default.guide_input,
        height: int = default.height,
        width: int = default.width,
        dsap_size: int = default.dsap_size,
        num_classes: int = 751,
        batch_size: int = 8,
        device: str = "auto",
        precision: Precision = default.precision,
        network: NetworkConfig = default.network,
    ) -> None:
        """Measure what a network costs and what its guide adds: parameters, multiply-adds, time, memory.

        Args:
            preset: Sets the defaults below.
            model: As for train.
            guidance: As for train.
            guide_input: As for train.
            height: Rows of the network's input.
            width: Columns of the network's input.
            dsap_size: Rows and columns S of a part image.
            num_classes: Identities that the classifiers tell apart; Market-1501 has 751 to train on.
            batch_size: Images in a measured batch.
            device: auto (CUDA if there is one), cpu, cuda or cuda:N.
            precision: Precision of the training step. Inference is in float32.
        """
        from dsareid.cost.tables import cost_tables
        from dsareid.ground.distributed import choose_device

        config = dataclasses.replace(
            default,
            model=model,
            guidance=guidance,
            guide_input=guide_input,
            height=height,
            width=width,
            dsap_size=dsap_size,
            device=device,
            precision=precision,
            network=network,
        )
        for text in cost_tables(config, num_classes, batch_size, choose_device(device)):
            print(text, end="\n\n", flush=True)

    return command
