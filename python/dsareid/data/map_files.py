"""Which file is the IUV map of an image.

ROOT/iuv/query/NAME.png, or NAME_IUV.png         of ROOT/query/NAME.jpg
$XDG_CACHE_HOME/dsareid/NAME-HASH/iuv/...        the same, if ROOT is not writable and holds none
"""

import filecmp
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dsareid.data.folders import nfc
from dsareid.data.iuv import MAP_END, read_iuv
from dsareid.ground.errors import DSAError
from dsareid.ground.files import place_for

if TYPE_CHECKING:  # not at run time: the layouts import this module
    from dsareid.data.layouts.base import Entry, Scan


class MapFiles:
    """The IUV maps of a data set."""

    def __init__(self, scan: "Scan"):
        place = place_for(scan.root)
        self._scans = [scan] if place == scan.root else [scan, type(scan)(place)]
        self._by_stem: dict[tuple[Path, str], dict[str, list[str]]] = {}  # of folders that have been listed

    def of(self, image: str) -> str | None:
        """The map of an image, None if it has none. Both paths are relative to the root; that of a map in the
        user's cache is absolute.

        Raises:
            DSAError: the image has two maps that differ.
        """
        own, *others = self._scans
        if found := self._find(own, image):
            return found
        return next((str(scan.root / found) for scan in others if (found := self._find(scan, image))), None)

    def _find(self, scan: "Scan", image: str) -> str | None:
        """The map of an image below the root of one scan, relative to that root."""
        folder, _, file = image.rpartition("/")
        maps = self._in_folder(scan, f"iuv/{folder}" if folder else "iuv")
        stem = nfc(os.path.splitext(file)[0])
        found = [*maps.get(stem, ()), *maps.get(f"{stem}{MAP_END}", ())]
        for other in found[1:]:
            if not _same_map(scan.root / found[0], scan.root / other):
                raise DSAError(
                    f"{scan.root}: {found[0]} and {other} differ, and both are the IUV map of {image}: "
                    "remove the wrong one"
                )
        return found[0] if found else None

    def _in_folder(self, scan: "Scan", folder: str) -> dict[str, list[str]]:
        """The .png files of a folder by their names without suffix."""
        key = scan.root, folder
        if key not in self._by_stem:
            self._by_stem[key] = {}
            if place := scan.find(folder):
                for name in sorted(scan(place)):
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() == ".png":
                        self._by_stem[key].setdefault(nfc(stem), []).append(f"{place}/{name}")
        return self._by_stem[key]


def _same_map(one: Path, other: Path) -> bool:
    if filecmp.cmp(one, other, shallow=False):
        return True
    a, b = read_iuv(one), read_iuv(other)
    return a.shape == b.shape and bool((a == b).all())


def check_no_map_is_shared(root: Path, entries: Iterable["Entry"]) -> None:
    """Raise DSAError if two images have the same map."""
    images: dict[str, str] = {}
    for entry in entries:
        if entry.iuv and (other := images.setdefault(entry.iuv, entry.name)) != entry.name:
            raise DSAError(
                f"{root}: {other} and {entry.name} share one IUV map, {entry.iuv}: rename one of the "
                "images, and its map"
            )
