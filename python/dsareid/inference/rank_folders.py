"""`dsareid rank`: how well the features of one folder find their identities in another."""

import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsareid.data.layouts.base import DISTRACTOR, JUNK, NO_CAMERAS
from dsareid.data.layouts.own_labels import NOBODY
from dsareid.data.matches import Matches, count_matches
from dsareid.evaluation.bootstrap import Interval, interval
from dsareid.evaluation.copies import copied_features, copies_note
from dsareid.evaluation.distances import FeatureDistances
from dsareid.evaluation.open_set import FPIR
from dsareid.evaluation.positives import Labels
from dsareid.evaluation.ranking import Ranking
from dsareid.evaluation.rerank import k_reciprocal
from dsareid.evaluation.rows import query_lines, table_row
from dsareid.evaluation.verification import RATES
from dsareid.ground.errors import DSAError
from dsareid.inference.feature_folder import (
    IMAGES,
    SKIPPED,
    FeatureFolder,
    check_same_model,
    open_features,
)
from dsareid.runs.records import RANKS, QueryLine, Row

_WITHOUT_CAMERAS = f"empty the column camera of {IMAGES} in both folders"


class RankedFolders(NamedTuple):
    """The result of rank_folders."""

    rows: list[Row]
    """Rows of the table: the features re-ranked (with `rerank`), the features, and chance."""
    notes: list[str]
    """Notes beside the table."""
    queries: list[QueryLine]
    """A line for each query, by the first row."""
    open_set: list[Interval]
    """TPIR at each rate of open_set.FPIR, by the plain distances, with intervals over people."""


def rank_folders(
    query: str | os.PathLike[str],
    gallery: str | os.PathLike[str],
    *,
    max_rank: int = 10,
    rerank: bool = False,
) -> RankedFolders:
    """Ranks the gallery for every query.

    Args:
        query: A folder that extract wrote.
        gallery: Another such folder, of the same model, or the same. It is read from the disk in blocks.
        max_rank: Length of the CMC; less than 10 counts as 10.
        rerank: Whether to rank by re-ranked distances too; then all features must fit into memory.

    Raises:
        DSAError: a folder does not hold features, the two are of different models, an identity or a camera
            is not known, or no query has a match.
    """
    task = rank_task(query, gallery)
    try:
        return _rank(task, max(max_rank, *RANKS), rerank)
    except ValueError as error:
        raise DSAError(f"{query} and {gallery} cannot be ranked: {error}") from error


class RankTask(NamedTuple):
    """What is ranked: the features and labels that count."""

    folders: tuple[FeatureFolder, FeatureFolder]
    asked: Tensor  # bool, the rows of the query folder that are queries
    kept: Tensor  # bool, the rows of the gallery folder that are no junk
    labels: Labels  # of the queries, and of the whole gallery folder
    cameras: bool  # whether they are known
    matches: Matches

    def queries(self) -> np.ndarray:
        """The features of the queries."""
        return _rows(self.folders[0], self.asked)

    def ranking(self) -> Ranking:
        """The ranking by the features' distances."""
        # Junk is masked in place: cutting it out would copy the rest of a large gallery.
        distances = FeatureDistances(self.queries(), self.folders[1].features, removed=~self.kept)
        return Ranking(distances, self.labels)

    def query_files(self) -> list[str]:
        return [file for file, used in zip(self.folders[0].files, self.asked.tolist()) if used]


def rank_task(query: str | os.PathLike[str], gallery: str | os.PathLike[str]) -> RankTask:
    """The task of a folder of queries and one of a gallery; DSAError as for rank_folders."""
    folders = open_features(query), open_features(gallery)
    check_same_model(*folders)
    labels, cameras = _number_labels(*folders)
    asked, kept = labels.query_ids > 0, labels.gallery_ids != JUNK
    if not asked.any() or not kept.any():
        empty, others = (
            (folders[1], "") if asked.any() else (folders[0], f" or a distractor, identity {DISTRACTOR}")
        )
        raise DSAError(f"{empty.path / IMAGES}: every image is junk, identity {JUNK}{others}")
    labels = labels._replace(query_ids=labels.query_ids[asked], query_cams=labels.query_cams[asked])
    matches = count_matches(*labels.pairs())
    if not matches.matched:
        raise DSAError(f"{query} and {gallery}: {matches.note(_WITHOUT_CAMERAS)}")
    return RankTask(folders, asked, kept, labels, cameras, matches)


def _rank(task: RankTask, max_rank: int, rerank: bool) -> RankedFolders:
    (query, gallery), labels, kept = task.folders, task.labels, task.kept
    ranking = task.ranking()
    plain = ranking.result(max_rank, RATES, open_set=True)
    results = {"features": plain, "chance": ranking.chance(max_rank)}
    if rerank:
        of_kept = labels._replace(
            gallery_ids=labels.gallery_ids[kept], gallery_cams=labels.gallery_cams[kept]
        )
        reranked = Ranking(k_reciprocal(task.queries(), _rows(gallery, kept)), of_kept)
        results = {"features, re-ranked": reranked.result(max_rank, RATES), **results}
    rows = [table_row(name, found) for name, found in results.items()]
    queries = task.queries()
    notes = [
        "" if task.cameras else NO_CAMERAS,
        _distractor_note(query),
        task.matches.note(_WITHOUT_CAMERAS),
        copies_note(
            copied_features(queries, gallery.features, labels), len(queries), "the very same features"
        ),
        *map(_skipped_note, (query, gallery)),
    ]
    words = [label for label, used in zip(query.labels, task.asked.tolist()) if used]
    lines = query_lines(task.query_files(), words, next(iter(results.values())))
    assert plain.open_set is not None
    people = labels.query_ids.numpy()
    open_set = [interval(plain.open_set.tpir(rate), people) for rate in FPIR]
    return RankedFolders(rows, list(filter(None, notes)), list(lines), open_set)


def _rows(folder: FeatureFolder, kept: Tensor) -> np.ndarray:
    """The features that are kept; still memory-mapped if all are."""
    return folder.features if kept.all() else folder.features[kept.numpy()]


def _number_labels(query: FeatureFolder, gallery: FeatureFolder) -> tuple[Labels, bool]:
    """The labels of both folders as numbers, the same word the same number, and whether cameras are known.

    If no camera is known, all queries get one camera and all gallery images another, as in `dsareid eval`.
    """
    folders = query, gallery
    known = any(label.camera for folder in folders for label in folder.labels if label.identity not in NOBODY)
    for folder in folders:
        _check_known(folder, known)
    identities = dict(NOBODY)
    cameras: dict[str | None, int] = {}
    ids = [[identities.setdefault(x.identity, len(identities)) for x in folder.labels] for folder in folders]
    if known:
        cams = [[cameras.setdefault(x.camera, len(cameras)) for x in folder.labels] for folder in folders]
    else:
        cams = [[side] * len(folder) for side, folder in enumerate(folders)]
    return Labels(*map(torch.tensor, (*ids, *cams))), known


def _check_known(folder: FeatureFolder, cameras: bool) -> None:
    """Raise DSAError if an identity is not known or, with `cameras`, the camera of a person."""
    unknown = [
        label.identity is None or (cameras and label.camera is None and label.identity not in NOBODY)
        for label in folder.labels
    ]
    if any(unknown):
        raise DSAError(
            f"{folder.path / IMAGES}: identity or camera of {sum(unknown):,} of {len(folder):,} images are "
            f"not known, the first {folder.files[unknown.index(True)]}: fill in these columns to rank them"
        )


def _skipped_note(folder: FeatureFolder) -> str:
    """The note on images that extract left out of a folder."""
    try:
        lines = (folder.path / SKIPPED).read_bytes().splitlines()
    except OSError:  # extract did not make this folder
        return ""
    return f"{folder.path}: images left out as broken by extract: {len(lines):,}" if lines else ""


def _distractor_note(query: FeatureFolder) -> str:
    count = sum(label.identity == str(DISTRACTOR) for label in query.labels)
    return f"{count:,} queries of identity {DISTRACTOR}, a distractor, are left out" if count else ""
