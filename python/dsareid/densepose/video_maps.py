"""Estimating the IUV maps of a video, of one person followed through it or of everybody.

    OUT/maps/000000.png         the map of the first frame, as densepose.estimate writes maps
    OUT/maps/000000_INDS.png    whose pixel it is, if everybody is in the map; numbers are of each frame alone
    OUT/smoothed/000000.png     steadier maps, if asked for; see densepose.smoothing
    OUT/video.json              name, frames a second and number of frames
    OUT/estimator.json, OUT/no_detection.txt, OUT/others_left_out.txt, OUT/contact_sheet.png

Frames are estimated on all cores and followed in order. An interrupted call resumes: a map that is of its
frame, by the same settings, stays.
"""

import itertools
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dsareid.data.iuv import read_iuv, write_instances, write_iuv
from dsareid.data.map_notes import MapNote, note_digest, read_note
from dsareid.data.video import read_frames, video_header
from dsareid.densepose import smoothing
from dsareid.densepose.estimate_tasks import RECORD, write_record
from dsareid.densepose.estimators import EstimatedMap, MapEstimator, People, Quality, load_estimator
from dsareid.densepose.estimators.base import LEAST_OTHERS
from dsareid.densepose.follow import LEAST_OVERLAP, PATIENCE, Extent, Follower
from dsareid.densepose.lists import NO_DETECTION, OTHERS, write_names
from dsareid.densepose.map_folder import MAPS, SMOOTHED, VIDEO, VideoRecord
from dsareid.densepose.pictures import SAMPLE, SHEET, write_contact_sheet
from dsareid.densepose.smoothing import Flicker, MappedFrame, mapped_frame, smooth
from dsareid.densepose.textures import PixelBox
from dsareid.ground.distributed import rank_and_world
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, make_folder
from dsareid.ground.machine import on_threads, one_thread_an_operation


@dataclass
class VideoReport:
    """What became of a video."""

    out: Path
    frames: int = 0
    foretold: int | None = None  # how many frames the file says it has
    written: int = 0
    kept: int = 0  # maps that were there already
    left_over: int = 0  # maps in the folder of frames that the video does not have
    nobody: list[str] = field(default_factory=list)  # frames whose map is all background
    others: list[str] = field(default_factory=list)  # frames with other people, who are not in the map
    begins: list[int] = field(default_factory=list)  # frames in which the person was chosen
    flicker: tuple[Flicker, Flicker] | None = None  # before and after smoothing
    sheet: Path | None = None  # None: nobody was seen in any frame

    def lines(self) -> list[str]:
        """What a user should know, a line each."""
        kept = f", {self.kept:,} kept as they were" if self.kept else ""
        found = [f"{self.out / MAPS}: {self.written:,} map{'s' * (self.written != 1)} written{kept}"]
        if self.foretold not in (None, self.frames):
            found.append(f"the file says that it has {self.foretold:,} frames; {self.frames:,} could be read")
        if self.left_over:
            found.append(f"maps of frames that this video does not have: {self.left_over:,}; remove them")
        if len(self.nobody) == self.frames:
            found.append("nobody seen in any frame")
        elif self.nobody:
            found.append(f"the person is not seen in {len(self.nobody):,} frames: {_listed(self.nobody)}")
        if self.others:
            found.append(f"several people seen, all but one left out: {len(self.others):,} frames")
        if len(self.begins) > 1:
            anew = _listed([str(frame) for frame in self.begins[1:]])
            found.append(
                f"lost for more than {PATIENCE} frames, then the largest person followed: from {anew}"
            )
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
    model: str | os.PathLike | None = None,
    rows: int | None = None,
    detect: bool = False,
    bfloat16: bool = False,
    weights: str | os.PathLike | None = None,
    device: str = "auto",
    quality: Quality | None = None,
    people: People = "one",
    box: PixelBox | None = None,
    smooth: bool = False,
    overwrite: bool = False,
) -> VideoReport:
    """Estimate the IUV maps of a video's frames, with a progress bar.

    Args:
        source: a video that FFmpeg reads.
        out: the folder to write to; None: NAME_IUV beside the video.
        model, rows, detect, bfloat16, weights, device, quality: as for load_estimator.
        people: "one": a person who is followed, see densepose.follow; or "all".
        box: of the person in the first frame, who need not be the largest: x0, y0, x1, y1 in pixels.
        smooth: also write steadier maps of the person.
        overwrite: replace maps that were made by other settings.

    Raises:
        DSAError: PyAV is missing, no video that can be read to its end, maps by other settings (without
            `overwrite`), `smooth` or `box` of everybody, several processes, a folder that is not writable; as
            load_estimator.
    """
    source = Path(source)
    out = Path(out) if out is not None else source.with_name(f"{source.stem}_IUV")
    if rank_and_world()[1] > 1:
        raise DSAError(f"{source}: a video is estimated by one process; start it without torchrun")
    for name, given in (("smooth", smooth), ("box", box is not None)):
        if given and people == "all":
            raise DSAError(f"`{name}` is for the one person who is followed, not for `people=all`")
    crops = model is not None and not detect
    if crops and box is not None:
        raise DSAError("`box` picks a person, and without `detect` each frame is taken as a crop of one")
    header = video_header(source)
    estimator = load_estimator(
        model=model,
        rows=rows,
        detect=detect,
        bfloat16=bfloat16,
        weights=weights,
        device=device,
        quality=quality,
        people="one" if crops else "all",
    )
    record = estimator.record() | {"people": people}
    if people == "one" and not crops:
        record |= {"least_overlap": LEAST_OVERLAP, "patience": PATIENCE, "box": box}
    start = None if box is None else Extent(box[1], box[0], box[3], box[2])
    work = _Work(source, out, estimator, note_digest(json.dumps(record).encode()), people, start)
    report = VideoReport(out, foretold=header.frames)
    if not overwrite:
        _check_maps(out, work.by)
    make_folder(out / MAPS)
    write_record(out / RECORD, record)
    _write_maps(work, report)
    info = VideoRecord(video=source.name, rate=str(header.rate), frames=report.frames)
    with atomic_path(out / VIDEO) as temporary:
        temporary.write_text(info.model_dump_json(indent=1) + "\n")
    write_names(out / NO_DETECTION, report.nobody)
    write_names(out / OTHERS, report.others)
    _finish(work, report, smooth)
    return report


class _Work(NamedTuple):
    """What maps are made of, and how."""

    source: Path
    out: Path
    estimator: MapEstimator
    by: str
    people: People
    start: Extent | None  # of the person who is followed

    def path(self, number: int, folder: str = MAPS) -> Path:
        return self.out / folder / f"{_name(number)}.png"


class _Found(NamedTuple):
    """The digest of a frame, and its map; None: the file that is there is right."""

    of: str
    estimated: EstimatedMap | None


def _name(number: int) -> str:
    return f"{number:06}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_maps(out: Path, by: str) -> None:
    """Refuse to mix maps of several settings."""
    notes = ((path, read_note(path)) for path in sorted((out / MAPS).glob("[0-9]*[0-9].png")))
    other = [path for path, note in notes if note is None or note.by != by]
    if other:
        raise DSAError(
            f"{out / MAPS}: {len(other):,} of the maps were made by other settings, the first {other[0]}; "
            "dsareid densepose estimate with `overwrite=True` replaces them"
        )


def _write_maps(work: _Work, report: VideoReport) -> None:
    """Write the map of each frame, and the report."""
    follower = Follower(work.start)

    def run(item: tuple[int, np.ndarray]) -> _Found:
        number, pixels = item
        of = note_digest(pixels.tobytes())
        note = read_note(work.path(number))
        if note is not None and (note.by, note.of) == (work.by, of):
            return _Found(of, None)
        return _Found(of, work.estimator(pixels, uv=False))

    try:
        with one_thread_an_operation():
            frames = on_threads(run, enumerate(read_frames(work.source)))
            progress = tqdm(frames, "IUV maps", report.foretold, unit="frame", leave=False, disable=None)
            for number, found in enumerate(progress):
                _write_map(work, number, found, follower, report)
                report.frames += 1
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"interrupted: {report.frames:,} maps are in {work.out / MAPS}; the same command resumes"
        ) from interrupt
    report.begins = follower.begins if work.people == "one" else []
    numbers = [int(path.stem) for path in (work.out / MAPS).glob("*.png") if path.stem.isdecimal()]
    report.left_over = sum(number >= report.frames for number in numbers)


def _write_map(work: _Work, number: int, found: _Found, follower: Follower, report: VideoReport) -> None:
    path = work.path(number)
    if found.estimated is None:
        follower.see(read_iuv(path)[..., 0])
        report.kept += 1
        note = read_note(path)
    else:
        each = follower.pick(found.estimated) if work.people == "one" else found.estimated
        if each.instances is not None:
            write_instances(path, each.instances)
        note = MapNote(work.by, found.of, bool(each.iuv[..., 0].any()), round(each.others, 4), each.unsure)
        write_iuv(path, each.iuv, note)
        report.written += 1
    if note is not None and not note.person:
        report.nobody.append(_name(number))
    elif note is not None and note.others > LEAST_OTHERS:
        report.others.append(_name(number))


def _finish(work: _Work, report: VideoReport, steady: bool) -> None:
    """Look at the frames and their maps once more: smooth the maps, and draw some of them."""
    empty = set(report.nobody)
    shown = [number for number in range(report.frames) if _name(number) not in empty]
    places = np.linspace(0, len(shown) - 1, min(SAMPLE, len(shown))).round().astype(int)
    sample = {shown[place] for place in places}
    drawn: list[tuple[str, np.ndarray, Path]] = []

    def frames() -> Iterator[MappedFrame]:
        for number, pixels in enumerate(read_frames(work.source)):
            if number in sample:
                folder = SMOOTHED if steady else MAPS
                drawn.append((f"frame {number}", pixels, work.path(number, folder)))
            if steady:
                yield mapped_frame(pixels, read_iuv(work.path(number)))

    if steady:
        make_folder(work.out / SMOOTHED)
        report.flicker = _smooth(work, frames(), report.frames)
    else:
        deque(frames(), maxlen=0)
    if drawn:
        report.sheet = work.out / SHEET
        write_contact_sheet(report.sheet, drawn)


def _smooth(work: _Work, frames: Iterator[MappedFrame], count: int) -> tuple[Flicker, Flicker]:
    """Write the steadier maps; returns how much maps flicker before and after."""
    by = note_digest(f"{work.by} {smoothing.RADIUS} {smoothing.TOLERANCE}".encode())
    before, after = Flicker(), Flicker()
    steadied: MappedFrame | None = None
    last: MappedFrame | None = None
    windows = tqdm(_windows(frames), "smoothing", count, unit="frame", leave=False, disable=None)
    for number, (frame, others) in enumerate(windows):
        iuv = smooth(frame, others)
        own = read_note(work.path(number))
        of, share = (own.of, own.others) if own else ("", 0.0)
        note = MapNote(by, of, bool(iuv[..., 0].any()), share)
        write_iuv(work.path(number, SMOOTHED), iuv, note)
        steady = frame._replace(iuv=iuv)
        if last is not None and steadied is not None:
            before.add(last, frame)
            after.add(steadied, steady)
        last, steadied = frame, steady
    return before, after


def _windows(frames: Iterator[MappedFrame]) -> Iterator[tuple[MappedFrame, list[MappedFrame]]]:
    """Each frame with those around it."""
    before: deque[MappedFrame] = deque(maxlen=smoothing.RADIUS)
    after = deque(itertools.islice(frames, smoothing.RADIUS + 1))
    while after:
        frame = after.popleft()
        yield frame, [*before, *after]
        before.append(frame)
        after.extend(itertools.islice(frames, 1))
