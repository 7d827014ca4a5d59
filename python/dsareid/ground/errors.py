"""The one exception that users cause."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line starts without it
    from pydantic import ValidationError


class DSAError(Exception):
    """Something outside the program is not as it must be: a file, a folder, a setting.

    The message names the file or argument, what was expected and what came. The command line
    prints it as one line and exits with status 1; library users catch it as any exception.
    """


def first_problem(error: "ValidationError") -> str:
    """What first keeps content from outside from being as it must be: where in it, and what is wrong."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    return f"{where}: {first['msg']}"
