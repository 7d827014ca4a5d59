"""The one exception that users cause, and the one logger that tells them things."""

import logging
import os
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line starts without it
    from pydantic import ValidationError


class DSAError(Exception):
    """Something outside the program is not as it must be: a file, a folder, a setting.

    The message names the file or argument, what was expected and what came. An argument or setting that has
    a name on the command line stands in backquotes as Python spells it: `batch_size`, `optim.rate`,
    `weights="none"`, `skip_broken=True`. The command line prints the message as one line, those names as its
    flags, and exits with status 1; library users catch it as any exception.
    """


class LostOthers(DSAError):
    """Another process that torchrun started has ended; why, it says itself."""


logger = logging.getLogger("dsareid")
"""Progress is INFO; what a user should know about a result is WARNING. Silent unless a program listens."""


def quoted(value: str | os.PathLike) -> str:
    """A path or a word as a shell takes it, for commands that are to be copied."""
    return shlex.quote(os.fspath(value))


def first_problem(error: "ValidationError") -> str:
    """The first validation error, as "path: message"."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return f"{where}: {first['msg']}"
