"""The types of arguments that several commands take."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from dsareid.ground.errors import DSAError, first_problem

if TYPE_CHECKING:
    from dsareid.data.layouts.base import MakeMaps
    from dsareid.inference.settings import Facts

ModelPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
RootPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
DataOption = Annotated[Path | None, tyro.conf.arg(metavar="ROOT")]
FileOption = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
BoxOption = Annotated[str | None, tyro.conf.arg(metavar="X0,Y0,X1,Y1")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value: there is --name, and no --no-name."""


@dataclass
class OtherNetwork:
    """Only for another network than ours: what neither its file nor its library says."""

    input: Annotated[str | None, tyro.conf.arg(metavar="HEIGHTxWIDTH")] = None
    """The size of its images, such as 256x128."""
    mean: tuple[float, float, float] | None = None
    """What is subtracted from red, green and blue, where white is 1; default: timm's, or ImageNet's."""
    std: tuple[float, float, float] | None = None
    """What they are divided by then; default: timm's, or ImageNet's."""
    layout: Literal["NCHW", "NHWC"] | None = None
    """The order of its input's axes; default: the file's, or NCHW."""
    channels: Literal["RGB", "BGR"] | None = None
    """The order of its channels; default: RGB."""
    output: str | None = None
    """Which output of an ONNX file holds the features."""
    weights: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    """The weights of timm:NAME or torchvision:NAME; default: the library's own, downloaded once."""

    def facts(self) -> "Facts | None":
        """What is stated; None if nothing is. DSAError if the size is no size, or a number does not do."""
        from pydantic import ValidationError

        from dsareid.inference.settings import Facts

        stated = {name: value for name, value in vars(self).items() if value is not None}
        if text := stated.pop("input", None):
            height, _, width = text.partition("x")
            if not (height.isdecimal() and width.isdecimal() and len(text) < 16):
                raise DSAError(f"`input` must be HEIGHTxWIDTH, such as 256x128, not {text!r}")
            stated |= {"height": int(height), "width": int(width)}
        try:
            return Facts(**stated) if stated else None
        except ValidationError as error:
            raise DSAError(f"`{first_problem(error).replace(':', '`:', 1)}") from error


OtherOption = Annotated[OtherNetwork, tyro.conf.OmitArgPrefixes]


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
