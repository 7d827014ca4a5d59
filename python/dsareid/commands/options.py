"""The types of arguments that several commands take, and the options that are read before all others."""

import argparse
from pathlib import Path
from typing import Annotated

import tyro

from dsareid.engine.presets import PRESETS, PresetName

ModelPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
DataOption = Annotated[Path | None, tyro.conf.arg(metavar="ROOT")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value: there is --name, and no --no-name."""


def peek(arguments: list[str]) -> argparse.Namespace:
    """The options that decide about the defaults of all others: preset, resume and out."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?", default="paper")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--out", nargs="?")
    return parser.parse_known_args(arguments)[0]


def known_preset(name: str) -> PresetName:
    """The preset of this name, for defaults; of another name the paper's, until tyro refuses it."""
    return next((known for known in PRESETS if known == name), "paper")
