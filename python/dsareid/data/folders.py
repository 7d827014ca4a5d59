"""Which files below a folder are images: one rule for every command.

Links to folders are followed. Hidden files and folders are skipped, and so are those that operating systems
put beside pictures (thumbnails, a Mac's __MACOSX). Names are compared in Unicode's form NFC, because `é`
comes in two forms, one of them from Macs; files keep their names.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from dsareid.data.images import SUFFIXES
from dsareid.ground.errors import DSAError

_SYSTEM_NAMES = {
    "__macosx",
    *("@eadir", "@recycle", "#recycle", "#snapshot"),
    *("$recycle.bin", "system volume information", "thumbs.db", "desktop.ini"),
    "lost+found",
}
_MOST_WAYS = 16  # paths to one folder, through links; more are a maze
_Identity = tuple[int, int]  # device and inode


class FolderFiles(NamedTuple):
    """The files of one folder that are not hidden, sorted. Links to files count, dangling ones too."""

    folder: str  # relative to the root of the walk, with "/"; "" for the root itself
    images: list[str]  # names with the suffix of an image
    others: list[str]

    def path(self, name: str) -> str:
        """A name with its folder."""
        return f"{self.folder}/{name}" if self.folder else name


def nfc(name: str) -> str:
    """A name in the form in which names are compared."""
    return unicodedata.normalize("NFC", name)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is skipped."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def is_image(name: str) -> bool:
    """Whether a name has the suffix of an image and is not hidden."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def image_names(names: Iterable[str]) -> list[str]:
    """The names of images, sorted."""
    return sorted(filter(is_image, names))


def walk(
    root: Path, without: Iterable[Path] = (), unreadable: list[str] | None = None
) -> Iterator[FolderFiles]:
    """Yield `root` and every folder below it, a folder before those in it, siblings sorted by name.

    Args:
        root: where to begin.
        without: folders to skip, with everything in them.
        unreadable: a list; folders that cannot be listed are added to it. None: such a folder is an error, as
            `root` always is.

    Raises:
        DSAError: no folder, one that cannot be listed, or links that lead to one folder again and again.
    """
    passed_over = {path.absolute() for path in without}
    ways: Counter[_Identity] = Counter()  # to each folder
    pending: list[tuple[str, frozenset]] = [("", frozenset({_identity(root)}))]
    while pending:
        folder, above = pending.pop()
        try:
            files, folders = _list(root / folder)
        except DSAError:
            if unreadable is None or not folder:
                raise
            unreadable.append(folder)
            continue
        yield FolderFiles(folder, image_names(files), sorted(x for x in files if not is_image(x)))
        for name in sorted(folders, reverse=True):
            inner, identity = f"{folder}/{name}" if folder else name, folders[name]
            if (root / inner).absolute() in passed_over or identity in above:
                continue  # a link to a folder above itself
            ways[identity] += 1
            if ways[identity] > _MOST_WAYS:
                raise DSAError(
                    f"{root / inner}: more than {_MOST_WAYS} ways lead to this folder, through links"
                )
            pending.append((inner, above | {identity}))


def find_images(root: Path) -> tuple[list[str], list[str]]:
    """All images and all other files below a folder, relative to it, each sorted; a data set's maps (iuv) are
    left out.

    Raises:
        DSAError: as walk; no image.
    """
    images: list[str] = []
    others: list[str] = []
    for files in walk(root, [root / "iuv"]):
        images += map(files.path, files.images)
        others += map(files.path, files.others)
    if not images:
        more = f"; {left_out(others)}" if others else ""
        raise DSAError(f"{root}: no images in it or below ({', '.join(SUFFIXES)}){more}")
    return sorted(images), sorted(others)


def left_out(others: list[str]) -> str:
    """A note about files that are no images; empty if there are none."""
    if not others:
        return ""
    if len(others) == 1:
        return f"{others[0]} is skipped: files of its kind are not read"
    return f"{len(others):,} files are skipped, the first {others[0]}: files of their kinds are not read"


def _list(place: Path) -> tuple[list[str], dict[str, _Identity]]:
    """The names of files in a folder that are not hidden, and its folders."""
    files: list[str] = []
    folders: dict[str, _Identity] = {}
    try:
        with os.scandir(place) as found:
            for entry in found:
                if is_hidden(entry.name):
                    continue
                identity = _identity(entry.path) if _is_folder(entry) else None
                if identity is None:
                    files.append(entry.name)
                else:
                    folders[entry.name] = identity
    except OSError as error:
        raise DSAError(f"{place}: cannot be listed: {error.strerror}") from error
    return files, folders


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(folder: str | os.PathLike) -> _Identity | None:
    """The identity of a folder, whatever link leads to it; None if it has just been removed."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino
