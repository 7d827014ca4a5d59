"""How paths are given on the command line."""

from pathlib import Path
from typing import Annotated

import tyro


def positional(name: str):
    """The type of a path given by position; `name` is what --help calls it."""
    return Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar=name)]


def optional_path(name: str):
    """The type of an option that may be left out; `name` stands for its value in --help."""
    return Annotated[Path | None, tyro.conf.arg(metavar=name)]
