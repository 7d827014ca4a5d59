"""What a run's folder holds, read without the model: settings, log, evaluation."""

import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from dsareid.evaluation import EVALUATION_FILES
from dsareid.ground.errors import DSAError, first_problem


class Row(TypedDict):
    """A row of the table; fractions of 1."""

    name: str
    mAP: float
    rank1: float
    rank5: float
    rank10: float
    cmc: list[float]


class Answer(TypedDict):
    """An image of a rank list."""

    name: str
    id: int
    cam: int
    distance: float
    right: bool


class RankList(TypedDict):
    """A query and the images nearest to it."""

    query: str
    id: int
    cam: int
    ap: float
    gallery: list[Answer]


class Checkpoint(TypedDict):
    """How far the run had come when it was evaluated."""

    epoch: int
    step: int


class Evaluation(TypedDict):
    """What the report needs of RUN/evaluation.json."""

    queries: int
    skipped: int
    gallery: int
    rows: Annotated[list[Row], Field(min_length=1)]
    rank_lists: list[RankList]
    data: NotRequired[str]
    dataset: NotRequired[str]
    protocol: NotRequired[str]
    checkpoint: NotRequired[Checkpoint]


_EVALUATION = TypeAdapter(Evaluation)
# What the report shows of the settings, and what these must be.
_SETTINGS = (
    (int, "a whole number", ("height", "width", "dsap_size", "epochs")),
    (str, "text", ("data", "model", "protocol", "guidance")),
)


@dataclass(frozen=True)
class RunFiles:
    """The files of a run that the report shows; empty or None where the run has none yet.

    Attributes:
        settings: RUN/config.json as flat pairs, nested names joined by dots.
        log: the records of RUN/log.jsonl in order, every one with a "step".
        evaluations: RUN/evaluation.json and the others, as RUN/evaluation-fused.json, in that order.
    """

    run: Path
    settings: dict[str, Any]
    log: list[dict[str, Any]]
    evaluations: list[dict[str, Any]]

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The one that the page is about: by what inference has, where that is there."""
        return self.evaluations[0] if self.evaluations else None

    def setting(self, name: str, default: Any = None) -> Any:
        """The setting of this name, the least deeply nested one."""
        if name in self.settings:
            return self.settings[name]
        for key, value in self.settings.items():
            if key == name or key.endswith("." + name):
                return value
        return default

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table: the model, by each kind of features, then what it is compared with.

        An evaluation of another data set, protocol or checkpoint does not belong into the same table.
        """
        if self.evaluation is None:
            return []
        first, *compared = self.evaluation["rows"]
        same = [
            other
            for other in self.evaluations[1:]
            if all(other.get(key) == self.evaluation.get(key) for key in ("data", "protocol", "checkpoint"))
        ]
        return [first, *(row for other in same for row in other["rows"][:1]), *compared]


def read_run(run: Path) -> RunFiles:
    """Read a run's folder.

    Raises:
        DSAError: it is no run folder, or one of its files is not what `dsareid` wrote.
    """
    config = run / "config.json"
    if not config.is_file():
        raise DSAError(
            f"{run}: not a run folder: it has no config.json (the folder that was --out of "
            "dsareid train was expected)"
        )
    settings = dict(_flatten(_read_object(config)))
    found = RunFiles(
        run=run,
        settings=settings,
        log=_read_log(run / "log.jsonl"),
        evaluations=list(filter(None, (_read_evaluation(run / name) for name in EVALUATION_FILES.values()))),
    )
    for kind, what, names in _SETTINGS:
        for name in names:
            if not isinstance(value := found.setting(name), kind | None):
                raise DSAError(f"{config}: {name} must be {what}, not {reprlib.repr(value)}")
    return found


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DSAError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no JSON, or no UTF-8
        raise DSAError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DSAError(f"{path}: a JSON object was expected, not a {type(content).__name__}")
    return content


def _read_evaluation(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    evaluation = _read_object(path)
    try:
        _EVALUATION.validate_python(evaluation)
    except ValidationError as error:
        raise DSAError(
            f"{path}: not as dsareid eval writes it; run that again ({first_problem(error)})"
        ) from error
    return evaluation


def _read_log(path: Path) -> list[dict[str, Any]]:
    """The records with a step. A line that is cut short, as of a run that goes on, is left out."""
    if not path.exists():
        return []
    records = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DSAError(f"cannot read {path}: {error.strerror}") from error
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
    return isinstance(value, int) and abs(value) >= 1 << 53


def _flatten(settings: dict[str, Any], prefix: str = ""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
