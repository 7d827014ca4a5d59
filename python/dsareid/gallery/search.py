"""`dsareid gallery search`: who in a gallery looks like the person in a query, among the rows of a filter."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsareid.data.labels import ImageLabel
from dsareid.data.layouts.own_labels import NOBODY, canonical_label
from dsareid.evaluation.calibration import format_score
from dsareid.gallery.rows import quote
from dsareid.gallery.store import GalleryStore
from dsareid.ground.errors import DSAError, logger
from dsareid.inference.calibrate import Judge
from dsareid.inference.embedder import Embedder, embed
from dsareid.inference.search import Match, SearchResult, list_pictures
from dsareid.inference.settings import Facts

_MORE = 2  # times as many candidates as are asked for are scored again if the index is not exact


class GalleryFilter(NamedTuple):
    """Which rows a search may find; None and empty: all."""

    cameras: Sequence[str] = ()
    other_cameras: Sequence[str] = ()
    """Rows of these cameras are left out."""
    people: Sequence[str] = ()
    tracks: Sequence[str] = ()
    files: Sequence[str] = ()
    tags: Sequence[str] = ()
    """A row must have all of them."""
    after: int | None = None  # seconds since 1970
    before: int | None = None
    added_before: int | None = None

    def expression(self) -> str:
        """The filter in Milvus' language; "" leaves all rows."""

        def listed(words: Sequence[str]) -> str:
            return ", ".join(quote(canonical_label(word)) for word in words)

        parts = [
            f"{field} in [{', '.join(map(quote, words)) if field == 'file' else listed(words)}]"
            for field, words in (
                ("camera", self.cameras),
                ("identity", self.people),
                ("track", self.tracks),
                ("file", self.files),
            )
            if words
        ]
        if self.other_cameras:
            # A row whose camera is not known is of another one.
            parts.append(f"(camera is null or camera not in [{listed(self.other_cameras)}])")
        parts += [f"array_contains(tags, {quote(tag)})" for tag in self.tags]
        if self.after is not None:
            parts.append(f"time >= {self.after}")
        if self.before is not None:
            parts.append(f"time < {self.before}")
        if self.added_before is not None:
            parts.append(f"added < {self.added_before}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Found:
    """A row that a search found."""

    key: str
    file: str
    distance: float  # Euclidean, from the stored vector
    score: float | None  # the calibrated one, 0..1; None without a calibration
    identity: str | None
    camera: str | None
    time: int | None
    track: str | None
    mean: bool  # of a track's pictures
    tags: list[str]


@dataclass(frozen=True)
class Answer:
    """The rows found for one query."""

    query: Path
    identity: str | None  # of the query, if known
    found: list[Found]  # nearest first; with a limit, those nearer than it
    limit: float | None = None
    beyond: Found | None = None  # with a limit, the nearest that is not nearer


def search_gallery(
    gallery: str | os.PathLike[str],
    query: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str],
    count: int = 10,
    only: GalleryFilter = GalleryFilter(),
    same_camera_rule: bool = False,
    parameters: Mapping[str, int] | None = None,
    false_match_rate: float | None = None,
    calibration: str | os.PathLike[str] | None = None,
    device: str = "auto",
    trust: bool = False,
    facts: Facts | None = None,
) -> list[Answer]:
    """Search a gallery. What its index returns is scored again in float64 from the stored vectors.

    Args:
        gallery: a path that ends in .db, or an address http://HOST:PORT/NAME.
        query: a picture, or a folder of them.
        model, device, trust, facts: of the network that made the gallery's vectors, as for embed().
        count: how many rows to find, at most, for each query.
        only: which rows may be found.
        same_camera_rule: leave out rows of the query's person and camera, as evaluations do.
        parameters: of the index's search: ef for HNSW, nprobe for IVF.
        false_match_rate, calibration: as for search().

    Raises:
        DSAError: as GalleryStore and embed(); a gallery of another model, a query that is no picture, or a
            filter that leaves no row.
    """
    if count < 1:
        raise DSAError(f"`count` must be at least 1, not {count}")
    with GalleryStore(gallery) as store:
        embedder = embed(model, device, trust=trust, facts=facts, remembered=store.info.facts)
        check_model(store, embedder)
        judge = Judge.of(embedder.model, calibration, false_match_rate)
        files, labels = list_pictures(Path(query))
        vectors = embedder(files, progress=len(files) > 1).numpy()
        where = only.expression()
        check_some(store, where)
        answers = []
        for file, label, vector in zip(files, labels, vectors):
            mine = _without_own(where, label) if same_camera_rule else where
            found, beyond = find_rows(store, vector, count, mine, judge, parameters or {})
            answers.append(Answer(file, label.identity, found, judge.limit, beyond))
        rows = (row for answer in answers for row in [*answer.found, answer.beyond] if row)
        if text := judge.doubt(row.mean for row in rows):
            logger.warning(f"{calibration}: {text}")
        return answers


def check_model(store: GalleryStore, embedder: Embedder) -> None:
    """Raise DSAError if a network did not make a gallery's vectors."""
    if embedder.model != store.info.model:
        raise DSAError(
            f"{store.name}: vectors of model {store.info.model} ({store.info.features}), but {embedder.path} "
            f"is model {embedder.model}: they cannot be compared"
        )


def check_some(store: GalleryStore, where: str) -> None:
    """Raise DSAError if a filter leaves no row."""
    if not store.any(where):
        raise DSAError(f"{store.name}: no row is left: {where or 'the gallery is empty'}")


def find_rows(
    store: GalleryStore,
    vector: np.ndarray,
    count: int,
    where: str,
    judge: Judge,
    parameters: Mapping[str, int],
) -> tuple[list[Found], Found | None]:
    """The rows near a vector, float32 [D], nearest first, within the judge's limit; and the first beyond."""
    exact = store.info.index == "FLAT"
    wanted = (count if exact else _MORE * count) + (judge.limit is not None)
    (hits,) = store.nearest(vector[None], wanted, where, parameters)
    found = _scored(vector, hits, judge)
    if judge.limit is None:
        return found[:count], None
    near = [row for row in found if row.distance < judge.limit]
    return near[:count], next(iter(found[len(near) :]), None)


def _without_own(where: str, label: ImageLabel) -> str:
    """The filter without rows of the query's person and camera, as far as they are known."""
    if label.identity is None or label.identity in NOBODY or label.camera is None:
        return where
    # A comparison with null is not true, so rows without a person or a camera need a word of their own.
    other = (
        f"(identity is null or camera is null or identity != {quote(label.identity)} or camera != "
        f"{quote(label.camera)})"
    )
    return f"{where} and {other}" if where else other


def _scored(vector: np.ndarray, hits: Sequence[Mapping[str, Any]], judge: Judge) -> list[Found]:
    """The rows by their distances in float64, nearest first, equal ones by their keys."""
    found = []
    for hit in hits:
        difference = vector.astype(np.float64) - hit["vector"]
        distance = float(np.sqrt(np.square(difference).sum()))
        known = {name: hit[name] for name in ("key", "file", "identity", "camera", "time", "track", "mean")}
        row = Found(distance=distance, score=judge.score(distance), tags=list(hit["tags"] or []), **known)
        found.append((distance, hit["key"], row))
    return [row for *_, row in sorted(found, key=lambda each: each[:2])]


def format_answer(answer: Answer) -> str:
    """The rows found for a query, as an aligned table."""
    if answer.limit is not None and not answer.found:
        nearest = answer.beyond
        text = "" if nearest is None else f"; the nearest: {nearest.distance:.4f}, {nearest.file}"
        return f"{answer.query}: unknown\nnobody is nearer than {answer.limit:.4f}{text}"
    heads = ["rank", "distance", "score", "identity", "camera", "time", "track"]
    cells = [
        [
            str(rank),
            f"{row.distance:.4f}",
            format_score(row.score),
            row.identity or "",
            row.camera or "",
            "" if row.time is None else format_time(row.time),
            row.track or "",
        ]
        for rank, row in enumerate(answer.found, 1)
    ]
    used = [k for k in range(len(heads)) if any(row[k] for row in cells)]
    widths = [max(len(heads[k]), *(len(row[k]) for row in cells)) for k in used]
    lines = [" ".join(f"{row[k]:>{width}}" for k, width in zip(used, widths)) for row in [heads, *cells]]
    files = ["file", *(row.file for row in answer.found)]
    return "\n".join([str(answer.query), *(f"{line}  {file}" for line, file in zip(lines, files))])


def format_time(seconds: int) -> str:
    """A time in this machine's zone, as parse_time reads it."""
    return datetime.fromtimestamp(seconds).isoformat(timespec="seconds")


def as_search_result(answer: Answer) -> SearchResult:
    """The answer as `dsareid search` draws one."""

    def match(row: Found) -> Match:
        return Match(Path(row.file), row.distance, row.identity, row.score)

    beyond = None if answer.beyond is None else match(answer.beyond)
    return SearchResult(answer.query, answer.identity, [*map(match, answer.found)], answer.limit, beyond)
