"""Comparing the maps of a folder with others, or with the points of DensePose-COCO."""

import csv
import math
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dsa_ext.parts import NAMES
from dsareid.data.folders import nfc
from dsareid.densepose.agreement import Agreement, Scores, compare_pixels, compare_points
from dsareid.densepose.coco_points import MarkedPerson, read_marked_people
from dsareid.densepose.lists import SHEET
from dsareid.densepose.map_folder import WholeMap, list_maps
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, place_for
from dsareid.ground.machine import cores

LEVELS = 0.5, 0.75  # of GPS and GPSm
_TITLES = ("IoU", "parts", "|dU|", "90 %", "|dV|", "90 %", "GPS", "GPSm")


@dataclass
class Comparison:
    """What compare_maps found."""

    people: dict[str, Agreement] = field(default_factory=dict)  # by the map's name; of points NAME#N
    notes: list[str] = field(default_factory=list)
    marked: bool = False  # whether B is points

    @property
    def total(self) -> Agreement:
        """The counts of all people together."""
        return sum(self.people.values(), Agreement())

    def mean(self) -> Scores:
        """The mean over people of each score but of |dU| and |dV|, whose quantiles are over all pixels."""
        scores = [person.scores() for person in self.people.values()]
        means = Scores(*(_mean(column) for column in zip(*scores)))
        whole = self.total.scores()
        return means._replace(
            u_median=whole.u_median, u_90=whole.u_90, v_median=whole.v_median, v_90=whole.v_90
        )

    def parts(self) -> dict[str, Scores]:
        """The scores of each part that B shows, over all people."""
        total, found = self.total, {}
        for part, name in enumerate(NAMES, 1):
            if total.points[part - 1]:
                scores = total.of_part(part).scores()
                nothing = {"gpsm": math.nan} | ({"iou": math.nan} if self.marked else {})
                found[f"{part} {name}"] = scores._replace(**nothing)
        return found

    def above(self, level: float) -> tuple[float, float]:
        """The shares of people with at least this GPS, and this GPSm."""
        scores = [person.scores() for person in self.people.values()]
        return _mean([x.gps >= level for x in scores]), _mean([x.gpsm >= level for x in scores])

    def table(self) -> str:
        """Everybody, then each part, as aligned text."""
        rows = {f"all {len(self.people):,}": self.mean(), **self.parts()}
        width = max(map(len, rows))
        lines = [" " * width + "".join(f"{title:>8}" for title in _TITLES)]
        for name, scores in rows.items():
            cells = ("-" if math.isnan(score) else f"{score:.3f}" for score in scores)
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>8}" for cell in cells))
        for level in LEVELS:
            gps, gpsm = self.above(level)
            lines.append(f"people of at least {level}: GPS {gps:.1%}, GPSm {gpsm:.1%}")
        return "\n".join(lines)

    def write_csv(self, path: str | os.PathLike) -> None:
        """Write the rows of everybody, of each part and of each person; what is not known stays empty."""
        people = {name: person.scores() for name, person in self.people.items()}
        kinds = {"all": {"all": self.mean()}, "part": self.parts(), "person": people}
        with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["kind", "name", *Scores._fields])
            for kind, rows in kinds.items():
                for name, scores in rows.items():
                    table.writerow([kind, name, *("" if math.isnan(x) else f"{x:.5f}" for x in scores)])


def compare_maps(a: str | os.PathLike, b: str | os.PathLike) -> Comparison:
    """Compare maps with those of the same names that are taken for right, with a progress bar.

    Args:
        a: a folder of maps, NAME.png or NAME_IUV.png, or a data set with maps.
        b: another; or the annotations of DensePose-COCO, .json, whose images a has maps of.

    Raises:
        DSAError: a folder without maps, no map of the same name, two of different sizes, a file that cannot
            be read or is something else.
    """
    maps, right = _maps(Path(a)), Path(b)
    if right.is_dir():
        return _with_maps(maps, _maps(right), f"{a}", f"{b}")
    if right.suffix.lower() != ".json":
        what = "neither a folder of maps nor a .json" if right.exists() else "no such folder or file"
        raise DSAError(f"{right}: {what}")
    return _with_points(maps, read_marked_people(right), f"{a}", f"{b}")


def _maps(root: Path) -> dict[str, WholeMap]:
    """The maps of a folder by name; of a data set those of its images."""
    if not root.is_dir():
        raise DSAError(f"{root}: {'not a folder' if root.exists() else 'no such folder'} of maps")
    inside = [place for place in (root / "iuv", place_for(root) / "iuv") if place.is_dir()]
    place = inside[0] if inside else root
    found = {nfc(each.name): each for each in list_maps(place)[0] if each.name != Path(SHEET).stem}
    if not found:
        raise DSAError(f"{place}: no NAME_IUV.png or NAME.png in this folder or below")
    return found


def _with_maps(maps: dict[str, WholeMap], right: dict[str, WholeMap], a: str, b: str) -> Comparison:
    common = [name for name in right if name in maps]
    if not common:
        raise DSAError(
            f"{a} and {b} have no map of the same name: {next(iter(maps))} and the like, {next(iter(right))} "
            "and the like"
        )

    def compare(name: str) -> Agreement:
        one, other = maps[name].chart(), right[name].chart()
        if one.shape != other.shape:
            sizes = f"{one.shape[2]}x{one.shape[1]} in {a} and {other.shape[2]}x{other.shape[1]} in {b}"
            raise DSAError(f"the map {name} is {sizes}")
        return compare_pixels(one, other)

    found = Comparison(dict(zip(common, _run(compare, common))))
    found.notes += _only_in(a, maps.keys() - right.keys()) + _only_in(b, right.keys() - maps.keys())
    empty = {name: each.union for name, each in found.people.items() if not each.points.any()}
    if len(empty) == len(common):
        raise DSAError(f"{b}: no map shows anybody")
    if empty:
        seen = sum(union > 0 for union in empty.values())
        found.notes.append(
            f"left out: {len(empty):,} maps of {b} without a person; {a} shows one in {seen:,}"
        )
        found.people = {name: each for name, each in found.people.items() if name not in empty}
    return found


def _with_points(maps: dict[str, WholeMap], people: list[MarkedPerson], a: str, b: str) -> Comparison:
    by_image: dict[str, list[MarkedPerson]] = {}
    for person in people:
        by_image.setdefault(nfc(person.image), []).append(person)
    common = [name for name in by_image if name in maps]
    if not common:
        raise DSAError(f"{a}: no map of an image of {b}, such as {next(iter(by_image))}.png")

    def compare(name: str) -> list[Agreement]:
        chart = maps[name].chart()
        return [_marked(chart, person) for person in by_image[name]]

    found = Comparison(marked=True)
    for name, several in zip(common, _run(compare, common)):
        found.people |= {f"{name}#{number}": each for number, each in enumerate(several, 1)}
    found.notes += _only_in(a, maps.keys() - by_image.keys()) + _only_in(b, by_image.keys() - maps.keys())
    return found


def _marked(chart: np.ndarray, person: MarkedPerson) -> Agreement:
    """A map of a whole image, uint8 [3, H, W], at a person's points and in the person's box."""
    rows, columns = person.pixels(*chart.shape[1:])
    found = compare_points(chart[:, rows, columns], person.part, person.uv)
    seen = person.seen_in(chart[0] > 0)
    found.overlap, found.union = int((seen & person.mask).sum()), int((seen | person.mask).sum())
    return found


def _run(work: Callable, names: list[str]) -> Iterable:
    """The work on all names, in order, on all cores."""
    with ThreadPoolExecutor(cores()) as pool:
        try:
            yield from tqdm(
                pool.map(work, names), "comparing", len(names), unit="map", leave=False, disable=None
            )
        finally:
            pool.shutdown(cancel_futures=True)


def _only_in(place: str, names: set[str]) -> list[str]:
    if not names:
        return []
    return [f"left out: {len(names):,} only in {place}, as {min(names)}"]


def _mean(values: Iterable[float]) -> float:
    """The mean of the known ones."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
