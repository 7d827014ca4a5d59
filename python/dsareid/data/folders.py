"""Which files below a folder are images: one rule for every command.

Links to folders are followed. Hidden files and folders, and those that systems put beside pictures
(thumbnails, what a Mac packs into a zip), are passed over. Names are compared in Unicode's form NFC, as `é`
comes in two forms, one of them from Macs; files keep the names that they have.
"""

import os
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dsareid.data.images import SUFFIXES
from dsareid.ground.errors import DSAError

_OF_SYSTEMS = {
    "__macosx",
    *("@eadir", "#recycle", "#snapshot"),
    *("$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"),
    "lost+found",
}


class FolderFiles(NamedTuple):
    """The files of one folder that are not hidden, sorted; links to files are files, also dangling ones."""

    folder: str  # relative to where the walk began, with "/"; "" for that folder itself
    images: list[str]  # names that end as those of images
    others: list[str]

    def path(self, name: str) -> str:
        """A name with its folder."""
        return f"{self.folder}/{name}" if self.folder else name


def nfc(name: str) -> str:
    """A name in the form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_image(name: str) -> bool:
    """Whether a name ends as that of an image and is not hidden."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def image_names(names: Iterable[str]) -> list[str]:
    """The names of images, sorted."""
    return sorted(filter(is_image, names))


def walk(root: Path, without: Iterable[Path] = ()) -> Iterator[FolderFiles]:
    """Every folder below `root`, itself first, those beside each other in the order of their names.

    Args:
        root: where to begin.
        without: folders that are passed over with all that is in them.

    Raises:
        DSAError: no folder, or one that cannot be listed.
    """
    left_out = {path.absolute() for path in without}
    pending: list[tuple[str, frozenset]] = [("", frozenset())]
    while pending:
        folder, above = pending.pop()
        place = root / folder
        files, folders = _list(place)
        yield FolderFiles(folder, image_names(files), sorted(x for x in files if not is_image(x)))
        above |= {_identity(place)}
        for name in sorted(folders, reverse=True):
            inner = f"{folder}/{name}" if folder else name
            # A link may lead to a folder that it is in.
            if (root / inner).absolute() not in left_out and _identity(root / inner) not in above:
                pending.append((inner, above))


def find_images(root: Path) -> tuple[list[str], list[str]]:
    """All images below a folder and all other files, relative to it, each sorted.

    Raises:
        DSAError: as walk; no image.
    """
    images: list[str] = []
    others: list[str] = []
    for files in walk(root):
        images += map(files.path, files.images)
        others += map(files.path, files.others)
    if not images:
        raise DSAError("; ".join(filter(None, [_no_images(root), left_out(others)])))
    return sorted(images), sorted(others)


def _no_images(root: Path) -> str:
    return f"{root}: no images in it or below ({', '.join(SUFFIXES)})"


def left_out(others: list[str]) -> str:
    """What to say of files that are no images; empty where there is none."""
    if not others:
        return ""
    if len(others) == 1:
        return f"{others[0]} is left out, as it is no image by its name"
    return (
        f"{len(others):,} files are left out, as they are no images by their names; the first is {others[0]}"
    )


def _list(place: Path) -> tuple[list[str], list[str]]:
    """The names of files and of folders in a folder that are not hidden."""
    files: list[str] = []
    folders: list[str] = []
    try:
        with os.scandir(place) as found:
            for entry in found:
                if not is_hidden(entry.name):
                    (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise DSAError(f"{place}: cannot be listed: {error.strerror}") from error
    return files, folders


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
