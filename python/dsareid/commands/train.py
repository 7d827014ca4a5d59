"""dsareid train"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dsareid.commands.options import peek
from dsareid.engine import PRESETS, TrainConfig, train
from dsareid.runs.config import load_config
from dsareid.runs.folder import CONFIG


def build(arguments: list[str]) -> Callable[..., None]:
    chosen = peek(arguments)
    default = PRESETS.get(chosen.preset, PRESETS["paper"])
    if chosen.resume and chosen.out:
        default = load_config(Path(chosen.out) / CONFIG)  # a resumed run keeps its settings

    def command(
        config: Annotated[TrainConfig, tyro.conf.arg(name="")] = default,
        preset: Literal[tuple(PRESETS)] = "paper",
        resume: tyro.conf.FlagCreatePairsOff[bool] = False,
    ) -> None:
        """Train a network. The images are decoded once, into a store; DSAP-images are warped on the fly.

        Args:
            preset: paper: the paper's recipe.
                demo: a small network that learns from random weights on two cores in minutes.
                study: the same for longer, to compare methods on the synthetic data set.
                The defaults below are those of the chosen preset.
            resume: Go on with the run in --out, with its settings.
        """
        # Absolute: `dsareid eval RUN` is to find the data from any folder.
        train(dataclasses.replace(config, data=config.data.absolute()), resume=resume)

    return command
