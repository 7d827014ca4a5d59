"""dsareid train"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.early_options import known_preset, peek
from dsareid.commands.options import Flag, maps_maker
from dsareid.engine.presets import PresetName, preset
from dsareid.runs.config import CONFIG, TrainConfig, load_config


def build(arguments: list[str]) -> Callable[..., None]:
    chosen = peek(arguments)
    if chosen.resume and chosen.out:
        default = load_config(Path(chosen.out) / CONFIG)  # a resumed run keeps its settings
    else:
        name = known_preset(chosen.preset)
        default = preset(name, tyro.MISSING, tyro.MISSING, trunk=chosen.trunk)  # MISSING: tyro asks for both

    def command(
        config: Annotated[TrainConfig, tyro.conf.arg(name=""), tyro.conf.FlagCreatePairsOff] = default,
        preset: PresetName = "paper",
        resume: Flag = False,
        estimate: Flag = False,
    ) -> None:
        """Train a network. The images are decoded once, into a store; DSAP-images are warped on the fly.

        Args:
            preset: paper: the paper's recipe.
                small: MobileNetV2 with ImageNet weights at 128x64, for a machine without a GPU: minutes on
                CUHK03.
                demo: a small network that learns from random weights on two cores in minutes.
                study: demo's network trained for longer, to compare methods on the synthetic data set.
                Sets the defaults below.
            resume: Resume the run in --out, with its settings.
            estimate: If the network needs IUV maps, first estimate the missing ones, as densepose estimate
                ROOT does.
        """
        from dsareid.engine.loop import train

        # Absolute, so that `dsareid eval RUN` finds the data from any folder.
        absolute = dataclasses.replace(config, data=config.data.absolute())
        train(absolute, resume=resume, make_maps=maps_maker(estimate, config.device))

    return command
