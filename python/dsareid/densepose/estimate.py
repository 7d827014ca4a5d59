"""Estimating IUV maps from pictures alone, without detectron2.

    OUT/query/NAME.png          the map of ROOT/query/NAME.jpg, in the classic file's order; OUT is ROOT/iuv,
                                or a folder in the user's cache if ROOT is not writable
    OUT/query/NAME_INDS.png     whose pixel it is, 1, 2, ..., if everybody is in the map
    OUT/estimator.json          what made the maps: estimator, weights, settings, licence, origin
    OUT/no_detection.txt        the pictures in which nobody was seen; their maps are all background
    OUT/others_left_out.txt     the pictures that show other people too, who are not in the map
    OUT/not_readable.txt        the pictures that could not be read, and why
    OUT/contact_sheet.png       a sample, to look at

The PNG comment of each map says by which settings it was made and from which picture. So an interrupted call
resumes, maps of pictures that have changed are estimated again, and maps from elsewhere stay.
Processes that torchrun started share the work.
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Unpack

import torch
from pydantic import BaseModel
from tqdm import tqdm

from dsareid.data.images import image_size, read_image
from dsareid.data.iuv import read_iuv
from dsareid.data.layouts import is_data_set, list_data
from dsareid.data.layouts.base import ALL_SPLITS
from dsareid.data.map_notes import picture_digest, read_note
from dsareid.data.store.format import HEADER
from dsareid.densepose.estimate_tasks import (
    RECORD,
    MapState,
    MapTask,
    find_source,
    find_states,
    made_by,
    write_map,
    write_record,
)
from dsareid.densepose.estimators import EstimatorSettings, MapEstimator, People, Quality, load_estimator
from dsareid.densepose.estimators.base import LEAST_OTHERS
from dsareid.densepose.given_boxes import find_boxes
from dsareid.densepose.lists import NO_DETECTION, NOT_READABLE, OTHERS, read_names, write_names
from dsareid.densepose.naming import printable
from dsareid.densepose.people import MIN_SCORE
from dsareid.densepose.pictures import SHEET, write_contact_sheet
from dsareid.ground.distributed import ProcessGroup, choose_device, gather_rows, join_group, own_device
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import make_folder, place_for, read_json
from dsareid.ground.machine import cores, on_threads, one_thread_an_operation

LARGE = 1 << 22  # pixels; larger pictures are estimated one at a time, so that memory is bounded


@dataclass
class EstimationReport:
    """What became of the pictures, over all processes."""

    out: Path  # the folder of the maps, or the map of one picture
    written: int = 0
    kept: int = 0  # maps that were there already, by these settings
    changed: int = 0  # of those written: maps of pictures that have changed since
    foreign: int = 0  # maps that were not estimated, and are kept
    nobody: list[str] = field(default_factory=list)  # the map is all background
    others: list[str] = field(default_factory=list)  # another person was left out
    wide: list[str] = field(default_factory=list)  # wider than tall, though taken as one person
    unsure: list[str] = field(default_factory=list)  # nobody has the least score: the best was taken
    no_box: list[str] = field(default_factory=list)  # boxes were given, but none for this picture
    outside: list[str] = field(default_factory=list)  # a box reaches beyond the picture
    left_boxes: int = 0  # that were given with a lower score, and are not used
    unreadable: dict[str, str] = field(default_factory=dict)  # pictures, and what is wrong with them
    sheet: Path | None = None

    def lines(self) -> list[str]:
        """What a user should know, a line each."""
        maps = f"{self.written:,} map{'s' * (self.written != 1)} written"
        changed = (
            f", {self.changed:,} of them again because their pictures have changed" if self.changed else ""
        )
        kept = f", {self.kept:,} kept as they were" if self.kept else ""
        found = [f"{self.out}: {maps}{changed}{kept}"]
        if self.foreign:
            found.append(
                f"kept, though not estimated: {self.foreign:,} (`overwrite=True` estimates them too)"
            )
        if self.left_boxes:
            found.append(f"boxes left out for a score below {MIN_SCORE:g}: {self.left_boxes:,}")
        lists = {
            "nobody seen, all background": self.nobody,
            "several people seen, all but one left out": self.others,
            "wider than tall, yet taken as a crop of one person": self.wide,
            f"nobody with a score of {MIN_SCORE:g} or more, the best taken": self.unsure,
            "no box given, all background": self.no_box,
            "boxes reach beyond the picture and were cut off; are they of another size?": self.outside,
            "not readable": list(self.unreadable),
        }
        for title, names in lists.items():
            if names:
                more = ", ..." if len(names) > 3 else ""
                found.append(f"{title}: {len(names):,} ({', '.join(map(printable, names[:3]))}{more})")
        return found


def estimate_maps(
    source: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    boxes: str | os.PathLike | None = None,
    people: People | None = None,
    protocol: str = "",
    overwrite: bool = False,
    **settings: Unpack[EstimatorSettings],
) -> EstimationReport:
    """Estimate the IUV map of every picture of a source, with a progress bar.

    Each picture is estimated by itself, on one thread: its map has the same bytes with any number of threads
    and processes, and after a resume; on CUDA nearly so with `model`, as crops go together there. A picture
    that cannot be read is skipped and listed.

    Args:
        source: a data set's root, another folder of pictures, or one picture.
        out: the folder of the maps; for one picture its map, .png. None: iuv in the source, or a folder in
            the user's cache if the source is not writable; for one picture NAME_IUV.png beside it.
        boxes: a file with the boxes of the people in photographs, see given_boxes.read_boxes; they take the
            place of the detector of `model`. A picture that it does not name has nobody.
        people: "one": the largest and most central person of each picture, or "all"; None: one in a data set
            and of crops (`model` without `detect` and `boxes`), all elsewhere.
        protocol: the protocol by which a data set's images are listed, as for list_data.
        overwrite: replace maps that were made by other settings, or not estimated at all.
        settings: arguments of load_estimator.

    Raises:
        DSAError: no picture, a single picture that cannot be read, two pictures that would have one map, maps
            made by other settings (without `overwrite`), a folder that is not writable; as load_estimator and
            find_boxes.
    """
    source = Path(source)
    chosen = own_device(choose_device(settings.get("device", "auto")))
    if boxes is not None:
        _check_boxes(settings)
        settings["detect"] = True
    crops = settings.get("model") is not None and not settings.get("detect")
    people = people or ("one" if crops or (source.is_dir() and is_data_set(source)) else "all")
    with join_group(chosen) as group:
        tasks, folder = find_source(source, None if out is None else Path(out), protocol)
        if boxes is not None:
            found = find_boxes(Path(boxes), source, [task.name for task in tasks])
            tasks = [task._replace(boxes=tuple(found.get(task.name, ()))) for task in tasks]
        place = folder or tasks[0].out
        with group.rank_0_first():  # rank 0 may have to fetch the weights
            if not group.alone:
                settings["device"] = str(chosen)
            estimator = load_estimator(**settings, people=people)
        states = find_states(tasks, estimator.record())
        group.barrier()  # until all ranks have looked
        todo = _choose(tasks, states, place, overwrite)
        if folder is not None and group.is_rank_0:
            write_record(make_folder(folder) / RECORD, estimator.record())
        for parent in {task.out.parent for task in todo}:
            make_folder(parent)
        broken = _estimate(todo[group.share(len(todo))], tasks, estimator, group)
        report = EstimationReport(place)
        report.unreadable = _unreadable_of_all(broken, todo, chosen)
        report.written = len(todo) - len(report.unreadable)
        report.kept = states.count(MapState.CURRENT)
        report.changed = states.count(MapState.CHANGED)
        report.foreign = 0 if overwrite else states.count(MapState.FOREIGN)
        if folder is None and report.unreadable:
            raise DSAError(next(iter(report.unreadable.values())))
        if group.is_rank_0:
            _finish(report, tasks, source, folder)
            if crops or boxes is not None:
                _compare_sizes(report, tasks, crops)
            given = [box for task in tasks for box in task.boxes or ()]
            used = len(report.unsure) if given else 0
            report.left_boxes = sum(box.score < MIN_SCORE for box in given) - used
        return report


def estimate_missing(root: str | os.PathLike, protocol: str = "", *, device: str = "auto") -> None:
    """Estimate the maps of a data set's images that have none; does nothing for a store.

    A function for the argument `make_maps` of train, evaluate and pack. Its settings are those of maps that
    are there already, else the defaults. Arguments and errors as for estimate_maps.
    """
    root = Path(root)
    if (root / HEADER).exists():
        return
    with join_group(own_device(choose_device(device))) as group:
        missing = list_data(root, protocol).without_map(ALL_SPLITS)
        group.barrier()  # until all ranks have looked
        if not missing:
            return
        folder = place_for(root) / "iuv"
        before = _read_record(folder)
        if before.estimator != "bodypix":
            raise DSAError(
                f"{folder}: {len(missing):,} maps are missing, and those that are there were made by "
                f"{before.estimator}: complete them with dsareid densepose estimate and its `model`"
            )
        found = estimate_maps(
            root, device=device, protocol=protocol, quality=before.quality, people=before.people
        )
        if group.is_rank_0:
            for line in found.lines():
                logger.info(line)
            logger.info(f"look at {found.sheet or found.out} before you trust these maps")
            if found.unreadable:
                logger.warning(
                    "pictures that cannot be read have no map: repair or remove them; "
                    f"{found.out / NOT_READABLE} lists them"
                )


def _check_boxes(settings: EstimatorSettings) -> None:
    if settings.get("model") is None:
        raise DSAError("`boxes` are for a model of DensePose R-CNN; give it by `model`")
    if settings.get("detect"):
        raise DSAError("`boxes` take the place of the detector; give them or `detect`")


class _Record(BaseModel):
    """The settings of the maps that are there already, in estimator.json."""

    estimator: str = "bodypix"
    quality: Quality = "default"
    people: People | None = None


def _read_record(folder: Path) -> _Record:
    try:
        return read_json(folder / RECORD, _Record)
    except (OSError, DSAError):  # none, or not ours: the maps themselves say what they are
        return _Record()


def _choose(
    tasks: Sequence[MapTask], states: Sequence[MapState], place: Path, overwrite: bool
) -> list[MapTask]:
    """The pictures to estimate."""
    other = [task for task, state in zip(tasks, states) if state is MapState.OTHER]
    if other and not overwrite:
        settings = "settings" if other[0].boxes is None else "settings or boxes"
        raise DSAError(
            f"{place}: {len(other):,} of the maps were made by other {settings}, the first {other[0].out}; "
            "dsareid densepose estimate with `overwrite=True` replaces them"
        )
    kept = {MapState.CURRENT} if overwrite else {MapState.CURRENT, MapState.FOREIGN}
    return [task for task, state in zip(tasks, states) if state not in kept]


def _estimate(
    tasks: list[MapTask], every: list[MapTask], estimator: MapEstimator, group: ProcessGroup
) -> dict[str, str]:
    """Write the maps of `tasks`, this process's share, as many at a time as it has cores.

    Returns:
        The pictures that cannot be read, and why.
    """
    threads = max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", group.world)))
    hidden = None if group.is_rank_0 else True
    alone = threading.Lock()
    broken: dict[str, str] = {}
    record = estimator.record()

    def run(task: MapTask) -> None:
        try:
            width, height = image_size(task.image)
            with alone if width * height > LARGE else contextlib.nullcontext():
                digest, found = picture_digest(task.image), estimator(task.image, uv=False, boxes=task.boxes)
        except (DSAError, OSError) as error:
            broken[task.name] = str(error)
            return
        write_map(task.out, found, made_by(record, task), digest)

    with one_thread_an_operation():  # so that a map has the same bits however many run side by side
        results = on_threads(run, tasks, threads)
        try:
            for _ in tqdm(results, "IUV maps", len(tasks), unit="picture", leave=False, disable=hidden):
                pass
        except KeyboardInterrupt as interrupt:
            there = sum(task.out.exists() for task in every)
            raise KeyboardInterrupt(
                f"interrupted: {there:,} of {len(every):,} maps are there; the same command resumes"
            ) from interrupt
    return broken


def _unreadable_of_all(broken: dict[str, str], todo: list[MapTask], device: torch.device) -> dict[str, str]:
    """The pictures that any process could not read, and why; other processes' reasons are found again."""
    numbers = [number for number, task in enumerate(todo) if task.name in broken]
    every = gather_rows(torch.tensor(numbers, dtype=torch.int64, device=device)).tolist()
    return {todo[k].name: broken.get(todo[k].name) or _reason(todo[k].image) for k in sorted(every)}


def _reason(image: Path) -> str:
    try:
        read_image(image)
    except DSAError as error:
        return str(error)
    return f"{image}: could not be read"


def _compare_sizes(report: EstimationReport, tasks: list[MapTask], crops: bool) -> None:
    """Name the pictures whose size does not fit what is said of them: crops, or boxes."""
    for task in tasks:
        try:
            width, height = image_size(task.image)
        except DSAError:  # it is in the report, or its map is of another program and stays
            continue
        if crops and width > height:
            report.wide.append(task.name)
        if any(box.leaves(width, height) for box in task.boxes or ()):
            report.outside.append(task.name)


def _finish(report: EstimationReport, tasks: list[MapTask], source: Path, folder: Path | None) -> None:
    """Complete the report by what the maps say, and write the lists and the contact sheet."""
    shown: list[tuple[str, Path, Path]] = []
    for task in tasks:
        if not task.out.exists():
            continue
        note = read_note(task.out)
        if note and note.unsure:
            report.unsure.append(task.name)
        if task.boxes == ():
            report.no_box.append(task.name)
        if not (note.person if note else read_iuv(task.out)[..., 0].any()):
            report.nobody.append(task.name)
            continue
        shown.append((task.name, task.image, task.out))
        if note and note.others > LEAST_OTHERS:
            report.others.append(task.name)
    if folder is None:
        return
    names = {task.name for task in tasks}
    for file, found in ((NO_DETECTION, report.nobody), (OTHERS, report.others)):
        # Names from other calls stay: a data set may have other protocols, with other pictures.
        before = [
            name for name in read_names(folder / file) if name not in names and (source / name).exists()
        ]
        write_names(folder / file, {*map(printable, found), *before})
    write_names(folder / NOT_READABLE, map(printable, report.unreadable.values()))
    if shown:
        report.sheet = folder / SHEET
        write_contact_sheet(report.sheet, shown)
