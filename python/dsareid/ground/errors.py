"""The exception for faults of the user, and the logger for messages to the user."""

import logging
import os
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line starts without it
    from pydantic import ValidationError


class DSAError(Exception):
    """A file, a folder or a setting from outside the program is wrong.

    The message names the file or argument, what was expected and what came. Arguments and settings that are
    also flags stand in backquotes, as Python spells them: `batch_size`, `optim.rate`, `weights="none"`,
    `skip_broken=True`. The command line turns these names into its flags, prints the message as one line and
    exits with status 1; library users catch it like any exception.
    """


class LostOthers(DSAError):
    """Another process that torchrun started has ended; its own output says why."""


logger = logging.getLogger("dsareid")
"""Progress is INFO; what a user should know about a result is WARNING. Silent unless a program listens."""


def quoted(value: str | os.PathLike) -> str:
    """A path or word quoted for a shell, for commands that users copy from a message."""
    return shlex.quote(os.fspath(value))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def first_problem(error: "ValidationError") -> str:
    """The first validation error, as "path: message"."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return f"{where}: {first['msg']}"
