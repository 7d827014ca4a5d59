"""The results of an evaluation: one schema, to write and to read RUN/evaluation*.json."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dsareid.ground.errors import DSAError, first_problem
from dsareid.ground.files import atomic_path
from dsareid.models.table import MatchedBy, ModelName

RANKS = (1, 5, 10)
"""Ranks of the CMC in a table."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Row(_Record):
    """A row of the table; fractions of 1."""

    name: str
    mAP: float
    mINP: float
    tpr: list[float | None] = []
    """True-positive rates over pairs at verification.RATES, None if there are too few pairs. Empty for
    chance, whose true-positive rates are verification.RATES themselves."""
    cmc: Annotated[list[float], Field(min_length=max(RANKS))]
    """cmc[k - 1]: the share of queries with a match among the first k."""

    def rank(self, k: int) -> float:
        return self.cmc[k - 1]


class Answer(_Record):
    """An image of a rank list."""

    name: str
    identity: str
    """As the data set writes it; "0" is a distractor."""
    camera: str | None
    """None if not known."""
    distance: float
    right: bool


class RankList(_Record):
    """A query and the images nearest to it."""

    query: str
    identity: str
    camera: str | None
    ap: float
    gallery: list[Answer]


class EvaluatedAt(_Record):
    """How far the run had come when it was evaluated."""

    epoch: int
    step: int


class Evaluation(_Record):
    """An evaluation of a run by one kind of features, on one data set by one protocol."""

    data: str
    """The data set's root, or a store of it."""
    dataset: str
    """Its name."""
    protocol: str
    synthetic: bool
    features: MatchedBy
    reranked: bool
    """Whether the first row is for re-ranked distances, and the second for plain ones."""
    model: ModelName
    checkpoint: EvaluatedAt
    queries: int
    skipped: int
    """Queries without a match in the gallery, which do not count."""
    notes: list[str] = []
    """Notes beside the table, a line each."""
    gallery: int
    rows: Annotated[list[Row], Field(min_length=1)]
    """Rows of the model."""
    baselines: list[Row]
    """Rows for colour histograms and chance."""
    rank_lists: list[RankList]


def write_evaluation(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write an evaluation as JSON.

    Raises:
        DSAError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_evaluation(path: Path) -> Evaluation:
    """Read what write_evaluation wrote.

    Raises:
        DSAError: the file cannot be read, or is something else.
    """
    try:
        return Evaluation.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DSAError(
            f"{path}: not what dsareid eval writes: {first_problem(error)}; run dsareid eval again, or "
            "remove the file"
        ) from error


class QueryLine(_Record):
    """The result of one query; None in `ap`, `inp` and `first` if it has no match in the gallery."""

    query: str
    identity: str
    camera: str | None
    ap: float | None
    inp: float | None
    first: int | None
    """The place of its first match, from 1."""


def write_query_lines(path: str | os.PathLike[str], lines: Iterable[QueryLine]) -> None:
    """Write one JSON object per line.

    Raises:
        DSAError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        text = "".join(f"{line.model_dump_json()}\n" for line in lines)
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def format_table(rows: Sequence[Row], ranks: Sequence[int] = RANKS) -> str:
    """Rows as an aligned table, in per cent."""
    titles = ["mAP", *(f"rank-{k}" for k in ranks)]
    return _align(rows, titles, [[row.mAP, *map(row.rank, ranks)] for row in rows], width=9)


def format_pairs(rows: Sequence[Row], rates: Sequence[float]) -> str:
    """mINP, and TPR over pairs at false-positive rates, as an aligned table below format_table's."""
    titles = ["mINP", *(f"TPR@{rate:g}" for rate in rates)]
    return _align(rows, titles, [[row.mINP, *(row.tpr or rates)] for row in rows], width=11)


def _align(
    rows: Sequence[Row], titles: Sequence[str], figures: Sequence[Sequence[float | None]], width: int
) -> str:
    """A table of fractions in per cent, in columns of `width`; "-" for None."""
    names = max(len(row.name) for row in rows)
    lines = [" " * names + "".join(f"{title:>{width}}" for title in titles)]
    for row, known in zip(rows, figures):
        cells = ("-" if figure is None else f"{100 * figure:.1f}" for figure in known)
        lines.append(f"{row.name:<{names}}" + "".join(f"{cell:>{width}}" for cell in cells))
    return "\n".join(lines)
