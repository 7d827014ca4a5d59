"""The types of arguments that several commands take."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dsareid.ground.errors import DSAError

if TYPE_CHECKING:
    from dsareid.data.layouts.base import MakeMaps

ModelPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
RootPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
DataOption = Annotated[Path | None, tyro.conf.arg(metavar="ROOT")]
FileOption = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
BoxOption = Annotated[str | None, tyro.conf.arg(metavar="X0,Y0,X1,Y1")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value: there is --name, and no --no-name."""


def parse_box(text: str | None) -> tuple[int, int, int, int] | None:
    """The four numbers of a BoxOption; DSAError if they are none."""
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = map(int, text.split(","))
    except ValueError as error:
        raise DSAError(f"--box must be x0,y0,x1,y1 in whole pixels, not {text!r}") from error
    return x0, y0, x1, y1


def maps_maker(estimate: bool, device: str = "auto") -> "MakeMaps | None":
    """The function that makes missing maps; None without the option `estimate`."""
    if not estimate:
        return None
    from dsareid.densepose import estimate_missing

    return functools.partial(estimate_missing, device=device)
