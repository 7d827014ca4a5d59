"""`dsareid search`: who in a gallery looks like the person in a query."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dsareid.data.folders import find_images, left_out
from dsareid.data.images import SUFFIXES, read_image
from dsareid.data.labels import ImageLabel, image_labels
from dsareid.data.layouts.base import DISTRACTOR, JUNK
from dsareid.data.layouts.own_labels import NOBODY
from dsareid.evaluation.calibration import format_score
from dsareid.evaluation.nearest import nearest
from dsareid.ground.errors import DSAError, logger, quoted
from dsareid.ground.files import atomic_path, check_writable
from dsareid.inference.calibrate import CALIBRATION, Judge
from dsareid.inference.embedder import Embedder, embed
from dsareid.inference.feature_folder import HEADER, FeatureFolder, open_features
from dsareid.inference.settings import Facts

PICTURED = 40  # queries in a picture

# Sizes in the picture, in pixels.
_SIDE, _MARGIN, _TEXT = (96, 192), 10, 34  # an image's width and height, between images, below an image
_INK, _DIM, _PAPER, _RIGHT = "#1d2129", "#6b7280", "#ffffff", "#1a7f37"


@dataclass(frozen=True)
class Match:
    """A gallery image that a search found."""

    file: Path
    distance: float  # Euclidean: 0..2 with one kind of branch, 0..2.8 with f_G and f_L
    identity: str | None  # None if not known; written as in data.labels
    score: float | None = None  # the calibrated one, 0..1; None without a calibration


@dataclass(frozen=True)
class SearchResult:
    """The result of a search for one query."""

    file: Path
    identity: str | None  # as in Match
    matches: list[Match]  # nearest first; with a limit, those nearer than it
    limit: float | None = None  # the distance from which on somebody is somebody else; None: not asked
    beyond: Match | None = None  # with a limit, the nearest that is not nearer


def search(
    model: str | os.PathLike,
    query: str | os.PathLike,
    gallery: str | os.PathLike,
    count: int = 10,
    device: str = "auto",
    trust: bool = False,
    false_match_rate: float | None = None,
    calibration: str | os.PathLike | None = None,
    facts: Facts | None = None,
) -> list[SearchResult]:
    """The gallery images nearest to each query: exact, nearest first, ties in the order of the gallery.

    Nothing is left out of the gallery, neither the query itself nor images of its camera.

    Args:
        model, device, trust: as for embed().
        query: an image, or a folder of them.
        gallery: a folder of images, or a folder of features that the same model made, which is read in
            blocks.
        count: how many to find; fewer if the gallery is smaller.
        false_match_rate: leave out matches that are not nearer than the distance of this rate, which the
            calibration knows; a query without a match is of nobody in the gallery.
        calibration: a folder of features that `dsareid calibrate` was run on, or its calibration.json.
            Default: the gallery's, if it has one.
        facts: as for embed(). Default: those that the gallery's features were made with.

    Raises:
        DSAError: as embed(); a query that is no image, no gallery, features of another model, a count below
            1, a rate without a calibration of this model, or one that the calibration cannot tell.
    """
    if count < 1:
        raise DSAError(f"`count` must be at least 1, not {count}")
    gallery = Path(gallery)
    opened = open_features(gallery) if (gallery / HEADER).exists() else None
    remembered = opened.facts if opened else None
    embedder = embed(model, device, trust=trust, facts=facts, remembered=remembered)
    if opened:
        _check_model(opened, embedder, model)
    beside = gallery if false_match_rate is not None or (gallery / CALIBRATION).exists() else None
    judge = Judge.of(embedder.model, calibration or beside, false_match_rate)
    if text := judge.doubt([opened is not None and opened.tracks is not None]):
        logger.warning(f"{calibration or beside}: {text}")
    queries, features, asked = _embed_all(embedder, Path(query))
    rows: np.ndarray  # float32 [G, D]
    made = 0.0  # when the gallery's features were made; 0: in this call
    if opened:
        files, rows = [opened.images / file for file in opened.files], opened.features
        identities = [label.identity for label in opened.labels]
        made = (gallery / HEADER).stat().st_mtime
    else:
        files, embedded, identities = _embed_all(embedder, gallery)
        rows = embedded.numpy()
    distances, places = nearest(features, rows, count)
    if made:
        _warn_of_changes(gallery, [files[place] for place in sorted({*places.flatten().tolist()})], made)
    found = []
    for file, identity, near, where in zip(queries, asked, distances.tolist(), places.tolist()):
        matches = [
            Match(files[place], distance, identities[place], judge.score(distance))
            for distance, place in zip(near, where)
        ]
        found.append(_split(judge, file, identity, matches))
    return found


def _check_model(opened: FeatureFolder, embedder: Embedder, model: str | os.PathLike) -> None:
    if (opened.model, opened.features.shape[1]) != (embedder.model, embedder.dimension):
        raise DSAError(
            f"{opened.path}: features of model {opened.model}, but {model} is model {embedder.model}: they "
            f"cannot be compared; make new ones: dsareid extract {quoted(model)} {quoted(opened.images)}"
        )


def _split(judge: Judge, file: Path, identity: str | None, matches: list[Match]) -> SearchResult:
    """The matches within the judge's limit, and the first beyond."""
    if judge.limit is None:
        return SearchResult(file, identity, matches)
    near = [match for match in matches if match.distance < judge.limit]
    return SearchResult(file, identity, near, judge.limit, next(iter(matches[len(near) :]), None))


def format_list(found: SearchResult) -> str:
    """The rank list of a query as an aligned table."""
    title, scores = (
        f"{found.file}{_who(found.identity)}",
        found.matches and found.matches[0].score is not None,
    )
    if found.limit is not None and not found.matches:
        beyond = found.beyond
        assert beyond is not None  # a gallery has an image
        return (
            f"{title}: unknown\nnobody is nearer than {found.limit:.4f}; the nearest: {beyond.distance:.4f}, "
            f"{format_score(beyond.score)}{_who(beyond.identity)}, {beyond.file}"
        )
    lines = [title, f"{'rank':>5} {'distance':>9} {'score ' if scores else ''}{'identity':>9}  file"]
    for rank, match in enumerate(found.matches, 1):
        score = f"{format_score(match.score):>5} " if scores else ""
        lines.append(f"{rank:>5} {match.distance:>9.4f} {score}{match.identity or '':>9}  {match.file}")
    return "\n".join(lines)


def draw_lists(found: list[SearchResult]) -> Image.Image:
    """Rank lists as a picture: in each row a query at the left, then its matches.

    A match has a green frame if it shows the query's person; a distractor or junk never has.

    Raises:
        DSAError: a gallery image that cannot be read any more.
    """
    width, height = _SIDE
    columns = 1 + max(1, *(len(one.matches) for one in found))
    size = (columns + 1) * (width + _MARGIN) - width // 2, len(found) * (height + _TEXT + _MARGIN) + _MARGIN
    sheet = Image.new("RGB", size, _PAPER)
    for row, one in enumerate(found):
        top = _MARGIN + row * (height + _TEXT + _MARGIN)
        unknown = "" if one.matches else "unknown"
        _draw(sheet, _MARGIN, top, one.file, f"query{_who(one.identity)}", unknown, _INK)
        for column, match in enumerate(one.matches):
            left = 2 * _MARGIN + width + width // 4 + column * (width + _MARGIN)
            right = one.identity == match.identity and match.identity not in (None, *NOBODY)
            score = "" if match.score is None else f" {format_score(match.score)}"
            title = f"{column + 1}: {match.distance:.3f}{score}"
            _draw(sheet, left, top, match.file, title, _who(match.identity)[2:], _RIGHT if right else _DIM)
    return sheet


def write_picture(found: list[SearchResult], out: Path) -> None:
    """Draw the rank lists of the first queries into an image file; its suffix says which type.

    Raises:
        DSAError: as draw_lists; an unknown suffix, or the file cannot be written.
    """
    picture = draw_lists(found[:PICTURED])
    with atomic_path(out) as temporary:
        picture.save(temporary)


def check_picture(out: Path, query: Path) -> None:
    """Raise DSAError if `out` has no image's suffix, cannot be written, or is the query itself."""
    if out.suffix.lower() not in SUFFIXES:
        raise DSAError(f"{out}: the name must end in {', '.join(SUFFIXES)}, not {out.suffix!r}")
    check_writable(out, [query])


def list_pictures(path: Path) -> tuple[list[Path], list[ImageLabel]]:
    """The picture, or all pictures below a folder, and their labels.

    Raises:
        DSAError: a folder without pictures.
    """
    if path.is_dir():
        names, others = find_images(path)
        if others:
            logger.warning(f"{path}: {left_out(others)}")
    else:
        path, names = path.parent, [path.name]
    return [path / name for name in names], image_labels(path, names)


def _embed_all(embedder: Embedder, path: Path) -> tuple[list[Path], Tensor, list[str | None]]:
    """The pictures of list_pictures, their features, float32 [N, D], and their identities."""
    files, labels = list_pictures(path)
    return files, embedder(files, progress=True), [label.identity for label in labels]


def _warn_of_changes(gallery: Path, files: list[Path], made: float) -> None:
    """Warn if images that were found have changed or gone since their features were made."""
    changed = [file for file in files if not file.exists() or file.stat().st_mtime > made]
    if changed:
        logger.warning(
            f"{gallery}: images that are gone or newer than their features: {len(changed):,}, the first "
            f"{changed[0]}"
        )


def _who(identity: str | None) -> str:
    nobody = {None: "", str(DISTRACTOR): ", distractor", str(JUNK): ", junk"}
    return nobody.get(identity, f", identity {identity}")


def _draw(sheet: Image.Image, left: int, top: int, file: Path, title: str, second: str, frame: str) -> None:
    width, height = _SIDE
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    draw.rectangle((left - 3, top - 3, left + width + 2, top + height + 2), fill=frame)
    image = Image.fromarray(read_image(file)).resize(_SIDE, Image.Resampling.LANCZOS)
    sheet.paste(image, (left, top))
    draw.text((left, top + height + 4), title, fill=_INK, font=font)
    draw.text((left, top + height + 19), second, fill=frame, font=font)
