"""`dsareid gallery add`: pictures, features or a table of pictures into a gallery.

A picture's key is a hash of its path and track, so adding it again makes no second row: it is skipped if its
size and time are the same, and replaced if not. An interrupted call is completed by a repeat.
"""

import contextlib
import csv
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from dsareid.data.folders import find_images, left_out
from dsareid.data.images import SUFFIXES
from dsareid.data.labels import image_labels
from dsareid.data.layouts.own_labels import canonical_label, is_below_junk
from dsareid.gallery.rows import MOST_TAGS, GalleryInfo, GalleryRow, IndexKind, NoGallery, RowPrecision, quote
from dsareid.gallery.store import GalleryStore
from dsareid.ground.errors import DSAError, first_problem, logger
from dsareid.ground.machine import cores
from dsareid.inference.embedder import BATCH_SIZE, BATCHES_AHEAD, Embedder, embed
from dsareid.inference.feature_folder import HEADER, FeatureFolder, open_features
from dsareid.inference.feature_parts import file_stamp
from dsareid.inference.pixels import read_ahead
from dsareid.inference.settings import Facts, OtherSettings

BATCH = 256  # rows that are written at once, and lost at most by a call that is killed
_COLUMNS = ("file", "identity", "camera", "time", "track", "tags")  # of a table; the first alone is needed


class Added(NamedTuple):
    """What add_rows did."""

    added: int
    already: int
    """Rows that were there, and are as they were."""
    replaced: int
    """Rows that were there, of pictures that have changed."""
    skipped: list[str]
    """Why pictures could not be read, with skip_broken."""
    rows: int
    """In the gallery now."""


def add_rows(
    gallery: str | os.PathLike[str],
    source: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    camera: str | None = None,
    tags: Sequence[str] = (),
    index: IndexKind = "FLAT",
    parameters: dict[str, int] | None = None,
    precision: RowPrecision = "float32",
    device: str = "auto",
    skip_broken: bool = False,
    trust: bool = False,
    facts: Facts | None = None,
) -> Added:
    """Add rows to a gallery, which is made if it does not exist, with a progress bar.

    Args:
        gallery: a path that ends in .db, or an address http://HOST:PORT/NAME.
        source: a folder of pictures; a folder of features that extract wrote; a table (.csv) of pictures with
            the column file, relative to the table, and perhaps identity, camera, time (seconds since 1970, or
            2026-11-30T20:15), track, tags (words with ; between them).
        model, device, trust, facts: of the network, as for embed(); not for a folder of features.
        camera: of pictures of which none is known; a number is written as in data.labels.
        tags: of all these rows.
        index, parameters, precision: of a new gallery.
        skip_broken: leave out pictures that cannot be read, instead of raising.

    Raises:
        DSAError: as GalleryStore and embed(); vectors of another model than the gallery's; a source that is
            none of the three.
    """
    source, camera = Path(source), canonical_label(camera or "") or None
    made: dict[str, Any] = {"index": index, "parameters": parameters or {}, "precision": precision}
    embedder: Embedder | None = None
    if (source / HEADER).exists():
        if model is not None:
            raise DSAError(f"{source}: features already; leave out `model`")
        opened = open_features(source)
        info = _info(opened.model, opened.features.shape[1], opened.described, opened.facts, made)
        vectors, found = opened.features, _of_features(opened, camera, tags)
    else:
        if model is None:
            raise DSAError(f"{source}: holds pictures: say by which `model` their features are made")
        embedder = embed(model, device, trust=trust, facts=facts, remembered=_facts_of(gallery))
        settings = embedder.settings
        known = settings.facts if isinstance(settings, OtherSettings) else None
        info = _info(embedder.model, embedder.dimension, settings.description, known, made)
        vectors = None
        found = _of_table(source, camera, tags) if source.is_file() else _of_folder(source, camera, tags)
    _check_keys(source, found)
    with GalleryStore(gallery, info) as store:
        _check_fits(store, info)
        with store.writing():
            return _add(store, found, vectors, embedder, skip_broken)


def _info(
    model: str, dimension: int, features: str, facts: Facts | None, made: dict[str, Any]
) -> GalleryInfo:
    try:
        return GalleryInfo(model=model, dimension=dimension, features=features, facts=facts, **made)
    except ValidationError as error:
        raise DSAError(f"a gallery cannot hold these features: {first_problem(error)}") from error


def _facts_of(gallery: str | os.PathLike[str]) -> Facts | None:
    """What is known of the network of a gallery that exists."""
    try:
        with GalleryStore(gallery) as store:
            return store.info.facts
    except NoGallery:
        return None


def _check_keys(source: Path, rows: list[GalleryRow]) -> None:
    """Raise DSAError if two rows are of one picture and track."""
    seen: set[str] = set()
    for row in rows:
        if row.key in seen:
            raise DSAError(f"{source}: {row.file} stands here twice")
        seen.add(row.key)


def _check_fits(store: GalleryStore, info: GalleryInfo) -> None:
    have = store.info
    if (have.model, have.dimension) != (info.model, info.dimension):
        raise DSAError(
            f"{store.name}: holds vectors of model {have.model} ({have.features}), these are of model "
            f"{info.model}: they cannot be compared; make another gallery"
        )
    for name in ("index", "parameters", "precision"):
        wanted, has = getattr(info, name), getattr(have, name)
        if wanted != has and wanted != GalleryInfo.model_fields[name].default:
            raise DSAError(
                f"{store.name}: its {name} is {has}, not {wanted}: it is chosen when a gallery is made"
            )


def _add(
    store: GalleryStore,
    found: list[GalleryRow],
    vectors: np.ndarray | None,
    embedder: Embedder | None,
    skip_broken: bool,
) -> Added:
    added = already = replaced = 0
    skipped: list[str] = []
    with tqdm(total=len(found), desc="adding", unit="row", leave=False, disable=None) as bar:
        for start in range(0, len(found), BATCH):
            some = list(enumerate(found[start : start + BATCH], start))
            stamps = store.stamps([row.key for _, row in some])
            todo = [(place, row) for place, row in some if stamps.get(row.key) != row.stamp]
            made = (
                ((row, vectors[place]) for place, row in todo)
                if vectors is not None
                else _embedded(embedder, [row for _, row in todo], skip_broken, skipped)
            )
            now = int(time.time())
            rows = [row._replace(vector=np.asarray(vector), added=now) for row, vector in made]
            kind: type = np.float16 if store.info.precision == "float16" else np.float32
            if any(not np.isfinite(row.vector.astype(kind)).all() for row in rows):
                raise DSAError(f"{rows[0].file} and what follows: a feature that is not finite")
            store.put(rows)
            again = sum(row.key in stamps for row in rows)
            added, replaced = added + len(rows) - again, replaced + again
            already += len(some) - len(todo)
            bar.update(len(some))
    return Added(added, already, replaced, skipped, store.count())


def _embedded(
    embedder: Embedder | None, rows: list[GalleryRow], skip_broken: bool, skipped: list[str]
) -> Iterator[tuple[GalleryRow, np.ndarray]]:
    """Rows with their vectors; those whose pictures cannot be read are left out, or raise."""
    assert embedder is not None
    if not rows:
        return
    settings = embedder.settings
    paths = [row.file for row in rows]
    decoded = read_ahead(
        paths, settings.height, settings.width, threads=cores(), ahead=BATCHES_AHEAD * BATCH_SIZE
    )
    good, images = [], []
    with contextlib.closing(decoded):
        for row, image in zip(rows, decoded):
            if not isinstance(image, DSAError):
                good.append(row)
                images.append(image)
            elif skip_broken:
                skipped.append(str(image))
            else:
                raise DSAError(f"{image} (`skip_broken=True` leaves such images out; earlier rows are kept)")
    features = [x for part in embedder.batches(images, BATCH_SIZE) for x in part.numpy()]
    yield from zip(good, features)


# ---- sources ----


def _key(file: str, track: str | None) -> str:
    return hashlib.sha256(f"{file}\0{track or ''}".encode(errors="surrogateescape")).hexdigest()[:32]


def _row(file: Path, content: bytes, **known: Any) -> GalleryRow:
    """A row without its vector.

    Args:
        file: its picture.
        content: changes if what the vector is made of does.
        known: the other fields. The row is another one if one of them changes, too.

    Raises:
        DSAError: Milvus cannot hold a word.
    """
    name = os.path.abspath(file)
    stamp = hashlib.sha256(content + repr(sorted(known.items())).encode(errors="surrogateescape"))
    row = GalleryRow(key="", stamp=stamp.hexdigest()[:32], file=name, vector=np.empty(0), **known)
    for word in filter(None, (row.file, row.identity, row.camera, row.track, *row.tags)):
        quote(word)
    if len(row.tags) > MOST_TAGS:
        raise DSAError(f"{name}: {len(row.tags)} tags, more than {MOST_TAGS}")
    return row._replace(key=_key(row.file, row.track))


def _of_folder(folder: Path, camera: str | None, tags: Sequence[str]) -> list[GalleryRow]:
    files, others = find_images(folder)
    if others:
        logger.warning(f"{folder}: {left_out(others)}")
    rows = []
    for file, label in zip(files, image_labels(folder, files)):
        path = folder / file
        rows.append(
            _row(
                path,
                file_stamp(path),
                identity=label.identity,
                camera=label.camera or camera,
                tags=tuple(tags),
            )
        )
    return rows


def _of_features(opened: FeatureFolder, camera: str | None, tags: Sequence[str]) -> list[GalleryRow]:
    if not opened.images.is_absolute():
        raise DSAError(
            f"{opened.path}: does not say where its pictures are ({opened.images}): give `images` to "
            "write_features"
        )
    rows = []
    for place, (file, label) in enumerate(zip(opened.files, opened.labels)):
        rows.append(
            _row(
                opened.images / file,
                opened.features[place].tobytes(),
                identity=label.identity,
                camera=label.camera or camera,
                track=opened.tracks[place] if opened.tracks else None,
                mean=opened.tracks is not None,
                tags=tuple(tags),
            )
        )
    return rows


def _of_table(path: Path, camera: str | None, tags: Sequence[str]) -> list[GalleryRow]:
    if path.suffix.lower() != ".csv":
        one = " (a single picture goes into a folder)" if path.suffix.lower() in SUFFIXES else ""
        raise DSAError(f"{path}: expected a folder of pictures, a folder of features, or a .csv table{one}")
    rows = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            columns = table.fieldnames or []
            if "file" not in columns or (unknown := set(columns) - set(_COLUMNS)):
                wrong = "file is missing" if "file" not in columns else f"{min(unknown)} is not known"
                raise DSAError(f"{path}: its first line must name columns of {', '.join(_COLUMNS)}: {wrong}")
            for line in table:
                where = f"{path}, line {table.line_num}"
                if None in line or None in line.values() or not line["file"]:
                    raise DSAError(f"{where}: expected a file and as many cells as columns")
                rows.append(_row_of_line(where, path.parent, line, camera, tags))
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise DSAError(f"{path}: not readable as a CSV table in UTF-8: {error}") from error
    if not rows:
        raise DSAError(f"{path}: no line with a file")
    return rows


def _row_of_line(
    where: str, base: Path, line: dict[str, str], camera: str | None, tags: Sequence[str]
) -> GalleryRow:
    words = {name: canonical_label(line.get(name) or "") for name in ("identity", "camera", "track")}
    for name, word in words.items():
        if is_below_junk(word):
            raise DSAError(
                f"{where}: the {name} must be a word, a number of at least -1, or empty, not {word}"
            )
    own = [tag.strip() for tag in (line.get("tags") or "").split(";")]
    picture = base / line["file"]
    if not picture.exists():
        raise DSAError(f"{where}: there is no file {picture}")
    return _row(
        picture,
        file_stamp(picture),
        identity=words["identity"] or None,
        camera=words["camera"] or camera,
        track=words["track"] or None,
        time=parse_time(line.get("time") or "", f"{where}: time"),
        tags=(*tags, *filter(None, own)),
    )


def parse_time(text: str, what: str) -> int | None:
    """Seconds since 1970 in a text: the number itself, of 9 or 10 digits, or a date by ISO 8601, in this
    machine's zone unless it names one; None if it is empty.

    Raises:
        DSAError: it is neither.
    """
    if not text:
        return None
    try:
        # Fewer digits may be meant as a year or a day.
        return int(text) if re.fullmatch(r"\d{9,10}", text) else int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError, OSError) as error:
        raise DSAError(
            f"{what} must be a date such as 2026-11-30T20:15, or seconds since 1970 in 9 or 10 digits, not "
            f"{text[:40]!r}"
        ) from error
