"""The types of arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import tyro

ModelPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
OutPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
RootPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ROOT")]
DataOption = Annotated[Path | None, tyro.conf.arg(metavar="ROOT")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
"""An option without a value: there is --name, and no --no-name."""
