"""Which image of a data set a file name of a source means.

Paths are compared in Unicode's form NFC, by their longest common end; among equals, an image with the file
name's own suffix is preferred.
"""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from dsareid.data.folders import image_names, nfc, walk
from dsareid.data.images import SUFFIXES
from dsareid.data.iuv import INSTANCES_END, MAP_END
from dsareid.densepose.pictures import SHEET
from dsareid.ground.errors import DSAError, logger, quoted


class DataImages:
    """The images below ROOT, without those of `iuv` and DST.

    Names are relative to ROOT, as query/NAME.jpg. Logs a name that no source can hold.

    Raises:
        DSAError: no folder, one that cannot be listed, or no image in it.
    """

    def __init__(self, root: Path, out: Path):
        if not root.is_dir():
            raise DSAError(f"`data={root}`: {'not a folder' if root.exists() else 'no such folder'}")
        self.root, self.out = root, out
        self._base = PurePosixPath(nfc(root.absolute().as_posix())).parts
        self.names: list[str] = []
        self.unprintable: list[str] = []  # control characters, or not UTF-8
        for files in walk(root, without=(out, root / "iuv")):
            for name in files.images:
                # Maps may lie beside the images.
                if not os.path.splitext(name)[0].endswith((MAP_END, INSTANCES_END)):
                    path = files.path(name)
                    (self.names if path.isprintable() else self.unprintable).append(path)
        if not self.names and not self.unprintable:
            raise DSAError(f"`data={root}`: no images in it (expected *.jpg, *.png or the like)")
        if self.unprintable:
            logger.warning(
                f"{root}: images whose names no source can hold (not UTF-8, or not printable), "
                f"{len(self.unprintable):,} in all, such as {printable(self.unprintable[0])}: rename them"
            )
        self._by_path: dict[tuple[str, ...], list[str]] = {}  # by all parts
        self._by_end: dict[tuple[str, ...], list[str]] = {}  # by each end of their paths
        for name in self.names:
            parts = _parts(name)
            self._by_path.setdefault(parts, []).append(name)
            for start in range(len(parts)):
                self._by_end.setdefault(parts[start:], []).append(name)

    def find(self, file_name: str, source: Path, with_folder: bool = False) -> str | None:
        """The image that a file name means; None if there is none.

        Args:
            file_name: of a source.
            source: where it is from.
            with_folder: whether a file name that has folders must have one in common with the image.

        Raises:
            DSAError: it may be one of several.
        """
        parts = _parts(file_name)
        length, found = self._longest(parts)
        if with_folder and length == 1 and names_folders(file_name):
            return None
        likeness = {name: _same_suffix(file_name, name) for name in found}
        most = max(likeness.values(), default=None)
        best = sorted(name for name, like in likeness.items() if like == most)
        if len(best) > 1:
            raise self._ambiguous(file_name, best, source)
        return best[0] if best else None

    def common_parts(self, file_name: str) -> int:
        """The number of parts at the end of a file name's path, the name included, that an image has too."""
        return self._longest(_parts(file_name))[0]

    def _longest(self, parts: tuple[str, ...]) -> tuple[int, list[str]]:
        """The length of the longest end that a path shares with those of images, and these images."""
        ends = [parts[start:] for start in range(len(parts))]  # the longest first
        longest = next((end for end in ends if end in self._by_end), ())
        length, found = len(longest), self._by_end.get(longest, [])
        for end in ends:
            if end in self._by_path:  # an image as a whole, so that ROOT's own folders are compared too
                above = parts[: len(parts) - len(end)]
                further = len(end) + _common_end(above, self._base)
                if further > length:
                    length, found = further, self._by_path[end]
                elif further == length and further > len(end):
                    found = found + self._by_path[end]
        return length, found

    def sharing(self, name: str) -> list[str]:
        """The other images that would have the same map: those that differ only in the suffix."""
        return [other for other in self._by_path[_parts(name)] if other != name]

    def _ambiguous(self, file_name: str, best: list[str], source: Path) -> DSAError:
        one, other = best[:2]
        if other in self.sharing(one):
            return DSAError(f"{source}: {file_name}: {share_a_map(one, other, self.root)}")
        folder = os.path.dirname(one) or os.path.dirname(other)
        return DSAError(
            f"{source}: {file_name} may be {one} or {other} of {self.root}; run DensePose on each folder "
            f"separately, and convert its output with `data={self.root / folder}` into "
            f"{quoted(self.out / folder)}, and so on"
        )


def check_place(root: Path, out: Path) -> None:
    """Raise DSAError if maps in DST would be taken for images of ROOT; in ROOT/iuv they are not.

    A folder below ROOT that is for maps alone is allowed.
    """
    base, place = Path(os.path.realpath(root)), Path(os.path.realpath(out))
    if place == base:
        raise DSAError(f"{out}: {_among_images(root)}")
    if not place.is_relative_to(base) or place.is_relative_to(base / "iuv"):
        return
    folder = place
    while folder != base:
        if _images_in(folder) - (_maps_of(base) if folder == place else {SHEET}):
            raise DSAError(f"{out}: {folder} holds images, and {_among_images(root)}")
        folder = folder.parent


def _among_images(root: Path) -> str:
    return (
        f"the maps would be taken for images of `data={root}`; write to "
        f"{quoted(root / 'iuv')} or to a folder outside"
    )


def _images_in(folder: Path) -> set[str]:
    return set(image_names(os.listdir(folder))) if folder.is_dir() else set()


def _maps_of(folder: Path) -> set[str]:
    """The files that an earlier call may have left: maps of a folder's images, and their contact sheet."""
    stems = {os.path.splitext(name)[0] for name in _images_in(folder)}
    return {SHEET, *(f"{stem}{end}.png" for stem in stems for end in ("", MAP_END))}


def names_folders(file_name: str) -> bool:
    """Whether a file name comes with a folder."""
    return any(part not in ("/", ".") for part in _parts(file_name)[:-1])


def share_a_map(one: str, other: str, root: Path) -> str:
    """A message about two images with one map."""
    return (
        f"{one} and {other} of {root} would share one map{unicode_note(one, other)}: rename one of the images"
    )


def unicode_note(one: str, other: str) -> str:
    """A note about two names that look alike in print; empty if they do not."""
    one, other = os.path.splitext(one)[0], os.path.splitext(other)[0]
    if one == other or nfc(one) != nfc(other):
        return ""
    return " (the names look alike, but differ in their Unicode form, NFC and NFD)"


def existing(file_name: str) -> str | None:
    """A file name as it is, or in another form of Unicode; None if there is no such file."""
    forms = (file_name, nfc(file_name), unicodedata.normalize("NFD", file_name))
    return next((form for form in forms if os.path.isfile(form)), None)


def without_maps(images: DataImages) -> list[str]:
    """The images without a map in DST, even if no source can name them, as printable names.

    Counts only folders of ROOT in which others have one: Market-1501's gt_bbox and images need maps only for
    some uses. Its junk, whose names begin with -1_, does not count.
    """
    maps = _map_stems(images.out)
    names = images.names + images.unprintable
    missing = [name for name in names if nfc(os.path.splitext(name)[0]) not in maps]
    begun = {_top(name) for name in set(names) - set(missing)}
    return [
        printable(name)
        for name in missing
        if _top(name) in begun and not os.path.basename(name).startswith("-1_")
    ]


def printable(name: str) -> str:
    """A name with escapes for what is not printable, such as bytes that are not UTF-8."""
    return "".join(x if x.isprintable() else x.encode("unicode_escape").decode() for x in name)


def _map_stems(out: Path) -> set[str]:
    """The paths of maps without .png and _IUV, in NFC."""
    files = (file for folder in walk(out) for file in map(folder.path, folder.images))
    split: Iterable[tuple[str, str]] = map(os.path.splitext, files)
    return {nfc(stem.removesuffix(MAP_END)) for stem, suffix in split if suffix.lower() == ".png"}


def _parts(file_name: str) -> tuple[str, ...]:
    """The folders and the name without an image's suffix, of a path of any system, in NFC."""
    stem, suffix = os.path.splitext(nfc(file_name).replace("\\", "/"))
    path = stem if suffix.lower() in SUFFIXES else stem + suffix
    return PurePosixPath(path).parts or ("",)


def _common_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length


def _same_suffix(one: str, other: str) -> tuple[bool, bool]:
    """Whether two names end in the same suffix: in any case of letters, and letter by letter."""
    a, b = os.path.splitext(one)[1], os.path.splitext(other)[1]
    return a.lower() == b.lower(), a == b


def _top(name: str) -> str:
    """The first folder of an image's path; empty if there is none."""
    return name.partition("/")[0] if "/" in name else ""
