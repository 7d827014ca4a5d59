"""`dsareid rank --against`: two models on the same images, with paired differences."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from dsareid.evaluation.bootstrap import LEVEL, Figure, Interval, difference, interval
from dsareid.evaluation.open_set import FPIR, OpenSet
from dsareid.evaluation.ranking import RankResult
from dsareid.evaluation.rows import per_cent, span
from dsareid.ground.errors import DSAError
from dsareid.inference.feature_folder import FeatureFolder
from dsareid.inference.rank_folders import RankTask, rank_task
from dsareid.runs.records import RANKS

Folders = tuple[str | os.PathLike[str], str | os.PathLike[str]]
"""A folder of queries and one of a gallery, which extract wrote with one model."""


class Compared(NamedTuple):
    """A figure of two models on the same images; fractions of 1."""

    name: str
    first: float
    second: float
    difference: Interval
    """second - first, paired over the queries, with an interval over people."""


def compare_features(first: Folders, second: Folders) -> list[Compared]:
    """Compare two models by their features of the same queries and gallery.

    Raises:
        DSAError: as rank_folders, or the folders do not hold the same images with the same labels.
    """
    tasks = rank_task(*first), rank_task(*second)
    for one, other in zip(tasks[0].folders, tasks[1].folders):
        _check_same_images(one, other)
    results = [_ranked(task) for task in tasks]
    at = {file: place for place, file in enumerate(tasks[1].query_files())}
    order = np.array([at[file] for file in tasks[0].query_files()])
    figures = _figures(results[0], np.arange(len(order))), _figures(results[1], order)
    people, once = tasks[0].labels.query_ids.numpy(), np.ones((1, len(order)), np.int64)
    return [
        Compared(name, float(one(once)[0]), float(other(once)[0]), interval(difference(other, one), people))
        for (name, one), other in zip(figures[0].items(), figures[1].values())
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


def _ranked(task: RankTask) -> RankResult:
    try:
        return task.ranking().result(max(RANKS), open_set=True)
    except ValueError as error:
        query, gallery = (folder.path for folder in task.folders)
        raise DSAError(f"{query} and {gallery} cannot be ranked: {error}") from error


def _figures(result: RankResult, order: np.ndarray) -> dict[str, Figure]:
    """What is compared, over the queries in this order; means are over those that have a match."""
    counted, ap, first = np.zeros((3, len(order)))
    counted[result.queries], ap[result.queries] = 1, result.ap
    first[result.queries] = result.first == 1

    def mean(values: np.ndarray) -> Figure:
        some, those = values[order], counted[order]
        return lambda weights: (weights @ some) / (weights @ those)

    assert result.open_set is not None
    places = torch.from_numpy(order)
    open_set = OpenSet(result.open_set.mate[places], result.open_set.other[places])
    tpir = {f"TPIR@{rate:g}": open_set.tpir(rate) for rate in FPIR}
    return {"mAP": mean(ap), "rank-1": mean(first), **tpir}


def _check_same_images(one: FeatureFolder, other: FeatureFolder) -> None:
    """Raise DSAError unless two folders hold the same files with the same labels, in any order."""
    labels = [dict(zip(folder.files, folder.labels)) for folder in (one, other)]
    for folder, mine, theirs in ((one, labels[0], labels[1]), (other, labels[1], labels[0])):
        if missing := [file for file in mine if file not in theirs]:
            raise DSAError(
                f"{one.path} and {other.path} hold different images: {len(missing):,} only in "
                f"{folder.path}, the first {missing[0]}: extract both from one folder"
            )
    if changed := [file for file, label in labels[0].items() if labels[1][file] != label]:
        raise DSAError(
            f"{one.path} and {other.path} label {len(changed):,} images differently, the first {changed[0]}"
        )
