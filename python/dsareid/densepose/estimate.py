"""Estimating the IUV maps of pictures alone, without DensePose.

    OUT/query/NAME.png          the map of ROOT/query/NAME.jpg, in the classic file's order; OUT is ROOT/iuv,
                                or where ROOT is not writable a folder in the user's cache
    OUT/estimator.json          what made the maps: estimator, weights, settings, licence, origin
    OUT/no_detection.txt        the pictures whose map is all background, as nobody was seen in them
    OUT/others_left_out.txt     those that show more people than the one whose map it is
    OUT/contact_sheet.png       a sample, to look at

An interrupted call leaves whole maps; the next one keeps them. Processes that torchrun started share the
work.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from dsareid.data.folders import find_images, left_out
from dsareid.data.iuv import read_iuv, read_note, write_iuv
from dsareid.data.layouts import is_data_set, list_data
from dsareid.data.layouts.base import ALL_SPLITS
from dsareid.data.store.format import HEADER
from dsareid.densepose.estimators import MapEstimator, People, Quality, load_estimator
from dsareid.densepose.lists import NO_DETECTION, OTHERS, SHEET, update_names
from dsareid.densepose.pictures import write_contact_sheet
from dsareid.ground.distributed import ProcessGroup, choose_device, join_group, own_device
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path, make_folder, place_for, read_json
from dsareid.ground.machine import cores

RECORD = "estimator.json"
_AHEAD = 4  # pictures a thread has waiting
_OTHERS = "others left out"  # how the note of such a map begins: a call that resumes finds it there
_CRUMBS = 0.02  # of the mask: what is smaller is no person


@dataclass
class EstimationReport:
    """What became of the pictures."""

    out: Path  # the folder of the maps, or the map of one picture
    written: int = 0
    kept: int = 0  # maps that were there already
    nobody: list[str] = field(default_factory=list)  # the map is all background
    others: list[str] = field(default_factory=list)  # another person was left out
    sheet: Path | None = None

    def __str__(self) -> str:
        nobody = f"; nobody seen in {len(self.nobody):,}, all background" if self.nobody else ""
        others = f"; others than one person left out in {len(self.others):,}" if self.others else ""
        return f"{self.out}: {self.written:,} map{'s' * (self.written != 1)} written{nobody}{others}"


class _Task(NamedTuple):
    name: str  # relative to the source
    image: Path
    out: Path


def estimate_maps(
    source: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    weights: str | os.PathLike | None = None,
    device: str = "auto",
    quality: Quality = "default",
    people: People | None = None,
    protocol: str = "",
    overwrite: bool = False,
) -> EstimationReport:
    """Estimate the IUV map of every picture of a source, with a progress bar.

    Each picture is estimated by itself, on one thread: its map has the same bytes however many threads and
    processes there are, and wherever a call was interrupted.

    Args:
        source: a data set's root, another folder of pictures, or one picture.
        out: the folder of the maps, or of one picture its map, .png; None: iuv in the source, in the user's
            cache for a source that is not writable, or NAME_IUV.png beside the picture.
        weights, device, quality: as for load_estimator.
        people: "one": the largest and most central person of each picture, or "all"; None: one in a data set,
            all elsewhere.
        protocol: of a data set, the one by which its images are listed, as for list_data.
        overwrite: estimate again what is there already.

    Raises:
        DSAError: no picture, one that cannot be read, two that would have one map, maps that other settings
            have made, a folder that is not writable; as load_estimator.
    """
    source = Path(source)
    chosen = own_device(choose_device(device))
    with join_group(chosen) as group:
        tasks, folder = _find_tasks(source, None if out is None else Path(out), protocol)
        estimator = load_estimator(
            weights=weights,
            device=device if group.alone else str(chosen),
            quality=quality,
            people=people or ("one" if is_data_set(source) else "all"),
        )
        if folder is not None:
            with group.rank_0_first():
                _check_record(folder, estimator.record(), [task.out.exists() for task in tasks], overwrite)
        todo = [task for task in tasks if overwrite or not task.out.exists()]
        group.barrier()  # until all have looked
        for place in {task.out.parent for task in todo}:
            make_folder(place)
        _estimate(todo[group.share(len(todo))], len(tasks) - len(todo), estimator, group)
        group.barrier()
        report = EstimationReport(folder or tasks[0].out, len(todo), len(tasks) - len(todo))
        if group.is_rank_0:
            _finish(report, tasks, folder)
        return report


def estimate_missing(root: str | os.PathLike, protocol: str = "", *, device: str = "auto") -> None:
    """Estimate the maps of a data set's images that have none; does nothing for a store.

    What `make_maps` of train, evaluate and pack may be. Arguments and errors as for estimate_maps.
    """
    root = Path(root)
    if (root / HEADER).exists():
        return
    with join_group(own_device(choose_device(device))) as group:
        missing = list_data(root, protocol).without_map(ALL_SPLITS)
        group.barrier()  # until all have looked
        if not missing:
            return
        found = estimate_maps(root, device=device, protocol=protocol)
        if group.is_rank_0:
            logger.info(f"{found}; look at {found.sheet or found.out} before you trust them")


def _find_tasks(source: Path, out: Path | None, protocol: str) -> tuple[list[_Task], Path | None]:
    """The pictures with their maps, and the folder of the maps; None for one picture."""
    if not source.is_dir():
        return [_Task(source.name, source, out or source.with_name(f"{source.stem}_IUV.png"))], None
    folder = out or place_for(source) / "iuv"
    if is_data_set(source):
        listing = list_data(source, protocol)
        for note in listing.notes:
            logger.warning(note)
        names = {entry.name: entry.iuv for entry in listing.entries if not entry.misnamed}
    elif protocol:
        raise DSAError(f"{source}: no data set, so that it has no `protocol`")
    else:
        images, others = find_images(source)
        names = dict.fromkeys(images)
        if others:
            logger.warning(f"{source}: {left_out(others)}")
    tasks = []
    for name, there in names.items():
        own = source / there if there and out is None else (folder / name).with_suffix(".png")
        tasks.append(_Task(name, source / name, own))
    _check_tasks(source, tasks)
    return tasks, folder


def _check_tasks(source: Path, tasks: list[_Task]) -> None:
    """Raise DSAError where two pictures would have one map, or one would be written over."""
    taken: dict[Path, str] = {}
    for task in tasks:
        if (other := taken.setdefault(task.out, task.name)) != task.name:
            raise DSAError(
                f"{source}: {other} and {task.name} would have one map, {task.out}: rename one of them"
            )
        if task.out.exists() and task.out.samefile(task.image):
            raise DSAError(
                f"{task.out}: this is a picture, and its map would be written over it; choose another DST"
            )


def _check_record(folder: Path, record: dict[str, Any], there: list[bool], overwrite: bool) -> None:
    """Write down what makes the maps of a folder, or find it written down.

    Args:
        there: for each picture, whether it has a map already.
    """
    path = folder / RECORD
    content = json.loads(json.dumps(record))  # lists where there are tuples
    try:
        before = read_json(path, object)
    except (FileNotFoundError, NotADirectoryError):
        before = None
    if before is not None and before != content and not overwrite:
        raise DSAError(
            f"{path}: the maps in this folder were made by other settings; `overwrite=True` makes all of "
            "them anew, or choose another folder"
        )
    if before is None and any(there) and not overwrite:
        logger.warning(
            f"{folder}: {sum(there):,} of {len(there):,} pictures have maps that were not estimated here; "
            "they are kept, and the others estimated"
        )
    if before != content:
        with atomic_path(make_folder(folder) / RECORD) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")


def _estimate(tasks: list[_Task], kept: int, estimator: MapEstimator, group: ProcessGroup) -> None:
    """Write the maps of this process's share, as many at a time as it has cores."""
    threads = max(1, cores() // group.world)
    hidden = None if group.is_rank_0 else True

    def run(task: _Task) -> None:
        found = estimator(task.image)
        note = f"{_OTHERS}, {found.others:.0%} of the mask" if found.others > _CRUMBS else ""
        write_iuv(task.out, found.iuv, note)

    done = 0
    with (
        _one_thread_an_operation(),
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=len(tasks), desc="IUV maps", unit="picture", leave=False, disable=hidden) as bar,
    ):
        waiting: set[Future[None]] = set()
        try:
            for task in tasks:
                waiting.add(pool.submit(run, task))
                if len(waiting) >= threads * _AHEAD:
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    done += _take(finished, bar)
            done += _take(wait(waiting).done, bar)
        except KeyboardInterrupt as interrupt:
            pool.shutdown(cancel_futures=True)
            raise KeyboardInterrupt(
                f"interrupted: {kept + done:,} maps are there; the same command resumes"
            ) from interrupt
        except DSAError:
            pool.shutdown(cancel_futures=True)
            raise


def _take(finished: set[Future[None]], bar: tqdm) -> int:
    for future in finished:
        future.result()
        bar.update()
    return len(finished)


@contextlib.contextmanager
def _one_thread_an_operation() -> Iterator[None]:
    """Pictures run side by side, a thread each, so that a map has the same bits however many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish(report: EstimationReport, tasks: list[_Task], folder: Path | None) -> None:
    """The lists of pictures without a person and with several, and the contact sheet."""
    with ThreadPoolExecutor(cores()) as pool:
        seen = list(pool.map(lambda task: bool(read_iuv(task.out)[..., 0].any()), tasks))
        notes = pool.map(lambda task: read_note(task.out), tasks)
        report.others = [task.name for task, note in zip(tasks, notes) if note.startswith(_OTHERS)]
    report.nobody = [task.name for task, found in zip(tasks, seen) if not found]
    if folder is None:
        return
    names = {task.name for task in tasks}
    update_names(folder / NO_DETECTION, report.nobody, names)
    update_names(folder / OTHERS, report.others, names)
    shown = [(task.name, task.image, task.out) for task, found in zip(tasks, seen) if found]
    if shown:
        report.sheet = folder / SHEET
        write_contact_sheet(report.sheet, shown)
