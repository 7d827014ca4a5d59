"""Writing DensePose output as the IUV maps of a data set.

    DST/query/NAME.png          the map of ROOT/query/NAME.jpg, in the classic file's order
    DST/no_detection.txt        the images whose map is all background: nobody was found in them, or only
                                outside the image
    DST/no_map.txt              the images without a map, in folders of ROOT in which others have one
    DST/several_people.csv      the people of images in which several were found, or nobody with the minimum
                                score: image, box (x0 y0 x1 y1 in the source's pixels), score, share of the
                                image that it covers, chosen or not
    DST/contact_sheet.png       a sample, to look at

A file that would be empty is not there: nobody was missed, every image has its map.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.densepose.estimate_tasks import RECORD
from dsareid.densepose.lists import (
    NO_DETECTION,
    NO_MAP,
    SEVERAL,
    check_lists,
    update_names,
    update_people,
    write_names,
)
from dsareid.densepose.naming import DataImages, check_place, without_maps
from dsareid.densepose.people import MIN_SCORE, Choice, check_min_score, choose_person, warn_of_scores
from dsareid.densepose.pictures import SHEET, write_contact_sheet
from dsareid.densepose.seen_size import (
    Scale,
    SeenImage,
    Size,
    check_sizes,
    leaves,
    parse_scale,
    wrong_map_size,
)
from dsareid.densepose.sources import Detections, Person, read_source
from dsareid.densepose.tasks import ImageTask, find_tasks
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import make_folder


@dataclass
class ConversionReport:
    """What became of a source. Images are named relative to ROOT, as query/NAME.jpg."""

    out: Path
    written: int = 0
    kept: int = 0  # maps that were there already
    differing: list[str] = field(default_factory=list)  # the kept map is not what this call would write
    several: list[str] = field(default_factory=list)  # several boxes overlap it; without those in `below`
    scored: bool = False  # the source has scores
    below: list[str] = field(default_factory=list)  # nobody has the minimum score: the best was taken
    refused: int = 0  # people in the image who were not chosen because of their score
    no_detection: list[str] = field(default_factory=list)  # the map is all background: nobody was found
    empty: list[str] = field(default_factory=list)  # the same, although somebody was found
    outside: list[str] = field(default_factory=list)  # a box leaves the image by more than a pixel
    turned: list[str] = field(default_factory=list)  # turned upright by EXIF data
    shared: list[str] = field(default_factory=list)  # shares a map: only its suffix differs
    not_found: list[str] = field(default_factory=list)  # file names of the source without an image
    by_last_part: list[str] = field(default_factory=list)  # found by their names only, not by their folders
    no_map: list[str] = field(default_factory=list)
    sheet: Path | None = None  # None: nobody was found in any image


class _Rules(NamedTuple):
    """How maps are made."""

    min_score: float
    scale: Scale | None  # None: 1, and boxes are checked
    overwrite: bool

    def size(self, image: SeenImage) -> Size:
        """The size of the image that DensePose saw."""
        return (self.scale or Scale()).seen(image.size)


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    data: str | os.PathLike | None = None,
    *,
    images: str | os.PathLike | None = None,
    min_score: float = MIN_SCORE,
    scale: float | str | None = None,
    overwrite: bool = False,
) -> ConversionReport:
    """Write the IUV map of every image that a source names, with a progress bar.

    If an image has several people, uses the one whose box covers most of it among those with at least
    `min_score`; if nobody has that, the one with the best score. An interrupted call leaves whole maps; the
    next call keeps them, and reports those that it would have made differently.

    Args:
        source: DensePose output in any form of read_source.
        out: the folder to write to, normally ROOT/iuv; it is created.
        data: ROOT, the images' folder. File names are found in it by the longest end of their path that
            fits. Default: they must exist as they are, and only their last folder is kept.
        images: COCO annotations that name the images of COCO results.
        min_score: the minimum score, 0..1. People without a score have it.
        scale: the size at which DensePose saw the images: a factor, 1/64..64, or one size for all, as
            "128x256". Maps get the size of the images, by nearest neighbour. A source whose boxes do not fit
            is refused. None is 1 with that check; 1 takes the boxes as they are.
        overwrite: replace maps that are there already.

    Raises:
        DSAError: a source that is not as it must be, no image found, a file name that fits two images, two
            file names for one map, an image that cannot be read, a map of another size, boxes of images of
            another size, or a folder that is not writable or in which maps would be taken for images of
            ROOT.
    """
    source, out = Path(source), Path(out)
    check_min_score(min_score)
    rules = _Rules(min_score, None if scale is None else parse_scale(scale), overwrite)
    listed = None if data is None else DataImages(Path(data), out)
    if listed is not None:
        check_place(listed.root, out)
    report, choices = ConversionReport(out), {}
    tasks = _plan(source, read_source(source, images), listed, rules, report)
    for folder in {task.out.parent for task in tasks}:
        make_folder(folder)
    check_lists(out)
    shown = []
    try:
        for task in tqdm(tasks, desc="IUV maps", unit="image", leave=False, disable=None):
            choices[task.name] = choose_person(task.people, rules.size(task.seen), min_score)
            if _convert_image(task, choices[task.name], rules, report):
                shown.append(task)
    except KeyboardInterrupt as interrupt:
        done = report.written + report.kept
        raise KeyboardInterrupt(
            f"interrupted: {done:,} of {len(tasks):,} maps are in {out}; the same command resumes"
        ) from interrupt
    _write_lists(report, choices, listed)
    if shown:
        report.sheet = out / SHEET
        write_contact_sheet(report.sheet, [(task.name, task.image, task.out) for task in shown])
    return report


def _plan(
    source: Path,
    detections: list[Detections],
    listed: DataImages | None,
    rules: _Rules,
    report: ConversionReport,
) -> list[ImageTask]:
    """What is to be done, checked as a whole before anything is written."""
    tasks, report.not_found, report.by_last_part = find_tasks(source, detections, listed, report.out)
    report.shared = [] if listed is None else sorted(x for task in tasks for x in listed.sharing(task.name))
    people = [person for task in tasks for person in task.people]
    report.scored = any(person.score is not None for person in people)
    warn_of_scores(source, people, rules.min_score)
    check_sizes(source, [task.seen for task in tasks], rules.scale)
    return tasks


def _convert_image(task: ImageTask, choice: Choice, rules: _Rules, report: ConversionReport) -> bool:
    """Write the map of an image; returns whether it shows somebody."""
    width, height = task.seen.size
    iuv = np.zeros((height, width, 3), np.uint8)
    if choice.chosen:
        _paste(iuv, choice.chosen.person, task, rules)
    if task.out.exists() and not rules.overwrite:
        kept = _read_kept(task.out)
        if kept.shape != iuv.shape:
            found = f"{kept.shape[1]}x{kept.shape[0]}"
            raise DSAError(
                f"{task.out}: this map is {found}, but its image {task.image} is {width}x{height}; "
                "`overwrite=True` replaces it"
            )
        if not np.array_equal(kept, iuv):
            report.differing.append(task.name)
        iuv = kept
        report.kept += 1
    else:
        write_iuv(task.out, iuv)
        report.written += 1
    found_people = bool(iuv[..., 0].any())
    _note(task, choice, rules, report, found_people)
    return found_people


def _read_kept(path: Path) -> np.ndarray:
    try:
        return read_iuv(path)
    except DSAError as error:
        raise DSAError(f"{error}; `overwrite=True` replaces it") from error


def _note(task: ImageTask, choice: Choice, rules: _Rules, report: ConversionReport, somebody: bool) -> None:
    """Add an image to the lists of the report to which it belongs."""
    size = rules.size(task.seen)
    report.refused += choice.refused
    # A whole map without a box says itself, by its background, that nobody was found.
    found = any(person.box is not None for person in task.people)
    for applies, names in (
        (choice.several and not choice.below, report.several),
        (choice.below, report.below),
        (task.seen.turned != 1, report.turned),
        (any(leaves(box, size) for box in task.seen.boxes), report.outside),
        (not somebody and not found, report.no_detection),
        (not somebody and found, report.empty),
    ):
        if applies:
            names.append(task.name)


def _paste(iuv: np.ndarray, person: Person, task: ImageTask, rules: _Rules) -> None:
    """Put a person's chart where its box is; what lies outside the image is cut off.

    Each pixel of the image takes the nearest one of the image that DensePose saw.
    """
    chart = person.chart().transpose(1, 2, 0)  # [h, w, 3]
    x, y = (0, 0) if person.box is None else (int(person.box[0]), int(person.box[1]))
    width, height = rules.size(task.seen)
    if person.box is None:
        found = chart.shape[1], chart.shape[0]
        if not (rules.scale or Scale()).fits(found, task.seen.size):
            raise DSAError(wrong_map_size(task.seen, task.image, found, rules.scale))
        width, height = found
    rows, columns = _nearest(iuv.shape[0], height) - y, _nearest(iuv.shape[1], width) - x
    inside_rows, inside_columns = (
        np.flatnonzero((0 <= lines) & (lines < count)) for lines, count in zip((rows, columns), chart.shape)
    )
    part = chart[np.ix_(rows[inside_rows], columns[inside_columns])]
    iuv[np.ix_(inside_rows, inside_columns)] = part


def _nearest(count: int, seen: int) -> np.ndarray:
    """Which of `seen` rows is nearest to each of `count` rows."""
    return (2 * np.arange(count) + 1) * seen // (2 * count)


def _write_lists(report: ConversionReport, choices: dict[str, Choice], listed: DataImages | None) -> None:
    """Write all lists. A data set may come in several sources, so the entries of other images stay."""
    update_names(report.out / NO_DETECTION, report.no_detection + report.empty, choices)
    differing = set(report.differing)  # another call chose their people: its rows stay
    new = {name: choice for name, choice in choices.items() if name not in differing}
    notable = {name: choice for name, choice in new.items() if choice.several or choice.below}
    update_people(report.out / SEVERAL, notable, new)
    report.no_map = [] if listed is None else without_maps(listed)
    write_names(report.out / NO_MAP, report.no_map)
    if (report.out / RECORD).exists():
        logger.warning(f"{report.out}: other maps in this folder were estimated, see {RECORD}")
