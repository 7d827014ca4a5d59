"""A folder of maps of whole images: NAME_IUV.png of the classic Detectron, or NAME.png."""

import os
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel

from dsareid.data.folders import nfc, walk
from dsareid.data.iuv import INSTANCES_END, MAP_END, read_iuv
from dsareid.densepose.pictures import SHEET
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import place_for

MAPS, SMOOTHED, VIDEO = "maps", "smoothed", "video.json"  # in the folder of a video's maps


class WholeMap(NamedTuple):
    """The map of a whole image."""

    name: str  # its path below the folder, without .png and _IUV
    chart: Callable[[], np.ndarray]  # reads it: uint8 [3, H, W], I, U, V; DSAError


class VideoRecord(BaseModel):
    """The video whose maps a folder holds, in VIDEO."""

    video: str  # the file's name
    rate: str  # frames a second, as a fraction
    frames: int

    def frame_rate(self) -> Fraction:
        """Frames a second; DSAError if it is none."""
        try:
            rate = Fraction(self.rate)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not Fraction(1, 1000) <= rate <= 1000:
            raise DSAError(f"{VIDEO}: the rate must be 0.001..1000 frames a second, not {self.rate!r}")
        return rate.limit_denominator(10_000)


class MapFolder(NamedTuple):
    """The maps of a folder."""

    place: Path  # where they are
    maps: dict[str, WholeMap]  # by name, in NFC


def find_maps(root: Path) -> MapFolder:
    """The maps in a folder; of a data set those in its iuv, or in the user's cache; of a video the smoothed
    ones, if there are any.

    Raises:
        DSAError: no such folder, or no map in it; as list_maps.
    """
    if not root.is_dir():
        raise DSAError(f"{root}: {'not a folder' if root.exists() else 'no such folder'} of maps")
    places = [root / "iuv", place_for(root) / "iuv"]
    if (root / VIDEO).exists():
        places = [root / SMOOTHED, root / MAPS]
    inside = [place for place in places if place.is_dir()]
    place = inside[0] if inside else root
    found = {nfc(each.name): each for each in list_maps(place)[0]}
    if not found:
        raise DSAError(f"{place}: no NAME_IUV.png or NAME.png in this folder or below")
    return MapFolder(place, found)


def one_map(path: Path) -> MapFolder:
    """One map, NAME_IUV.png or NAME.png, and its folder. It is read later."""
    name = path.stem.removesuffix(MAP_END)
    return MapFolder(path.parent, {name: WholeMap(name, partial(_read, path, None))})


def list_maps(root: Path) -> tuple[list[WholeMap], list[str]]:
    """The maps below a folder, and the files in it that are none. Logs what may have been meant as a map.

    If some files are called NAME_IUV.png, only those are maps; NAME_INDS.png and the contact sheet never are.

    Raises:
        DSAError: a folder that cannot be listed, two maps of one name.
    """
    named, plain, others = _list_files(root)
    if not named:
        return [WholeMap(stem, partial(_read, root / file, None)) for stem, file in plain.items()], others
    if plain:
        logger.warning(
            f"{root}: PNGs that are not called NAME{MAP_END}.png, {len(plain):,} in all, such as "
            f"{next(iter(plain.values()))}, were not taken for maps (are they the photographs?)"
        )
    stray = [file for file in others if os.path.splitext(file)[0].endswith(MAP_END)]
    if stray:
        logger.warning(
            f"{root}: maps that are not PNGs, {len(stray):,} in all, such as {stray[0]}, were not read"
        )
    twins = {nfc(stem): root / file for stem, file in plain.items()}
    maps = [WholeMap(stem, partial(_read, root / file, twins.get(nfc(stem)))) for stem, file in named.items()]
    return maps, others + list(plain.values())


def _list_files(root: Path) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """The files NAME_IUV.png and NAME.png, each by its path without these ends, and all other files."""
    named: dict[str, str] = {}
    plain: dict[str, str] = {}
    others: list[str] = []
    for files in walk(root):
        for file in map(files.path, files.images + files.others):
            stem, suffix = os.path.splitext(file)
            if suffix.lower() != ".png" or stem.endswith(INSTANCES_END) or os.path.basename(file) == SHEET:
                others.append(file)
                continue
            maps = named if stem.endswith(MAP_END) else plain
            other = maps.setdefault(stem.removesuffix(MAP_END), file)
            if other != file:  # they differ in the suffix, .png and .PNG
                raise DSAError(f"{root}: {other} and {file} are maps of one image: remove one of them")
    return named, plain, others


def _read(path: Path, twin: Path | None) -> np.ndarray:
    """Read a map. `twin` is the file NAME.png beside NAME_IUV.png: the photograph, or an equal map."""
    iuv = read_iuv(path)
    if twin is not None:
        try:
            other = read_iuv(twin)
        except DSAError:  # the photograph
            return iuv.transpose(2, 0, 1)
        if not np.array_equal(iuv, other):
            raise DSAError(
                f"{path} and {twin} differ, and both may be the map of one image: move the wrong one away"
            )
    return iuv.transpose(2, 0, 1)
