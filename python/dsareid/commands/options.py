"""The types of arguments that several commands take."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from dsareid.data.layouts.base import MakeMaps

ModelPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
RootPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
DataOption = Annotated[Path | None, tyro.conf.arg(metavar="ROOT")]
FileOption = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value: there is --name, and no --no-name."""


def maps_maker(estimate: bool, device: str = "auto") -> "MakeMaps | None":
    """The function that makes missing maps; None without the option `estimate`."""
    if not estimate:
        return None
    from dsareid.densepose import estimate_missing

    return functools.partial(estimate_missing, device=device)
