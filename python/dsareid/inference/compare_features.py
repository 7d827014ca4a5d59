"""`dsareid rank --against`: two models on the same images, with paired differences."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from dsareid.evaluation.bootstrap import LEVEL, Figure, Interval, difference, interval
from dsareid.evaluation.open_set import FPIR, OpenSet
from dsareid.evaluation.ranking import RankResult
from dsareid.evaluation.rows import per_cent, span
from dsareid.ground.errors import DSAError
from dsareid.inference.rank_task import RankTask
from dsareid.runs.records import RANKS


class Compared(NamedTuple):
    """A figure of two models on the same images; fractions of 1."""

    name: str
    first: float
    second: float
    difference: Interval
    """second - first, paired over the queries, with an interval over people."""


def compare(first: tuple[RankTask, RankResult], second: RankTask) -> list[Compared]:
    """Compare two models by their features of the same queries and gallery.

    Args:
        first: one model's task, and its ranking, with the open set.
        second: the other's, which passes check_same_images.

    Raises:
        ValueError: the second's features are not finite.
    """
    task, result = first
    at = {file: place for place, file in enumerate(second.query_files())}
    order = np.array([at[file] for file in task.query_files()])
    other = second.ranking().result(max(RANKS), open_set=True)
    figures = _figures(result, np.arange(len(order))), _figures(other, order)
    people, once = task.labels.query_ids.numpy(), np.ones((1, len(order)), np.int64)
    return [
        Compared(name, float(one(once)[0]), float(two(once)[0]), interval(difference(two, one), people))
        for (name, one), two in zip(figures[0].items(), figures[1].values())
    ]


def format_compared(found: Sequence[Compared]) -> str:
    """The figures of two models side by side, in per cent."""
    lines = [
        f"{'':<10}{'first':>8}{'second':>8}{'second - first':>16}   {100 * LEVEL:g} % interval over people"
    ]
    for name, first, second, more in found:
        values = f"{per_cent(first):>8}{per_cent(second):>8}{per_cent(more.value, signed=True):>16}"
        lines.append(f"{name:<10}{values}   {span(more, signed=True)}")
    return "\n".join(lines)


def _figures(result: RankResult, order: np.ndarray) -> dict[str, Figure]:
    """What is compared, over the queries in this order; means are over those that have a match."""
    counted, ap, first = np.zeros((3, len(order)))
    counted[result.queries], ap[result.queries] = 1, result.ap
    first[result.queries] = result.first == 1

    def mean(values: np.ndarray) -> Figure:
        some, those = values[order], counted[order]

        def share(weights: np.ndarray) -> np.ndarray:
            with np.errstate(invalid="ignore"):  # a sample may have no query that counts
                return (weights @ some) / (weights @ those)

        return share

    assert result.open_set is not None
    places = torch.from_numpy(order)
    open_set = OpenSet(result.open_set.mate[places], result.open_set.other[places])
    tpir = {f"TPIR@{rate:g}": open_set.tpir(rate) for rate in FPIR}
    return {"mAP": mean(ap), "rank-1": mean(first), **tpir}


def check_same_images(first: RankTask, second: RankTask) -> None:
    """Raise DSAError unless two tasks are of the same files with the same labels, in any order."""
    for one, other in zip(first.folders, second.folders):
        for folder in (one, other):
            if len(set(folder.files)) < len(folder):
                raise DSAError(f"{folder.path}: a file stands there twice, so it cannot be compared")
        labels = [dict(zip(folder.files, folder.labels)) for folder in (one, other)]
        for folder, mine, theirs in ((one, labels[0], labels[1]), (other, labels[1], labels[0])):
            if missing := [file for file in mine if file not in theirs]:
                raise DSAError(
                    f"{one.path} and {other.path} hold different images: {len(missing):,} only in "
                    f"{folder.path}, the first {missing[0]}: extract both from one folder"
                )
        if changed := [file for file, label in labels[0].items() if labels[1][file] != label]:
            raise DSAError(
                f"{one.path} and {other.path} label {len(changed):,} images differently, the first "
                f"{changed[0]}"
            )
