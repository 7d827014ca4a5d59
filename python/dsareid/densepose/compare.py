"""Comparing the maps of a folder with others, or with the points of DensePose-COCO."""

import csv
import math
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dsa_ext.parts import NAMES
from dsareid.data.folders import nfc
from dsareid.densepose.agreement import Agreement, Scores, compare_pixels, compare_points
from dsareid.densepose.coco_points import MarkedPerson, read_marked_people
from dsareid.densepose.map_folder import MapFolder, find_maps
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path
from dsareid.ground.machine import on_threads

LEVELS = 0.5, 0.75  # of GPS and GPSm
_TITLES = ("IoU", "parts", "|dU|", "|dU| 90%", "|dV|", "|dV| 90%", "GPS", "GPSm")


@dataclass
class Comparison:
    """What compare_maps found."""

    a: Path  # the folder that was compared
    b: Path  # the folder or file that it was compared with
    people: dict[str, Scores] = field(default_factory=dict)  # by the map's name; with points by NAME#N
    total: Agreement = field(default_factory=Agreement)  # the counts of all people together
    notes: list[str] = field(default_factory=list)

    def mean(self) -> Scores:
        """The mean over people of each score; the quantiles of U and V are over all pixels instead."""
        means = Scores(*(_mean(column) for column in zip(*self.people.values())))
        whole = self.total.scores()
        return means._replace(
            u_median=whole.u_median, u_90=whole.u_90, v_median=whole.v_median, v_90=whole.v_90
        )

    def parts(self) -> dict[str, Scores]:
        """The scores of each part that B shows, over all people; a part has no GPSm."""
        shown = [part for part in range(1, 25) if self.total.points[part - 1]]
        scores = {part: self.total.of_part(part).scores() for part in shown}
        return {f"{part} {NAMES[part - 1]}": found._replace(gpsm=math.nan) for part, found in scores.items()}

    def above(self, level: float) -> tuple[float, float]:
        """The share of people with at least this GPS, of those that have one, and the same for GPSm."""
        columns = list(zip(*((x.gps, x.gpsm) for x in self.people.values())))
        gps, gpsm = (_mean(x if math.isnan(x) else x >= level for x in column) for column in columns)
        return gps, gpsm

    def table(self) -> str:
        """Everybody, then each part, then notes, as aligned text."""
        rows = {f"all {len(self.people):,}": self.mean(), **self.parts()}
        width = max(map(len, rows))
        lines = [f"{self.a} compared with {self.b}"]
        lines += [" " * width + "".join(f"{title:>10}" for title in _TITLES)]
        for name, scores in rows.items():
            cells = ("-" if math.isnan(score) else f"{score:.3f}" for score in scores)
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>10}" for cell in cells))
        for level in LEVELS:
            gps, gpsm = ("-" if math.isnan(share) else f"{share:.1%}" for share in self.above(level))
            lines.append(f"people with at least {level}: GPS {gps}, GPSm {gpsm}")
        return "\n".join([*lines, *self.notes])

    def write_csv(self, path: str | os.PathLike) -> None:
        """Write a row for everybody, for each part and for each person; unknown scores stay empty.

        Raises:
            DSAError: the file cannot be written.
        """
        kinds = {"all": {"all": self.mean()}, "part": self.parts(), "person": self.people}
        with (
            atomic_path(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["kind", "name", *Scores._fields])
            for kind, rows in kinds.items():
                for name, scores in rows.items():
                    table.writerow([kind, name, *("" if math.isnan(x) else f"{x:.5f}" for x in scores)])


def compare_maps(a: str | os.PathLike, b: str | os.PathLike) -> Comparison:
    """Compare the maps in A with those of the same names in B, the reference, with a progress bar.

    People whom B does not show are left out, with a note.

    Args:
        a: a folder of maps, NAME.png or NAME_IUV.png, or a data set with maps.
        b: another such folder, or annotations of DensePose-COCO (.json); then a has maps of their images.

    Raises:
        DSAError: a folder without maps, no map of the same name, two of different sizes, a file that cannot
            be read or is something else.
    """
    own, right = find_maps(Path(a)), Path(b)
    if right.is_dir():
        other = find_maps(right)
        found = Comparison(own.place, other.place)
        compare, names = _comparer(own, other), set(other.maps)
    elif right.suffix.lower() == ".json":
        people: dict[str, list[MarkedPerson]] = {}
        for person in read_marked_people(right):
            people.setdefault(nfc(person.image), []).append(person)
        found = Comparison(own.place, right)
        compare, names = _point_comparer(own, people), set(people)
    else:
        what = "neither a folder of maps nor a .json" if right.exists() else "no such folder or file"
        raise DSAError(f"{right}: {what}")
    _compare(found, set(own.maps), names, compare)
    return found


def _compare(
    found: Comparison,
    own: set[str],
    others: set[str],
    compare: Callable[[str], dict[str, Agreement]],
) -> None:
    """Compare what both sides have, add it up, and note what is left out."""
    if not own & others:
        raise DSAError(
            f"{found.a} and {found.b} have no map of the same name: the first are {min(own)} "
            f"and {min(others)}"
        )
    empty = 0
    for people in _run(compare, sorted(own & others)):
        for name, counts in people.items():
            if counts.points.any():
                found.people[name] = counts.scores()
                found.total += counts
            else:
                empty += 1
    if not found.people:
        raise DSAError(f"{found.b}: no map shows anybody")
    if empty:
        found.notes.append(f"left out because B shows nobody: {_count(empty)}")
    masked = sum(not math.isnan(scores.iou) for scores in found.people.values())
    if masked < len(found.people):
        found.notes.append(f"without a mask in B, so without IoU and GPSm: {len(found.people) - masked:,}")
    for place, names in ((found.a, own - others), (found.b, others - own)):
        if names:
            found.notes.append(
                f"left out because only in {place}: {_count(len(names))}, the first {min(names)}"
            )


def _comparer(own: MapFolder, other: MapFolder) -> Callable[[str], dict[str, Agreement]]:
    def compare(name: str) -> dict[str, Agreement]:
        one, right = own.maps[name].chart(), other.maps[name].chart()
        if one.shape != right.shape:
            sizes = f"{_size(one)} in {own.place} and {_size(right)} in {other.place}"
            raise DSAError(f"the map {name} is {sizes}")
        return {name: compare_pixels(one, right)}

    return compare


def _point_comparer(
    own: MapFolder, people: dict[str, list[MarkedPerson]]
) -> Callable[[str], dict[str, Agreement]]:
    def compare(name: str) -> dict[str, Agreement]:
        chart = own.maps[name].chart()
        for person in people[name]:
            if not person.fits(*chart.shape[1:]):
                raise DSAError(
                    f"the map {name} is {_size(chart)} in {own.place}, but its annotations are of an image "
                    "of another size"
                )
        return {f"{name}#{k}": _at_points(chart, person) for k, person in enumerate(people[name], 1)}

    return compare


def _at_points(chart: np.ndarray, person: MarkedPerson) -> Agreement:
    """A map of a whole image, uint8 [3, H, W], at a person's points and in the person's box."""
    rows, columns = person.pixels(*chart.shape[1:])
    found = compare_points(chart[:, rows, columns], person.part, person.uv)
    found.either[:] = 0  # the masks of single parts are not known
    if person.mask is not None:
        seen = person.seen_in(chart[0] > 0)
        found.overlap, found.union = int((seen & person.mask).sum()), int((seen | person.mask).sum())
    return found


def _run(work: Callable, names: list[str]) -> Iterator:
    """The work on all names, in order, on all cores."""
    found = on_threads(work, names)
    return iter(tqdm(found, "comparing", len(names), unit="map", leave=False, disable=None))


def _size(chart: np.ndarray) -> str:
    return f"{chart.shape[2]}x{chart.shape[1]}"


def _count(maps: int) -> str:
    return f"{maps:,} map{'s' * (maps != 1)}"


def _mean(values: Iterable[float]) -> float:
    """The mean of the known ones."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
