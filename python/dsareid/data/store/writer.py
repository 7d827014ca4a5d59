"""Writing a store, a chunk of images at a time.

    OUT                   the finished store, there only when it is complete
    .NAME.partial/        the store while it is being made, beside OUT
    .NAME.partial/journal.jsonl   what is packed, then one line for each finished chunk of images
    .NAME.old             the outdated store, while the new one takes its place
    .NAME.lock            held by the process that packs

If a writer is killed, at any moment, the next one for the same files resumes its work.
"""

import contextlib
import errno
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from dsareid.data.store.format import (
    HEADER,
    VERSION,
    ArrayFile,
    Contents,
    Kind,
    SkippedFile,
    StoreHeader,
    StoreLayout,
    header_text,
    npy_header,
    npy_size,
    sha256,
)
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, hold_lock

JOURNAL = "journal.jsonl"
CHUNK_IMAGES, CHUNK_BYTES = 512, 64 << 20  # a chunk of images in memory is at most this


class _FinishedChunk(BaseModel):
    """A line of the journal: a chunk that is finished."""

    model_config = ConfigDict(extra="forbid", strict=True)

    chunk: int
    skipped: list[SkippedFile]


class StoreWriter:
    """Writes the files of a store. Comes from `open_writer`, which holds the lock.

    Call `resume`, then `write_rows` for each of `remaining`, then `finish`. An OSError of the file system
    passes through: `open_writer` explains it.
    """

    def __init__(self, out: Path, layout: StoreLayout, source: str):
        """
        Args:
            out: the store.
            layout: of its arrays.
            source: the fingerprint of the files that are packed.
        """
        self.out, self.layout, self.source = out, layout, source
        self.partial = out.with_name(f".{out.name}.partial")
        self._chunk = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (layout.height * layout.width * 3)))
        self._skipped: dict[int, list[SkippedFile]] = {}  # of each chunk that is finished
        self._files = contextlib.ExitStack()
        self._pixels: dict[str, io.FileIO] = {}

    @property
    def remaining(self) -> list[range]:
        """The rows of each chunk that is not finished."""
        count, size = self.layout.images, self._chunk
        chunks = [range(start, min(start + size, count)) for start in range(0, count, size)]
        return [rows for number, rows in enumerate(chunks) if number not in self._skipped]

    @property
    def written(self) -> int:
        """Images in the chunks that are finished."""
        return self.layout.images - sum(map(len, self.remaining))

    @property
    def skipped(self) -> list[SkippedFile]:
        """The files that were left out of the chunks that are finished, in order."""
        return [file for chunk in sorted(self._skipped) for file in self._skipped[chunk]]

    def resume(self, *, redo_skipped: bool) -> None:
        """Prepare the partial folder, and take over the chunks that an earlier writer finished in it.

        Args:
            redo_skipped: redo the chunks in which a file was skipped.
        """
        lines = self._read_journal()
        kinds = {name: self.layout.arrays[name] for name in self.layout.pixels}
        whole = all(_length(self.partial / name) == npy_size(*kind) for name, kind in kinds.items())
        if not lines or lines[0] != self._key or not whole:
            self._begin(kinds)
            lines = [self._key]
        done = [_FinishedChunk.model_validate(line) for line in lines[1:]]
        self._skipped = {line.chunk: line.skipped for line in done if not (redo_skipped and line.skipped)}
        with atomic_path(self.partial / JOURNAL) as temporary:  # without a torn last line
            lines = [self._key, *(self._line(chunk) for chunk in self._skipped)]
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for name in kinds:
            self._pixels[name] = self._files.enter_context((self.partial / name).open("r+b", buffering=0))

    def write_rows(
        self, rows: range, pixels: Mapping[str, np.ndarray], skipped: Iterable[SkippedFile] = ()
    ) -> None:
        """Write a chunk to the disk, and note in the journal that it is finished.

        Args:
            rows: one of `remaining`.
            pixels: uint8 [n, H, W, 3] for each of the layout's files of pixels.
            skipped: the files of these rows that were left out.
        """
        for name, file in self._pixels.items():
            _write_at(file.fileno(), self.layout.arrays[name], rows.start, pixels[name])
            os.fsync(file.fileno())
        chunk = rows.start // self._chunk
        self._skipped[chunk] = list(skipped)
        with (self.partial / JOURNAL).open("a") as journal:
            journal.write(json.dumps(self._line(chunk)) + "\n")

    def finish(self, labels: Mapping[str, Sequence], contents: Contents) -> None:
        """Write the small arrays and the header, and give the store its name.

        Args:
            labels: the values of each file of format.LABELS, by its name.
            contents: what the header says of the data.
        """
        self.close()
        for name, values in labels.items():
            with (self.partial / name).open("wb") as file:
                np.save(file, np.array(values, self.layout.arrays[name][0]))
                _flush(file)
        header = StoreHeader(
            **dict(contents),
            height=self.layout.height,
            width=self.layout.width,
            images=self.layout.images,
            source=self.source,
            skipped=self.skipped,
            arrays=self._checksums(),
        )
        with (self.partial / HEADER).open("w") as text:
            text.write(header_text(header))
            _flush(text)
        _flush_folder(self.partial)
        self._publish()

    def close(self) -> None:
        """Close the files of pixels; what is finished stays."""
        self._files.close()
        self._pixels = {}

    @property
    def _key(self) -> dict:
        """The journal's first line; chunks under another one cannot be taken over."""
        return {
            "version": VERSION,
            "source": self.source,
            "height": self.layout.height,
            "width": self.layout.width,
            "chunk": self._chunk,
        }

    def _line(self, chunk: int) -> dict:
        return _FinishedChunk(chunk=chunk, skipped=self._skipped[chunk]).model_dump()

    def _read_journal(self) -> list[dict]:
        """The journal's lines up to the first that is torn or not valid."""
        try:
            text = (self.partial / JOURNAL).read_text()
        except (FileNotFoundError, UnicodeDecodeError):
            return []
        lines: list[dict] = []
        for line in text.splitlines():
            try:
                content = json.loads(line)
                if lines:
                    _FinishedChunk.model_validate(content)
            except (ValueError, RecursionError):
                break
            lines.append(content)
        return lines

    def _begin(self, kinds: Mapping[str, Kind]) -> None:
        """Replace the partial folder by a new one, with the files of pixels in it."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.partial)
        self.partial.mkdir()
        try:
            for name, kind in kinds.items():
                _reserve(self.partial / name, kind)
        except OSError:
            shutil.rmtree(self.partial)  # nothing is packed yet: do not keep a full disk full
            raise

    def _checksums(self) -> dict[str, ArrayFile]:
        arrays, total = {}, self.layout.bytes
        with tqdm(
            total=total, desc="checksums", unit="B", unit_scale=True, leave=False, disable=None
        ) as progress:
            for name, (dtype, shape) in self.layout.arrays.items():
                digest = sha256(self.partial / name, progress.update)
                size = npy_size(dtype, shape)
                arrays[name] = ArrayFile(dtype=dtype, shape=list(shape), bytes=size, sha256=digest)
        return arrays

    def _publish(self) -> None:
        """Give the finished store its name. A reader of an outdated one keeps its open files."""
        old = _old(self.out)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(old)
        if os.path.lexists(self.out):
            os.rename(self.out, old)
        os.rename(self.partial, self.out)
        _flush_folder(self.out.parent)
        os.unlink(self.out / JOURNAL)  # last: until the store has its name, a killed call resumes by it
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(old)


@contextlib.contextmanager
def open_writer(out: Path, layout: StoreLayout, source: str) -> Iterator[StoreWriter]:
    """Hold the lock of a store and yield its writer, which has done nothing yet.

    Waits while another process packs; check afterwards whether that one has made the store.

    Raises:
        DSAError: a failure of the file system; for a full disk it says what is needed.
    """
    writer = StoreWriter(out, layout, source)
    try:
        with _hold_store_lock(out):
            try:
                yield writer
            finally:
                writer.close()
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(out.parent).free
            why = f"the disk is full: {layout.bytes:,} bytes are needed in all, {free:,} are free"
        raise DSAError(f"cannot write {out}: {why}") from error


def remove_leftovers(out: Path) -> None:
    """Remove what is left of a writer that was killed just after it gave the finished store its name."""
    old = _old(out)
    if not any(map(os.path.lexists, (out / JOURNAL, old))) or not os.access(out.parent, os.W_OK):
        return
    with _hold_store_lock(out):
        (out / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)


def _hold_store_lock(out: Path) -> contextlib.AbstractContextManager[None]:
    waiting = f"{out} is being packed by another process; waiting for it"
    return hold_lock(out.with_name(f".{out.name}.lock"), waiting)


def _old(out: Path) -> Path:
    return out.with_name(f".{out.name}.old")


# ---- files ----


def _length(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return None


def _reserve(path: Path, kind: Kind) -> None:
    """Create the .npy file of an array of zeros, and reserve its space on the disk."""
    size = npy_size(*kind)
    with path.open("wb") as file:
        file.write(npy_header(*kind))
        file.flush()
        try:
            if not hasattr(os, "posix_fallocate"):
                raise OSError(errno.EOPNOTSUPP, "no posix_fallocate")
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            os.ftruncate(file.fileno(), size)  # a file system that cannot reserve


def _write_at(descriptor: int, kind: Kind, first: int, rows: np.ndarray) -> None:
    """Write rows of an array, uint8 [n, ...], into its file. Not by a map: there a full disk is a signal."""
    offset = len(npy_header(*kind)) + first * rows[0].nbytes
    left = memoryview(np.ascontiguousarray(rows).data).cast("B")
    while left:
        written = os.pwrite(descriptor, left, offset)
        offset, left = offset + written, left[written:]


def _flush(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _flush_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
