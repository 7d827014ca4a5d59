"""One folder, several processes: who has it open, and where that one answers others.

crowd.db.served     beside the folder, while `dsareid gallery serve` has it open
"""

import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from dsareid.ground.errors import DSAError


class Served(BaseModel):
    """Beside a folder: where the process that has it open answers others."""

    address: Annotated[str, Field(pattern=r"^http://127\.0\.0\.1:\d{1,5}$")]
    process: Annotated[int, Field(gt=0)]
    gallery: str
    """The gallery's own name."""


def served_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.served")


def find_served(path: Path) -> Served:
    """Where the process that has a folder open answers.

    Raises:
        DSAError: it does not.
    """
    try:
        served = Served.model_validate_json(served_file(path).read_bytes())
        os.kill(served.process, 0)  # asks only whether it lives
    except PermissionError:  # it does, and is another user's
        return served
    except (OSError, ValidationError) as error:
        raise DSAError(in_use(path)) from error
    return served


def in_use(path: Path | None) -> str:
    return (
        f"{path}: in use by another process, and a folder has one at a time: wait until it has ended; "
        "dsareid gallery serve lets others use the folder meanwhile"
    )


def is_free(path: Path) -> bool:
    """Whether no other process has a folder open.

    Raises:
        DSAError: its lock cannot be opened.
    """
    lock = path / "LOCK"
    if not lock.exists():
        return True
    try:
        import fcntl

        with lock.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on this system; Milvus Lite finds out
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        raise DSAError(f"{lock}: cannot be opened: {error.strerror}") from error
    return True
