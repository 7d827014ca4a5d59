"""`dsareid rank`: how well the features of one folder find their identities in another."""

import os
from typing import NamedTuple

from dsareid.data.layouts.base import DISTRACTOR, NO_CAMERAS
from dsareid.evaluation.bootstrap import Interval, interval
from dsareid.evaluation.copies import copied_features, copies_note
from dsareid.evaluation.open_set import FPIR
from dsareid.evaluation.ranking import Ranking
from dsareid.evaluation.rerank import k_reciprocal
from dsareid.evaluation.rows import query_lines, table_row
from dsareid.evaluation.verification import RATES
from dsareid.ground.errors import DSAError
from dsareid.inference.compare_features import Compared, check_same_images, compare
from dsareid.inference.feature_folder import SKIPPED, FeatureFolder
from dsareid.inference.rank_task import WITHOUT_CAMERAS, RankTask, kept_rows, rank_task
from dsareid.runs.records import RANKS, QueryLine, Row


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
    compared: list[Compared]
    """With `against`, the figures of both models, by the plain distances."""


def rank_folders(
    query: str | os.PathLike[str],
    gallery: str | os.PathLike[str],
    *,
    max_rank: int = 10,
    rerank: bool = False,
    against: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
) -> RankedFolders:
    """Ranks the gallery for every query.

    Args:
        query: A folder that extract wrote.
        gallery: Another such folder, of the same model, or the same. It is read from the disk in blocks.
        max_rank: Length of the CMC; less than 10 counts as 10.
        rerank: Whether to rank by re-ranked distances too; then all features must fit into memory.
        against: Two more folders, of the same images by another model, to compare with.

    Raises:
        DSAError: a folder does not hold features, the two are of different models, an identity or a camera
            is not known, no query has a match, or those of `against` do not hold the same images with the
            same labels.
    """
    task, other = rank_task(query, gallery), against and rank_task(*against)
    if other:
        check_same_images(task, other)
    try:
        return _rank(task, other, max(max_rank, *RANKS), rerank)
    except ValueError as error:
        raise DSAError(f"{query} and {gallery} cannot be ranked: {error}") from error


def _rank(task: RankTask, other: RankTask | None, max_rank: int, rerank: bool) -> RankedFolders:
    (query, gallery), labels, kept = task.folders, task.labels, task.kept
    ranking = task.ranking()
    plain = ranking.result(max_rank, RATES, open_set=True)
    results = {"features": plain, "chance": ranking.chance(max_rank)}
    if rerank:
        of_kept = labels._replace(
            gallery_ids=labels.gallery_ids[kept], gallery_cams=labels.gallery_cams[kept]
        )
        reranked = Ranking(k_reciprocal(task.queries(), kept_rows(gallery, kept)), of_kept)
        results = {"features, re-ranked": reranked.result(max_rank, RATES), **results}
    rows = [table_row(name, found) for name, found in results.items()]
    queries = task.queries()
    notes = [
        "" if task.cameras else NO_CAMERAS,
        _distractor_note(query),
        task.matches.note(WITHOUT_CAMERAS),
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
    compared = compare((task, plain), other) if other else []
    return RankedFolders(rows, list(filter(None, notes)), list(lines), open_set, compared)


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
