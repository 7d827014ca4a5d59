"""The images that a source names, each with what was found in it and where its map goes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from dsareid.data.images import image_header
from dsareid.densepose.naming import DataImages, existing, names_folders, share_a_map, unicode_note
from dsareid.densepose.seen_size import SeenImage
from dsareid.densepose.sources import Detections, Person
from dsareid.ground.errors import DSAError


class ImageTask(NamedTuple):
    """An image, and what was found in it."""

    image: Path
    out: Path  # its map
    people: list[Person]
    seen: SeenImage

    @property
    def name(self) -> str:
        """Relative to ROOT; without ROOT the last folder and the name."""
        return self.seen.name


class FoundTasks(NamedTuple):
    """The tasks of a source, and what is to be said of its file names."""

    tasks: list[ImageTask]
    missing: list[str]  # file names that have no image
    by_last_part: list[str]  # images that were found by their name alone, not by their folders


class _Named(NamedTuple):
    """An image that the source names."""

    name: str  # that of its task
    image: str
    found: Detections


def find_tasks(
    source: Path, detections: Sequence[Detections], listed: DataImages | None, out: Path
) -> FoundTasks:
    """A task for each image that the source names, and the file names that have no image.

    If some file names share folders with images, a file name in folders must share one to have an image,
    because names may recur in other folders. If none does, images are found by their names alone.

    Args:
        source: where the detections are from.
        detections: what was found, by file name.
        listed: the images below ROOT; None: file names must exist as they are.
        out: the folder of the maps.

    Raises:
        DSAError: no image found, a file name that fits two images, two file names for one map, or an image
            that cannot be read.
    """
    if listed is None and source.is_dir():
        raise DSAError(f"{source}: a folder of maps needs `data=ROOT`, the folder of their images")
    named: dict[Path, _Named] = {}  # by the map
    missing = []
    with_folders = listed is not None and any(listed.common_parts(x.file_name) > 1 for x in detections)
    for found in detections:
        image = _find_image(found, listed, source, with_folders)
        if image is None:
            missing.append(found.file_name)
            continue
        path = (out / image.name).with_suffix(".png")
        _refuse_collision(source, path, named.get(path), image, listed)
        named[path] = image
    if not named:
        where = "exists" if listed is None else f"is an image below {listed.root}"
        hint = "; give `data=ROOT`, the folder of the images" if listed is None else ""
        example = f", as {missing[0]}" if missing else ""
        names = f"none of its {len(detections):,} file names{example}, {where}"
        if len(detections) == 1:
            names = f"its only file name, {missing[0]}, " + (
                "does not exist" if listed is None else f"is no image below {listed.root}"
            )
        raise DSAError(f"{source}: {names}{hint}")
    bar = tqdm(named.items(), desc="images", unit="image", leave=False, disable=None)
    tasks = [ImageTask(Path(x.image), path, x.found.people, _measure(x)) for path, x in bar]
    alone = [] if listed is None or with_folders else [x.name for x in named.values() if _names_folders(x)]
    return FoundTasks(tasks, missing, alone)


def _names_folders(image: _Named) -> bool:
    """Whether an image, or its name in the source, comes with a folder."""
    return names_folders(image.name) or names_folders(image.found.file_name)


def _find_image(
    found: Detections, listed: DataImages | None, source: Path, with_folder: bool
) -> _Named | None:
    if listed is not None:
        name = listed.find(found.file_name, source, with_folder)
        return None if name is None else _Named(name, str(listed.root / name), found)
    image = existing(found.file_name)
    if image is None:
        return None
    return _Named(os.path.join(*os.path.abspath(image).split(os.sep)[-2:]), image, found)


def _refuse_collision(
    source: Path, path: Path, one: _Named | None, other: _Named, listed: DataImages | None
) -> None:
    """Raise DSAError if a map would overwrite an image, or the map of another image."""
    if path.exists() and path.samefile(other.image):
        raise DSAError(f"{path}: this is an image, and its map would overwrite it; write to ROOT/iuv")
    if one is None:
        return
    if listed is not None and one.name != other.name:
        raise DSAError(
            f"{source}: {share_a_map(one.name, other.name, listed.root)}, and its name in the source"
        )
    if one.found.file_name == other.found.file_name:
        raise DSAError(f"{source}: {one.found.file_name} is in it twice; leave one of the two out")
    hint = "; give `data=ROOT`, the folder of the images" if one.image != other.image else ""
    raise DSAError(
        f"{source}: {one.found.file_name} and {other.found.file_name} would both be written as {path}"
        f"{unicode_note(one.found.file_name, other.found.file_name)}{hint}"
    )


def _measure(image: _Named) -> SeenImage:
    boxes = [person.box for person in image.found.people if person.box is not None]
    header = image_header(image.image)
    return SeenImage(image.name, header.size, header.turn, boxes, image.found.size)
