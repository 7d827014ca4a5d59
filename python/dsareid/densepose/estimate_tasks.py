"""The pictures of a source, and the state of their maps."""

import json
import os
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from dsareid.data.folders import find_images, left_out
from dsareid.data.iuv import INSTANCES_END, MAP_END, instances_path, write_instances, write_iuv
from dsareid.data.layouts import is_data_set, list_data
from dsareid.data.map_notes import MapNote, note_digest, picture_digest, read_note
from dsareid.densepose.estimators.base import EstimatedMap
from dsareid.densepose.given_boxes import GivenBox
from dsareid.densepose.pictures import SHEET
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path, place_for

RECORD = "estimator.json"


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write what makes the maps, normally to RECORD beside them."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")


def write_map(path: Path, found: EstimatedMap, by: str, of: str) -> MapNote:
    """Write an estimated map with its note, and whose pixel it is, or nothing of an earlier map.

    Args:
        by, of: of the note.
    """
    if found.instances is not None:
        write_instances(path, found.instances)
    else:
        instances_path(path).unlink(missing_ok=True)
    person = bool(found.iuv[..., 0].any())
    note = MapNote(by, of, person, round(found.others, 4), found.unsure)
    write_iuv(path, found.iuv, note)
    return note


class MapTask(NamedTuple):
    """A picture, and the file of its map."""

    name: str  # relative to the source
    image: Path
    out: Path
    boxes: tuple[GivenBox, ...] | None = None  # of its people; None: none were given for any picture


class MapState(Enum):
    """The state of a picture's map."""

    MISSING = "there is none"
    CURRENT = "of this picture, by these settings"
    CHANGED = "of this file before it was changed"
    OTHER = "by other settings"
    FOREIGN = "not estimated"


class Source(NamedTuple):
    """The pictures of a source."""

    tasks: list[MapTask]
    folder: Path | None  # of the maps; None for one picture


def find_source(source: Path, out: Path | None, protocol: str) -> Source:
    """The pictures of a data set, of another folder, or one.

    Raises:
        DSAError: no picture, two that would have one map, a folder of maps among the pictures.
    """
    if not source.is_dir():
        map_path = out or source.with_name(f"{source.stem}{MAP_END}.png")
        if map_path.suffix.lower() != ".png":
            raise DSAError(f"{map_path}: the name of a map must end in .png")
        return Source([MapTask(source.name, source, map_path)], None)
    _check_folders(source, out)
    folder = out or place_for(source) / "iuv"
    names = _list_data_set(source, protocol) if is_data_set(source) else _list_folder(source, protocol)
    tasks = []
    for name, there in names.items():
        map_path = source / there if there and out is None else (folder / name).with_suffix(".png")
        tasks.append(MapTask(name, source / name, map_path))
    taken: dict[Path, str] = {}
    for task in tasks:
        if (other := taken.setdefault(task.out, task.name)) != task.name:
            raise DSAError(
                f"{source}: {other} and {task.name} would have one map, {task.out}: rename one of them"
            )
    return Source(tasks, folder)


def made_by(record: dict[str, Any], task: MapTask) -> str:
    """The digest of what makes a picture's map: the estimator's record, and the boxes that were given."""
    given = {} if task.boxes is None else {"boxes": task.boxes}
    return note_digest(json.dumps(record | given).encode())


def find_states(tasks: Sequence[MapTask], record: dict[str, Any]) -> list[MapState]:
    """The state of each map, if it is to be made by the estimator of this record."""
    return [_state(task, made_by(record, task)) for task in tasks]


def _state(task: MapTask, by: str) -> MapState:
    if not os.path.lexists(task.out):
        return MapState.MISSING
    note = read_note(task.out)
    if note is None:
        return MapState.FOREIGN
    if note.by != by:
        return MapState.OTHER
    try:
        return MapState.CURRENT if note.of == picture_digest(task.image) else MapState.CHANGED
    except OSError:  # not readable: estimating it says so
        return MapState.CHANGED


def _check_folders(source: Path, out: Path | None) -> None:
    if (source / RECORD).exists():
        raise DSAError(f"{source}: this is a folder of estimated maps; give the pictures")
    if out is None:
        return
    place, root = out.resolve(), source.resolve()
    if place.is_relative_to(root) and place != root / "iuv":
        raise DSAError(
            f"{out}: lies in {source}, where maps would be taken for pictures; choose {source / 'iuv'}, "
            "which is the default, or a folder outside"
        )


def _list_data_set(source: Path, protocol: str) -> dict[str, str | None]:
    """The images of a data set, and the map that each has."""
    listing = list_data(source, protocol)
    for note in listing.notes:
        logger.warning(note)
    return {entry.name: entry.iuv for entry in listing.entries if not entry.misnamed}


def _list_folder(source: Path, protocol: str) -> dict[str, str | None]:
    """The pictures in a folder and below, without maps that lie among them; each with None for its map."""
    if protocol:
        raise DSAError(f"{source}: not a data set, so it has no `protocol`")
    images, others = find_images(source)
    of_maps = {name for name in {os.path.dirname(x) for x in images} if _is_of_maps(source, name)}
    if of_maps:
        logger.warning(f"{source}: skipped because they hold estimated maps: {', '.join(sorted(of_maps))}")
    kept = [name for name in images if os.path.dirname(name) not in of_maps and not _is_map_name(name)]
    if others:
        logger.warning(f"{source}: {left_out(others)}")
    maps = sum(_is_map_name(name) and os.path.dirname(name) not in of_maps for name in images)
    if maps:
        logger.warning(f"{source}: skipped because they are named like maps: {maps:,} files")
    if not kept:
        raise DSAError(f"{source}: no pictures in it, only maps")
    return dict.fromkeys(kept)


def _is_of_maps(source: Path, folder: str) -> bool:
    """Whether a folder below a source, or one around it there, holds what estimating wrote."""
    below = Path(folder)
    return any((source / place / RECORD).exists() for place in (below, *below.parents) if place != Path())


def _is_map_name(name: str) -> bool:
    stem = os.path.splitext(name)[0]
    return stem.endswith((MAP_END, INSTANCES_END)) or os.path.basename(name) == SHEET
