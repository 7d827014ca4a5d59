"""A run's log: one JSON object for each step, and the same for tensorboard."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path

_MOST_EXACT = 1 << 53  # larger integers are not exact as floats


class Log:
    """Writes log.jsonl and tensorboard's files. A resumed run continues them where its checkpoint stands.

    Every method raises DSAError if the files cannot be written (a full disk).

    Args:
        path: the log.
        board: the folder for tensorboard.
        step: the checkpoint's; lines that an earlier call logged after it are dropped.
    """

    def __init__(self, path: Path, board: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter

        self.path = path
        kept: list[str] = []
        if path.exists():
            with self._naming_the_log():
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= step]
        with atomic_path(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")
        with self._naming_the_log():
            self.file = path.open("a", encoding="utf-8")
            self.board = SummaryWriter(board, purge_step=step + 1 if step else None)

    def write(self, step: int, values: dict[str, float]) -> None:
        with self._naming_the_log():
            self.file.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def flush(self) -> None:
        with self._naming_the_log():
            self.file.flush()
            self.board.flush()

    def close(self) -> None:
        with self._naming_the_log():
            self.file.close()
            self.board.close()

    @contextlib.contextmanager
    def _naming_the_log(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DSAError(f"cannot read or write the log {self.path}: {error.strerror or error}") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log, each with a "step"; none if there is no log.

    Lines that are cut short are left out: the run may still be training.

    Raises:
        DSAError: it cannot be read.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(record, dict):
            continue
        record = {key: value for key, value in record.items() if not _is_beyond_float(value)}
        if isinstance(record.get("step"), (int, float)):
            records.append(record)
    return records


def _is_beyond_float(value: Any) -> bool:
    return isinstance(value, int) and abs(value) >= _MOST_EXACT


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return float("inf")  # the torn last line of a run that was killed
