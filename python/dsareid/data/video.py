"""Videos: their frames in order, upright, and pictures as a video. PyAV reads and writes them.

A file is untrusted: only what is in it is read, no other file or address that it names.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dsareid.data.images import MOST_PIXELS
from dsareid.ground.errors import DSAError, first_line
from dsareid.ground.files import atomic_path

if TYPE_CHECKING:
    from types import ModuleType

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
"""The suffixes of videos, in lower case."""
WRITABLE = (".mkv", ".mov", ".mp4")
"""The suffixes of what write_video writes."""
_RATE = Fraction(25)  # of a file that does not say it
_SHORT = 0.5, 0.02  # seconds, and share of its duration, by which a whole video may end early
_LOSS = 10  # x264's constant rate factor: 0 loses nothing, 18 is hardly seen


class VideoHeader(NamedTuple):
    """What a video says of itself."""

    rate: Fraction  # frames a second, on average
    frames: int | None  # None: the file does not say


def is_video(path: str | os.PathLike) -> bool:
    """Whether a path is called like a video."""
    return os.path.splitext(path)[1].lower() in SUFFIXES and not os.path.isdir(path)


def video_header(path: str | os.PathLike) -> VideoHeader:
    """The header of a video; errors as of read_frames."""
    with _opened(path) as (_, stream):
        return VideoHeader(stream.average_rate or stream.guessed_rate or _RATE, stream.frames or None)


def read_frames(path: str | os.PathLike) -> Generator[np.ndarray, None, None]:
    """The frames of a video, uint8 [H, W, 3] RGB each, turned as the file asks.

    Raises:
        DSAError: PyAV is missing; the file is missing, no video, or claims more than MOST_PIXELS; it is
            damaged, or ends before its duration; frames of several sizes.
    """
    with _opened(path) as (container, stream):
        size, first, end = None, None, 0.0
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise DSAError(f"{path}: damaged: the frame at {frame.time or 0:.2f} s cannot be decoded")
            first = frame.time if first is None else first
            end = (frame.time or 0.0) + float((frame.duration or 0) * (frame.time_base or 0))
            pixels = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)
            size = size or pixels.shape
            if pixels.shape != size:
                raise DSAError(
                    f"{path}: its frames change their size, from {_size(size)} to {_size(pixels.shape)}"
                )
            yield np.ascontiguousarray(pixels)
        if size is None:
            raise DSAError(f"{path}: no frame in it can be decoded")
        shown, duration = end - (first or 0.0), _duration(container, stream)
        if duration is not None and duration - shown > _SHORT[0] + _SHORT[1] * duration:
            raise DSAError(
                f"{path}: its frames end after {shown:.2f} of {duration:.2f} s; was it downloaded to the end?"
            )


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], rate: Fraction) -> None:
    """Write uint8 [H, W, 3] RGB pictures of one size as H.264; odd sides are continued by a pixel.

    Colours lose a little, and are stored at half the resolution, as players want it.

    Raises:
        DSAError: PyAV is missing, the name has no suffix of WRITABLE, or the file cannot be written.
    """
    av = _pyav()
    if os.path.splitext(path)[1].lower() not in WRITABLE:
        raise DSAError(f"{path}: the name of a video to write must end in {', '.join(WRITABLE)}")
    try:
        with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
            stream = container.add_stream("libx264", rate=rate, options={"crf": str(_LOSS)})
            stream.pix_fmt = "yuv420p"
            for pixels in frames:
                height, width = pixels.shape[:2]
                even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                if not stream.codec_context.is_open:
                    stream.height, stream.width = even.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, "rgb24")))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise DSAError(f"{path}: cannot be written: {error.strerror or first_line(error)}") from error


def _duration(container: Any, stream: Any) -> float | None:
    """Seconds of a video, as its file says; None: it does not."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) > 1 or not container.duration:  # what else is in the file may be longer
        return None
    # Matroska counts from 0, also where the first frame comes later.
    late = max(container.start_time or 0, 0) if "matroska" in container.format.name else 0
    return (container.duration - late) / 1e6


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[tuple[Any, Any]]:
    """The container and the first video stream of a file; every failure is a DSAError that names it."""
    av = _pyav()
    try:
        file = open(path, "rb")
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        try:
            # Playlists name other files and addresses; of the protocols that reach these none is allowed.
            options = {"protocol_whitelist": "none"}
            with av.open(file, options=options, metadata_errors="replace") as container:
                if not container.streams.video:
                    raise DSAError(f"{path}: no video in it")
                stream = container.streams.video[0]
                if stream.codec_context is None:
                    raise DSAError(f"{path}: FFmpeg has no decoder for this video")
                stream.codec_context.options = {"err_detect": "explode"}  # not a picture of what is left
                if stream.width * stream.height > MOST_PIXELS:
                    raise DSAError(f"{path}: claims {stream.width} x {stream.height} pixels, too many")
                stream.thread_type = "AUTO"
                yield container, stream
        except (av.FFmpegError, OSError) as error:
            reason = error.strerror or first_line(error)
            raise DSAError(f"{path}: not readable as a video, or damaged: {reason}") from error


def _pyav() -> "ModuleType":
    """PyAV, with FFmpeg's messages left off: with them on, closing a decoder waits for ever now and then."""
    try:
        import av
    except ImportError as error:
        raise DSAError(f"reading and writing videos needs PyAV: pip install av ({error})") from error
    return av


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
