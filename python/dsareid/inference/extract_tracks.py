"""`dsareid extract --boxes`: the mean feature of each track of a video, or of a folder of frames.

    OUT/crops/000007.jpg     of each track the crop that shows most of the person
    OUT/features.npy, images.csv, features.json     a row for each track (see feature_folder.py)

Where maps tell how much of the person a crop shows, it weighs as much in the mean: the share of the 24 parts
that are seen in its box. The same call resumes an interrupted one.
"""

import hashlib
import os
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np
from PIL import Image

from dsareid.data.folders import find_images
from dsareid.data.images import read_image
from dsareid.data.iuv import read_iuv
from dsareid.data.labels import ImageLabel
from dsareid.data.tracked_boxes import TrackedBox, frame_places, read_tracks, video_frame
from dsareid.data.video import is_video, read_frames
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path, make_folder
from dsareid.inference.embedder import Embedder
from dsareid.inference.extraction import Extracted, ExtractSettings, extract_rows
from dsareid.inference.feature_folder import FEATURES, FeatureFolderInfo, write_index
from dsareid.inference.feature_parts import file_stamp, read_parts
from dsareid.inference.pixels import as_pixels
from dsareid.inference.settings import OtherSettings

CROPS = "crops"
_PARTS = 24
_FEW = 1 / 1000  # of a box's pixels: a part with fewer is not seen
_LEAST = 1 / (2 * _PARTS)  # the weight of a crop in which nothing is seen


class _Place(NamedTuple):
    """Where a row is."""

    frame: int
    box: TrackedBox


class TrackRows:
    """The boxes of a video or of a folder of frames, by frame and track.

    Args:
        source: a video, or a folder of frames.
        boxes: of data.tracked_boxes.read_tracks.

    Raises:
        DSAError: no frames, or boxes that are not as expected, of a frame that there is not, or two of one
            track in a frame.
    """

    unit = "crop"

    def __init__(self, source: Path, boxes: Path):
        self.source, found = source, read_tracks(boxes)
        if found.others:
            logger.warning(f"{boxes}: boxes of other classes than people, left out: {found.others:,}")
        self.frames = None if is_video(source) else find_images(source)[0]
        names = self.frames or []
        stems = {os.path.splitext(name)[0]: place for place, name in enumerate(names)}
        if len(stems) < len(names):
            raise DSAError(f"{source}: two pictures have one name but for the suffix")
        try:
            numbers = frame_places(names)
        except ValueError as error:
            raise DSAError(f"{source}: {error}") from error
        at = [_Place(self._frame(boxes, box, stems, numbers), box) for box in found.boxes]
        self.places = sorted(at, key=lambda place: (place.frame, place.box.track))
        for one, other in zip(self.places, self.places[1:]):
            if (one.frame, one.box.track) == (other.frame, other.box.track):
                raise DSAError(f"{boxes}: {self._name(one)} has two boxes")
        self.names = [self._name(place) for place in self.places]

    def _frame(self, boxes: Path, box: TrackedBox, stems: dict[str, int], numbers: dict[int, int]) -> int:
        frame = box.frame
        if isinstance(frame, str):
            found = video_frame(self.source.stem, frame) if self.frames is None else stems.get(frame)
            if found is None:
                raise DSAError(f"{boxes}: {frame}.txt belongs to no frame of {self.source}")
            return found
        if self.frames is None:
            return frame
        if frame not in numbers:
            raise DSAError(f"{boxes}: frame {frame + 1}, but no picture in {self.source} is that frame")
        return numbers[frame]

    def _name(self, place: _Place) -> str:
        frame = f"frame {place.frame + 1}" if self.frames is None else self.frames[place.frame]
        return f"{self.source}: {frame}, track {place.box.track}"

    def digest(self) -> str:
        found = hashlib.sha256(repr(self.places).encode())
        files = [self.source] if self.frames is None else [self.source / name for name in self.frames]
        for file in files:
            found.update(b"%s\0%s\n" % (os.fsencode(file.name), file_stamp(file)))
        return found.hexdigest()

    def read(
        self, rows: Iterable[int], height: int, width: int, threads: int, ahead: int
    ) -> Generator[np.ndarray | DSAError, None, None]:
        for crop in self.crops(rows):
            yield crop if isinstance(crop, DSAError) else as_pixels(crop, height, width)

    def crops(self, rows: Iterable[int]) -> Iterator[np.ndarray | DSAError]:
        """The crops of some rows, in ascending order, uint8 [h, w, 3] each, or why there is none."""
        at, pixels = -1, np.empty((0, 0, 3), np.uint8)
        video = read_frames(self.source) if self.frames is None else None
        for row in rows:
            frame, box = self.places[row]
            try:
                if video is not None:
                    while at < frame:
                        at, pixels = at + 1, next(video)
                elif frame != at:
                    assert self.frames is not None
                    at, pixels = frame, read_image(self.source / self.frames[frame])
            except StopIteration:
                raise DSAError(f"{self.names[row]}: the video has {at + 1:,} frames") from None
            except DSAError as error:
                if video is not None:
                    raise
                yield error
                continue
            sides = box.within(*pixels.shape[:2])
            if sides is None:
                yield DSAError(f"{self.names[row]}: its box lies outside of the frame")
                continue
            left, top, right, bottom = sides
            yield pixels[top:bottom, left:right]

    def seen(self, maps: Path) -> np.ndarray:
        """How much of the person each crop shows, float64 [rows], by IUV maps of the frames.

        Args:
            maps: a folder with 000000.png and so on for the frames of a video, or NAME.png for NAME.jpg.

        Raises:
            DSAError: a map is missing or cannot be read.
        """
        found, at, part = np.empty(len(self.places)), -1, np.empty((0, 0), np.uint8)
        for row, (frame, box) in enumerate(self.places):
            if frame != at:
                name = f"{frame:06d}" if self.frames is None else os.path.splitext(self.frames[frame])[0]
                at, part = frame, read_iuv(maps / f"{name}.png")[..., 0]
            sides = box.within(*part.shape)
            if sides is None:
                found[row] = 0
                continue
            left, top, right, bottom = sides
            inside = part[top:bottom, left:right]
            counts = np.bincount(inside.ravel(), minlength=_PARTS + 1)[1:]
            found[row] = (counts > _FEW * inside.size).sum() / _PARTS
        return found


def extract_tracks(
    model: str | os.PathLike,
    source: str | os.PathLike,
    boxes: str | os.PathLike,
    out: str | os.PathLike,
    *,
    maps: str | os.PathLike | None = None,
    camera: str | None = None,
    **settings: Unpack[ExtractSettings],
) -> Extracted:
    """Write the mean feature of each track, with a progress bar.

    Args:
        model: as for embed().
        source: a video, or a folder of frames.
        boxes: a MOT file, or a folder of labels that YOLO wrote.
        out: the folder to make, or one that an earlier call with the same arguments has begun.
        maps: IUV maps of the frames, as `dsareid densepose estimate` writes them; default: all crops of a
            track weigh alike.
        camera: a word for the column camera; default: empty.
        settings: batch_size, device, skip_broken, trust, facts, see extraction.ExtractSettings.

    Raises:
        DSAError: as embed() and TrackRows; a frame or a map that cannot be read, `out` is something else or
            cannot be written, batch_size is below 1.
    """
    source, out = Path(source), Path(out)
    found = TrackRows(source, Path(boxes))  # before the network is loaded: its faults are the likeliest

    def join(embedder: Embedder, rows: TrackRows, kept: list[int]) -> None:
        weights = np.ones(len(rows.names)) if maps is None else rows.seen(Path(maps))
        _write_means(embedder, rows, np.array(kept), weights.clip(_LEAST), out, camera)

    more = {"maps": str(maps), "camera": str(camera)}
    return extract_rows(model, source, out, lambda: found, join, more, **settings)


def _write_means(
    embedder: Embedder, rows: TrackRows, kept: np.ndarray, weights: np.ndarray, out: Path, camera: str | None
) -> None:
    """Write the folder of features from the parts."""
    tracks, track = np.unique([rows.places[row].box.track for row in kept], return_inverse=True)
    sums, start = np.zeros((len(tracks), embedder.dimension)), 0
    for features in read_parts(out, rows):
        here = slice(start, start + len(features))
        np.add.at(sums, track[here], weights[kept[here], None] * features)
        start += len(features)
    pieces = sums.reshape(len(tracks), embedder.settings.pieces, -1)
    norms = np.linalg.norm(pieces, axis=2, keepdims=True)
    means = (pieces / np.maximum(norms, np.finfo(np.float64).tiny)).reshape(sums.shape)
    files = _write_crops(rows, weights, kept, track, tracks, out)
    with atomic_path(out / FEATURES) as temporary:
        np.save(temporary, means.astype(np.float32))
    settings = embedder.settings
    info = FeatureFolderInfo(
        model=embedder.model,
        count=len(tracks),
        dimension=embedder.dimension,
        images=str(out.absolute()),
        features=f"means over tracks of {rows.source.name}: {settings.description}",
        facts=settings.facts if isinstance(settings, OtherSettings) else None,
    )
    write_index(out, info, files, [ImageLabel(None, camera)] * len(tracks), map(str, tracks.tolist()))


def _write_crops(
    rows: TrackRows, weights: np.ndarray, kept: np.ndarray, track: np.ndarray, tracks: np.ndarray, out: Path
) -> list[str]:
    """Write the crop of each track that shows most of the person, the largest of equal ones; their names."""
    areas = [(box.right - box.left) * (box.bottom - box.top) for _, box in (rows.places[row] for row in kept)]
    best = np.lexsort((-np.array(areas), -weights[kept], track))
    best = best[np.unique(track[best], return_index=True)[1]]
    chosen = dict(sorted(zip(kept[best].tolist(), tracks[track[best]].tolist())))
    make_folder(out / CROPS)
    for number, crop in zip(chosen.values(), rows.crops(chosen)):
        if isinstance(crop, DSAError):
            raise crop
        with atomic_path(out / CROPS / f"{number:06d}.jpg") as temporary:
            Image.fromarray(crop).save(temporary, "JPEG", quality=95)
    return [f"{CROPS}/{number:06d}.jpg" for number in tracks.tolist()]
