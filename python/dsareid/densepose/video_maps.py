"""Estimating the IUV maps of a video, of one person followed through it or of everybody.

    OUT/maps/000000.png         the map of the first frame, as densepose.estimate writes maps
    OUT/maps/000000_INDS.png    whose pixel it is, if everybody is in the map; numbers are of each frame alone
    OUT/smoothed/000000.png     steadier maps, if asked for; see densepose.smoothing
    OUT/video.json              name, frames a second and number of frames
    OUT/estimator.json, OUT/no_detection.txt, OUT/others_left_out.txt, OUT/contact_sheet.png

Frames are estimated on all cores and followed in order. An interrupted call resumes: maps stay up to the
first frame that has none of its own by the same settings; what follows may depend on it.
"""

import contextlib
import itertools
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np
from tqdm import tqdm

from dsareid.data.iuv import instances_path, read_iuv, write_iuv
from dsareid.data.map_notes import MapNote, frame_digest, note_digest, read_note
from dsareid.data.video import read_frames, video_header
from dsareid.densepose.estimate import LARGE
from dsareid.densepose.estimate_tasks import RECORD, write_map, write_record
from dsareid.densepose.estimators import (
    EstimatedMap,
    EstimatorSettings,
    MapEstimator,
    People,
    load_estimator,
)
from dsareid.densepose.estimators.base import LEAST_OTHERS
from dsareid.densepose.follow import LEAST_OVERLAP, PATIENCE, Extent, Follower
from dsareid.densepose.lists import NO_DETECTION, OTHERS, write_names
from dsareid.densepose.map_folder import MAPS, SMOOTHED, VIDEO, VideoRecord
from dsareid.densepose.people import MIN_SCORE
from dsareid.densepose.pictures import SAMPLE, SHEET, write_contact_sheet
from dsareid.densepose.smoothing import RADIUS, TOLERANCE, Flicker, MappedFrame, mapped_frame, smooth
from dsareid.densepose.textures import PixelBox
from dsareid.ground.distributed import rank_and_world
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, check_is_text, make_folder, read_json, unfinished_folder
from dsareid.ground.machine import on_threads, one_thread_an_operation


@dataclass
class VideoReport:
    """What became of a video."""

    out: Path
    frames: int = 0
    foretold: int | None = None  # how many frames the file says it has
    written: int = 0
    kept: int = 0  # maps that were there already
    removed: int = 0  # maps of frames that the video does not have
    wide: bool = False  # wider than tall, though its frames were taken as crops of one person
    nobody: list[str] = field(default_factory=list)  # frames whose map is all background
    others: list[str] = field(default_factory=list)  # frames with other people, who are not in the map
    unsure: list[str] = field(default_factory=list)  # nobody has the least score: the best was taken
    begins: list[int] = field(default_factory=list)  # frames in which the person was chosen
    flicker: tuple[Flicker, Flicker] | None = None  # before and after smoothing
    sheet: Path | None = None  # None: nobody was seen in any frame

    def lines(self) -> list[str]:
        """What a user should know, a line each."""
        kept = f", {self.kept:,} kept as they were" if self.kept else ""
        found = [f"{self.out / MAPS}: {self.written:,} map{'s' * (self.written != 1)} written{kept}"]
        if self.foretold not in (None, self.frames):
            found.append(f"the file says that it has {self.foretold:,} frames; {self.frames:,} could be read")
        if self.removed:
            found.append(f"maps of frames that the video no longer has, removed: {self.removed:,}")
        if self.wide:
            found.append(
                "wider than tall, yet each frame taken as a crop of one person (`detect` finds people)"
            )
        if len(self.nobody) == self.frames:
            found.append("nobody seen in any frame")
        elif self.nobody:
            found.append(f"the person is not seen in {len(self.nobody):,} frames: {_listed(self.nobody)}")
        if self.others:
            found.append(f"several people seen, all but one left out: {len(self.others):,} frames")
        if self.unsure:
            frames = f"{len(self.unsure):,} frames: {_listed(self.unsure)}"
            found.append(f"nobody with a score of {MIN_SCORE:g} or more, the best taken: {frames}")
        if len(self.begins) > 1:
            anew = _listed([_name(frame) for frame in self.begins[1:]])
            found.append(f"lost for {PATIENCE} frames or more, then the largest person followed: from {anew}")
        if self.flicker:
            found += self._steadiness(*self.flicker)
        return found

    def _steadiness(self, before: Flicker, after: Flicker) -> list[str]:
        found = [f"{self.out / SMOOTHED}: {self.frames:,} maps"]
        if len(self.nobody) == self.frames:
            return found
        if not before.pixels:
            return [
                *found,
                "every pixel of the person changes its colour from frame to frame: nothing smoothed",
            ]
        for when, flicker in (("before", before), ("after", after)):
            u, v = flicker.mean_steps()
            found.append(
                f"{when} smoothing, where the picture stays the same from frame to frame: "
                f"{flicker.share():.2%} of the person's pixels change their part, U and V change by {u:.4f} "
                f"and {v:.4f}"
            )
        return found


def estimate_video(
    source: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    people: People = "one",
    box: PixelBox | None = None,
    smooth: bool = False,
    overwrite: bool = False,
    **settings: Unpack[EstimatorSettings],
) -> VideoReport:
    """Estimate the IUV maps of a video's frames, with a progress bar.

    Args:
        source: a video that FFmpeg reads.
        out: the folder to write to; None: NAME_IUV beside the video.
        people: "one": a person who is followed, see densepose.follow; or "all".
        box: of the person in the first frame, who need not be the largest: x0, y0, x1, y1 in pixels.
        smooth: also write steadier maps of the person.
        overwrite: replace maps that were made by other settings.
        settings: arguments of load_estimator.

    Raises:
        DSAError: PyAV is missing, no video that can be read to its end, maps of another video or by other
            settings (without `overwrite`), `smooth` or `box` of everybody, nobody in the box, several
            processes, a folder that is not writable; as load_estimator.
    """
    source = Path(source)
    out = Path(out) if out is not None else source.with_name(f"{source.stem}_IUV")
    if rank_and_world()[1] > 1:
        raise DSAError(f"{source}: a video is estimated by one process; start it without torchrun")
    check_is_text(source)
    crops = settings.get("model") is not None and not settings.get("detect")
    _check_choice(people, box, smooth, crops)
    header = video_header(source)
    with contextlib.closing(read_frames(source)) as frames:
        height, width = next(frames).shape[:2]  # before anything is written
    estimator = load_estimator(**settings, people="one" if crops else "all")
    record = estimator.record() | {"people": people}
    if people == "one" and not crops:
        record |= {"least_overlap": LEAST_OVERLAP, "patience": PATIENCE, "box": box}
    start = None if box is None else Extent(box[1], box[0], box[3], box[2])
    by = note_digest(json.dumps(record).encode())
    work = _Work(source, out, estimator, by, people, Follower(start))
    report = VideoReport(out, foretold=header.frames, wide=crops and width > height)
    if not overwrite:
        _check_maps(work)

    def begin() -> None:
        make_folder(out / MAPS)
        write_record(out / RECORD, record)
        _write_video_record(work, str(header.rate), header.frames or 0)

    _write_maps(work, report, begin)
    _write_video_record(work, str(header.rate), report.frames)
    write_names(out / NO_DETECTION, report.nobody)
    write_names(out / OTHERS, report.others)
    if smooth:
        report.flicker = _smooth(work, report.frames)
    _draw_sheet(work, report, SMOOTHED if smooth else MAPS)
    return report


class _Work(NamedTuple):
    """What maps are made of, and how."""

    source: Path
    out: Path
    estimator: MapEstimator
    by: str
    people: People
    follower: Follower

    def path(self, number: int) -> Path:
        return self.out / MAPS / f"{_name(number)}.png"


class _Frame(NamedTuple):
    """A frame with its digest, and its map: the note of the file that is there, or what was estimated."""

    pixels: np.ndarray
    of: str
    found: MapNote | EstimatedMap


def _name(number: int) -> str:
    return f"{number:06}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_choice(people: People, box: PixelBox | None, smooth: bool, crops: bool) -> None:
    """Refuse what contradicts itself."""
    if crops and people == "all":
        raise DSAError(
            '`people="all"`: with `model` each frame is taken as a crop of one person; `detect` finds people'
        )
    for name, given in (("smooth", smooth), ("box", box is not None)):
        if given and people == "all":
            raise DSAError(f"`{name}` is for the one person who is followed, not for `people=all`")
    if box is not None:
        if crops:
            raise DSAError("`box` picks a person, and without `detect` each frame is taken as a crop of one")
        if not (box[0] < box[2] and box[1] < box[3]):
            raise DSAError(f"`box` must be x0, y0, x1, y1 with x0 < x1 and y0 < y1, not {list(box)}")


def _check_maps(work: _Work) -> None:
    """Refuse to mix maps of several videos or settings."""
    place, replace = work.out / MAPS, "dsareid densepose estimate with `overwrite=True` replaces them"
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        before = read_json(work.out / VIDEO, VideoRecord).video
        if before != work.source.name:
            raise DSAError(f"{place}: the maps of {before}, not of {work.source.name}; {replace}")
    notes = ((path, read_note(path)) for path in _map_files(place))
    other = [path for path, note in notes if note is None or note.by != work.by]
    if other:
        raise DSAError(
            f"{place}: {len(other):,} of the maps were made by other settings, the first {other[0]}; "
            f"{replace}"
        )


def _map_files(place: Path) -> list[Path]:
    return [path for path in sorted(place.glob("*.png")) if path.stem.isdecimal()]


def _write_video_record(work: _Work, rate: str, frames: int) -> None:
    info = VideoRecord(video=work.source.name, rate=rate, frames=frames)
    with atomic_path(work.out / VIDEO) as temporary:
        temporary.write_text(info.model_dump_json(indent=1) + "\n", "utf-8")


def _write_maps(work: _Work, report: VideoReport, begin: Callable[[], None]) -> None:
    """Write the map of each frame, and the report; `begin` is called before the first one."""
    rewriting, alone = threading.Event(), threading.Lock()

    def estimate(pixels: np.ndarray) -> EstimatedMap:
        large = pixels.shape[0] * pixels.shape[1] > LARGE
        with alone if large else contextlib.nullcontext():
            return work.estimator(pixels, uv=False)

    def run(item: tuple[int, np.ndarray]) -> _Frame:
        number, pixels = item
        of = frame_digest(pixels)
        note = None if rewriting.is_set() else read_note(work.path(number))
        if note is not None and (note.by, note.of) == (work.by, of):
            return _Frame(pixels, of, note)
        return _Frame(pixels, of, estimate(pixels))

    try:
        with one_thread_an_operation():
            frames = on_threads(run, enumerate(read_frames(work.source)))
            progress = tqdm(frames, "IUV maps", report.foretold, unit="frame", leave=False, disable=None)
            for number, frame in enumerate(progress):
                found = frame.found
                if isinstance(found, MapNote) and rewriting.is_set():
                    found = estimate(frame.pixels)
                if isinstance(found, EstimatedMap) and work.people == "one":
                    found = work.follower.pick(found)
                if number == 0:
                    begin()
                if isinstance(found, EstimatedMap) and not rewriting.is_set():
                    rewriting.set()
                    _remove_smoothed(work.out)
                _write_map(work, number, frame._replace(found=found), report)
                report.frames += 1
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"interrupted: {report.frames:,} maps are in {work.out / MAPS}; the same command resumes"
        ) from interrupt
    report.begins = work.follower.begins if work.people == "one" else []
    for path in _map_files(work.out / MAPS):
        if int(path.stem) >= report.frames and read_note(path) is not None:
            path.unlink()
            instances_path(path).unlink(missing_ok=True)
            report.removed += 1
    if report.removed:
        _remove_smoothed(work.out)


def _remove_smoothed(out: Path) -> None:
    """Remove the smoothed maps of maps that change; their folder stays if it holds something else."""
    for path in _map_files(out / SMOOTHED):
        if read_note(path) is not None:
            path.unlink()
    with contextlib.suppress(OSError):
        (out / SMOOTHED).rmdir()


def _write_map(work: _Work, number: int, frame: _Frame, report: VideoReport) -> None:
    """Write the map of a frame, unless it is there, and report what it shows."""
    path = work.path(number)
    if isinstance(frame.found, EstimatedMap):
        note = write_map(path, frame.found, work.by, frame.of)
        report.written += 1
    else:
        note = frame.found
        work.follower.see(read_iuv(path)[..., 0])
        report.kept += 1
    for chosen, names in (
        (not note.person, report.nobody),
        (note.person and note.others > LEAST_OTHERS, report.others),
        (note.person and note.unsure, report.unsure),
    ):
        if chosen:
            names.append(_name(number))


def _smooth(work: _Work, count: int) -> tuple[Flicker, Flicker]:
    """Write the steadier maps, all or none; returns how much maps flicker before and after."""
    by = note_digest(f"{work.by} {RADIUS} {TOLERANCE}".encode())
    before, after = Flicker(), Flicker()
    last: tuple[MappedFrame, MappedFrame] | None = None
    frames = (
        mapped_frame(pixels, read_iuv(work.path(number)))
        for number, pixels in enumerate(read_frames(work.source))
    )
    _remove_smoothed(work.out)
    with unfinished_folder(work.out / SMOOTHED) as folder:
        windows = tqdm(_windows(frames), "smoothing", count, unit="frame", leave=False, disable=None)
        for number, (frame, others) in enumerate(windows):
            steady = frame._replace(iuv=smooth(frame, others))
            own = read_note(work.path(number)) or MapNote(work.by, "", False, 0.0)
            note = own._replace(by=by, person=bool(steady.iuv[..., 0].any()))
            write_iuv(folder / f"{_name(number)}.png", steady.iuv, note)
            if last is not None:
                before.add(last[0], frame)
                after.add(last[1], steady)
            last = frame, steady
    return before, after


def _draw_sheet(work: _Work, report: VideoReport, folder: str) -> None:
    """Draw a sample of the frames that show the person, with their maps."""
    empty = set(report.nobody)
    shown = [number for number in range(report.frames) if _name(number) not in empty]
    if not shown:
        return
    places = np.linspace(0, len(shown) - 1, min(SAMPLE, len(shown))).round().astype(int)
    sample = {shown[place] for place in places}
    with contextlib.closing(read_frames(work.source)) as frames:
        drawn = [
            (f"frame {number}", pixels, work.out / folder / f"{_name(number)}.png")
            for number, pixels in enumerate(itertools.islice(frames, max(sample) + 1))
            if number in sample
        ]
    report.sheet = work.out / SHEET
    write_contact_sheet(report.sheet, drawn)


def _windows(frames: Iterator[MappedFrame]) -> Iterator[tuple[MappedFrame, list[MappedFrame]]]:
    """Each frame with those around it."""
    before: deque[MappedFrame] = deque(maxlen=RADIUS)
    after = deque(itertools.islice(frames, RADIUS + 1))
    while after:
        frame = after.popleft()
        yield frame, [*before, *after]
        before.append(frame)
        after.extend(itertools.islice(frames, 1))
