"""Packing: a data set's files, decoded once, into a store.

    OUT                   the finished store, there only when it is complete
    .NAME.partial/        the store while it is being made, beside OUT
    .NAME.partial/journal.jsonl   what is packed, then one line for each finished chunk of images
    .NAME.lock            held by the process that packs

A call that was ended at any moment is gone on with by the next one for the same files.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict
from tqdm import tqdm

from dsareid.data.iuv import image_size, read_image, read_pair
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import ALL_SPLITS, NO_CAMERAS, Entry, Listing, missing_map
from dsareid.data.store.reader import (
    HEADER,
    IMAGES,
    IUV,
    MOST_PIXELS,
    SKIPPED,
    VERSION,
    ArrayFile,
    Header,
    SkippedFile,
    Store,
    array_layout,
    header_text,
    npy_header,
    open_store,
    read_header,
    sha256,
)
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, is_at, make_folder, readable_size
from dsareid.ground.machine import cores

JOURNAL = "journal.jsonl"
CHUNK_IMAGES, CHUNK_BYTES = 512, 64 << 20  # a chunk of images in memory is at most this


class _Done(BaseModel):
    """A line of the journal: a chunk that is finished."""

    model_config = ConfigDict(extra="forbid", strict=True)

    chunk: int
    skipped: list[SkippedFile]


class _Broken(DSAError):
    """A file that cannot be packed."""


@dataclass(frozen=True)
class _Job:
    """What is to be packed, and how large."""

    listing: Listing
    height: int
    width: int
    resized: bool

    @cached_property
    def has_iuv(self) -> bool:
        return any(entry.iuv for entry in self.listing.entries)

    @cached_property
    def layout(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        entries = self.listing.entries
        names = f"|S{max(len(entry.name.encode()) for entry in entries)}"
        return array_layout(len(entries), self.height, self.width, names=names, iuv=self.has_iuv)

    @cached_property
    def bytes(self) -> int:
        return sum(_npy_size(*kind) for kind in self.layout.values())

    @property
    def chunk(self) -> int:
        """Images in a chunk."""
        return max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (self.height * self.width * 3)))

    @property
    def key(self) -> dict:
        """The journal's first line: work under another one is of no use."""
        return {
            "version": VERSION,
            "source": self.listing.fingerprint,
            "height": self.height,
            "width": self.width,
            "chunk": self.chunk,
        }


def pack(
    root: str | os.PathLike,
    out: str | os.PathLike,
    height: int | None = None,
    width: int | None = None,
    *,
    protocol: str = "",
    default: tuple[int, int] = (256, 128),
    skip_broken: bool = False,
) -> Store:
    """Decode a data set into a store, with a progress bar and on all cores.

    Junk (identity -1) is dropped; distractors (identity 0) stay. A call that was interrupted is gone
    on with by the next one. Where `out` is the store of the same files already, it is opened.

    Args:
        root: the data set.
        out: the folder to make.
        height, width: rows and columns of the stored images, both or neither. Images are resized
            bilinearly, IUV maps by nearest neighbour. The size of the files unless given.
        protocol: the one by which the data set is split, as for list_data.
        default: the height and width where the files are not of one size.
        skip_broken: leave out files that cannot be read or are misnamed, instead of raising; the
            store's header lists them.

    Raises:
        DSAError: no data set, a file of it that cannot be read or is misnamed, an IUV map of another
            size than its image, `out` is something else, or it cannot be written (a full disk).
    """
    given = height, width
    if given != (None, None) and not all(x is not None and 1 <= x <= MOST_PIXELS for x in given):
        raise DSAError(f"--height and --width must both be given, 1..{MOST_PIXELS}, not {height} and {width}")
    out, listing = Path(out), list_data(root, protocol)
    _say(listing.notes)
    job = _plan(listing, None if height is None else (height, width), default)
    if _is_free(out):
        make_folder(out.parent)
        with _said(out, job), _lock(out):
            if _is_free(out):  # another process may have made it in the meantime
                return _pack(job, out, skip_broken)
    return _finished(out, job)


def ensure_store(
    path: str | os.PathLike, height: int, width: int, *, mapped: Sequence[str] = (), protocol: str = ""
) -> Store:
    """The store of a data set for a network of the given input size; packed where there is none yet.

    Args:
        path: a store, which is opened, or a data set's root. A root is packed into ROOT/store-HxW, with
            -PROTOCOL where that is not the data set's default, or below $XDG_CACHE_HOME or
            ~/.cache/dsareid where ROOT is not writable; a store there that is of the files as they are now
            is opened, an outdated one replaced.
        height, width: the stored size where the files are not of one size.
        mapped: splits whose images must have an IUV map, which is looked at before anything is packed.
        protocol: the one by which the data set is split, as for list_data; of a store its own, or none.

    Raises:
        DSAError: as pack and open_store; an image of a data set without the map it needs; a store that was
            packed by another protocol.
    """
    path = Path(path)
    if os.path.lexists(path / HEADER):
        return _by_protocol(open_store(path), protocol)
    if min(height, width) < 1:
        raise DSAError(f"height and width must be at least 1, not {height} and {width}")
    listing = list_data(path, protocol)
    _say(listing.notes)
    for entry in listing.entries:
        if entry.split in mapped and entry.iuv is None:
            raise DSAError(missing_map(path, entry.name))
    place = _place(path)
    there = sorted({*path.glob("store-*x*"), *place.glob("store-*x*")})
    if stores := [store for folder in there if (store := _usable(folder, listing, height, width))]:
        exact = (height, width)  # the first choice, so that a run that goes on finds the store it began with
        best = min(stores, key=lambda store: ((store.height, store.width) != exact, store.header.resized))
        _tidy(best.path)
        return best
    job = _plan(listing, None, (height, width))
    out = make_folder(place) / f"store-{job.height}x{job.width}{_suffix(listing)}"
    with _said(out, job), _lock(out):
        if store := _usable(out, listing, height, width, say=True):
            return store  # another process has packed it in the meantime
        if not _is_free(out):
            _check_replaceable(out)
        store = _pack(job, out, skip_broken=False)
    why = "" if place == path else f", as {path} is not writable"
    print(f"packed {path} into {out} ({readable_size(job.bytes)}){why}; later runs read it", file=sys.stderr)
    return store


def _say(notes: list[str]) -> None:
    for note in notes:
        print(note, file=sys.stderr)


def _suffix(listing: Listing) -> str:
    """What the name of a store ends in, by its protocol."""
    return "" if listing.protocol == listing.dataset.default else f"-{listing.protocol}"


# ---- what there is already ----


def _by_protocol(store: Store, protocol: str) -> Store:
    """The store, if it was packed by the protocol, or any will do."""
    found = store.header.protocol
    if protocol and set(protocol.split("+")) != set(found.split("+")):
        raise DSAError(
            f"{store.path}: packed by {f'the protocol {found}' if found else 'no protocol'}, not by "
            f"{protocol}; give the folder that it was packed from"
        )
    if not store.header.cameras:
        _say([f"note: {store.path}: {NO_CAMERAS}"])
    return store


def _is_free(out: Path) -> bool:
    """Whether nothing is there, or an empty folder."""
    return not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir()))


def _finished(out: Path, job: _Job) -> Store:
    """The store `out`, if it is that of the job."""
    if not os.path.lexists(out / HEADER):
        raise DSAError(f"{out}: exists already and is not a store; choose another folder")
    try:
        store = open_store(out)
    except DSAError as error:
        raise DSAError(f"{error}; remove {out} first") from error
    found = store.header.source, store.height, store.width
    if found != (job.listing.fingerprint, job.height, job.width):
        raise DSAError(
            f"{out}: exists already, and is not the store of {job.listing.root} as it is now with "
            f"{job.height} rows x {job.width} columns; remove it, or choose another folder"
        )
    _tidy(out)
    print(f"{out} already holds these files", file=sys.stderr)
    return store


def _usable(path: Path, listing: Listing, height: int, width: int, say: bool = False) -> Store | None:
    """The store, if it is of the listing's files and fits a network of this input size; `say` why not."""
    if not os.path.lexists(path / HEADER):
        return None
    try:
        header = read_header(path)
        size = header.height, header.width
        if header.source == listing.fingerprint and (not header.resized or size == (height, width)):
            return open_store(path)
    except DSAError as error:  # damaged, or of another version: it is made again
        if say:
            why = str(error).removesuffix("; pack the data set again")
            print(f"note: {why}; it is packed again", file=sys.stderr)
    return None


def _check_replaceable(path: Path) -> None:
    """Raise DSAError where a folder that is in the way is not a store and nothing else."""
    ours = {HEADER, JOURNAL, *array_layout(1, 1, 1, names="|S1", iuv=True)}
    found = set(os.listdir(path))
    if HEADER not in found or not found <= ours:
        other = ", ".join(sorted(found - ours)[:3]) or f"no {HEADER}"
        raise DSAError(f"{path}: the place of a store, but this is something else ({other}); move it away")


def _place(root: Path) -> Path:
    """The folder for the stores of a data set: the data set's own, or one below the user's cache."""
    if os.access(root, os.W_OK):
        return root
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise DSAError(f"{root} is not writable and there is no home folder; set XDG_CACHE_HOME") from error
    root = root.absolute()
    return cache / "dsareid" / f"{root.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


# ---- the size ----


def _plan(listing: Listing, given: tuple[int, int] | None, default: tuple[int, int]) -> _Job:
    """The stored size: the given one, else that of the files if it is one, else the default."""
    same = given
    with ThreadPoolExecutor(cores()) as pool:
        paths = [listing.root / entry.name for entry in listing.entries]
        for path, size in zip(paths, _as_they_come(pool, _file_size, paths)):
            same = same or size
            if size not in (None, same):
                if not given:
                    sizes = "{} rows x {} columns, others {} x {}".format(*size, *same)
                    all_as = "{} x {}".format(*default)
                    print(f"note: {path} is {sizes}: all images are stored as {all_as}", file=sys.stderr)
                return _Job(listing, *(given or default), resized=True)
    if same and max(same) > MOST_PIXELS:
        raise DSAError(
            f"{listing.root}: its images are {same[0]} x {same[1]}, but at most {MOST_PIXELS} rows and "
            "columns can be stored: give --height and --width"
        )
    return _Job(listing, *(same or default), resized=False)


def _file_size(path: Path) -> tuple[int, int] | None:
    """Rows and columns of an image by its header alone; None where that cannot be read."""
    try:
        width, height = image_size(path)
    except DSAError:  # a broken file is named when it is decoded
        return None
    return height, width


def _as_they_come(pool: ThreadPoolExecutor, work: Callable, items: list) -> Iterator:
    """Results in order; what has not begun is dropped when the caller stops asking."""
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


# ---- packing ----


def _pack(job: _Job, out: Path, skip_broken: bool) -> Store:
    """Make the store `out`; a store that is there is replaced. The lock is held."""
    partial = out.with_name(f".{out.name}.partial")
    try:
        for entry in job.listing.entries:
            if entry.misnamed and not skip_broken:
                raise _Broken(f"{job.listing.root / entry.name}: {entry.misnamed}")
        done = _resume(job, partial, skip_broken)
        _decode(job, partial, done, skip_broken)
    except _Broken as error:
        kept = f"; what is packed is kept in {partial}" if partial.exists() else ""
        by = f" --protocol {job.listing.protocol}" if job.listing.protocol else ""
        leave_out = f"dsareid pack {job.listing.root} {out}{by} --skip-broken"
        raise DSAError(f"{error} ({leave_out} leaves such files out{kept})") from error
    skipped = [SkippedFile(**file) for chunk in sorted(done) for file in done[chunk]]
    _write_labels(job, partial, {file.file for file in skipped})
    _write_header(job, partial, skipped)
    _publish(partial, out)
    return open_store(out)


def _resume(job: _Job, partial: Path, skip_broken: bool) -> dict[int, list[dict]]:
    """Prepare the partial folder; the chunks that an earlier call finished, with what each skipped."""
    lines = _read_journal(partial)
    pixels = {name: kind for name, kind in job.layout.items() if name in (IMAGES, IUV)}
    whole = all(_length(partial / name) == _npy_size(*kind) for name, kind in pixels.items())
    if not lines or lines[0] != job.key or not whole:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(partial)
        partial.mkdir()
        try:
            for name, kind in pixels.items():
                _reserve(partial / name, *kind)
        except OSError:
            shutil.rmtree(partial)  # nothing is packed yet: do not keep a full disk full
            raise
        lines = [job.key]
    done = {line["chunk"]: line["skipped"] for line in lines[1:]}
    if not skip_broken:  # another call skipped these: this one is to name them
        done = {chunk: skipped for chunk, skipped in done.items() if not skipped}
    lines = [job.key, *({"chunk": chunk, "skipped": skipped} for chunk, skipped in done.items())]
    with atomic_path(partial / JOURNAL) as temporary:  # without the torn last line of a call that was killed
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return done


def _read_journal(partial: Path) -> list[dict]:
    """Its lines up to the first that is torn, or is none of ours."""
    try:
        text = (partial / JOURNAL).read_text()
    except (FileNotFoundError, UnicodeDecodeError):
        return []
    lines = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
            if lines:
                content = _Done.model_validate(content).model_dump()
        except (ValueError, RecursionError):
            break
        lines.append(content)
    return lines


def _decode(job: _Job, partial: Path, done: dict[int, list[dict]], skip_broken: bool) -> None:
    """Decode the chunks that are not done into the arrays, noting each in `done` and in the journal."""
    entries, size = job.listing.entries, job.chunk
    chunks = [range(start, min(start + size, len(entries))) for start in range(0, len(entries), size)]
    todo = [(k, rows) for k, rows in enumerate(chunks) if k not in done]
    packed = len(entries) - sum(len(rows) for _, rows in todo)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(cores()))  # Pillow decodes without the GIL
        progress = stack.enter_context(
            tqdm(total=len(entries), initial=packed, desc="packing", unit="image", leave=False, disable=None)
        )
        names = [IMAGES, IUV] if job.has_iuv else [IMAGES]
        arrays = [stack.enter_context((partial / name).open("r+b", buffering=0)) for name in names]
        journal = stack.enter_context((partial / JOURNAL).open("a"))
        try:
            for chunk, rows in todo:
                pixels, problems = _decode_chunk(job, pool, rows, progress.update)
                skipped = _judge(job, rows, problems, skip_broken)
                for array, name, part in zip(arrays, names, pixels):
                    _write_rows(array.fileno(), job.layout[name], rows.start, part)
                    os.fsync(array.fileno())
                journal.write(json.dumps({"chunk": chunk, "skipped": skipped}) + "\n")
                journal.flush()
                done[chunk] = skipped
                packed += len(rows)
        except KeyboardInterrupt as interrupt:
            note = f"interrupted; {packed:,} of {len(entries):,} images are packed, the same command goes on"
            raise KeyboardInterrupt(note) from interrupt


def _decode_chunk(
    job: _Job, pool: ThreadPoolExecutor, rows: range, advance: Callable[[], object]
) -> tuple[list[np.ndarray], list[DSAError | None]]:
    """The images and maps of some rows, uint8 [n, H, W, 3] each, zeros where a file is broken."""
    shape = (len(rows), job.height, job.width, 3)
    images = np.zeros(shape, np.uint8)
    maps = np.zeros(shape, np.uint8) if job.has_iuv else None

    def decode(k: int) -> DSAError | None:
        entry = job.listing.entries[rows[k]]
        try:
            image, chart = _read(job.listing.root, entry)
        except DSAError as error:
            return error
        images[k] = _resize(image, job, Image.Resampling.BILINEAR)
        if chart is not None:
            maps[k] = _resize(chart, job, Image.Resampling.NEAREST)
        return None

    problems = []
    for problem in pool.map(decode, range(len(rows))):
        problems.append(problem)
        advance()
    return [images] if maps is None else [images, maps], problems


def _read(root: Path, entry: Entry) -> tuple[np.ndarray, np.ndarray | None]:
    if entry.misnamed:
        raise DSAError(f"{root / entry.name}: {entry.misnamed}")
    if entry.iuv is None:
        return read_image(root / entry.name), None
    return read_pair(root / entry.name, root / entry.iuv)


def _resize(array: np.ndarray, job: _Job, how: Image.Resampling) -> np.ndarray:
    if array.shape[:2] == (job.height, job.width):
        return array
    return np.asarray(Image.fromarray(array).resize((job.width, job.height), how))


def _judge(job: _Job, rows: range, problems: Iterable[DSAError | None], skip_broken: bool) -> list[dict]:
    """The files of a chunk that are skipped; the first broken one is raised where none may be."""
    skipped = []
    for row, problem in zip(rows, problems):
        if problem is None:
            continue
        if not skip_broken:
            raise _Broken(str(problem)) from problem
        name = job.listing.entries[row].name
        reason = str(problem).replace(f"{job.listing.root}{os.sep}", "").removeprefix(f"{name}: ")
        skipped.append({"file": name, "reason": reason})
    return skipped


def _write_labels(job: _Job, partial: Path, skipped: set[str]) -> None:
    """Write the small arrays."""
    entries, layout = job.listing.entries, job.layout
    kept = [entry.name not in skipped for entry in entries]
    columns = {
        "has_iuv.npy": [bool(entry.iuv) and keep for entry, keep in zip(entries, kept)],
        "ids.npy": [entry.identity for entry in entries],
        "cameras.npy": [entry.camera for entry in entries],
        "split.npy": [ALL_SPLITS.index(e.split) if keep else SKIPPED for e, keep in zip(entries, kept)],
        "names.npy": [entry.name.encode() for entry in entries],
    }
    for name, values in columns.items():
        with (partial / name).open("wb") as file:
            np.save(file, np.array(values, layout[name][0]))
            _flush(file)


def _write_header(job: _Job, partial: Path, skipped: list[SkippedFile]) -> None:
    """Write store.json: with it the store is whole."""
    entries, left_out = job.listing.entries, {file.file for file in skipped}
    counts = {s: sum(e.split == s and e.name not in left_out for e in entries) for s in ALL_SPLITS}
    if not any(counts.values()):
        first = skipped[0]
        raise DSAError(f"{job.listing.root}: every image is broken; the first: {first.file}: {first.reason}")
    header = Header(
        height=job.height,
        width=job.width,
        images=len(entries),
        splits={split: count for split, count in counts.items() if count},
        resized=job.resized,
        dataset=job.listing.dataset.name,
        protocol=job.listing.protocol,
        cameras=job.listing.cameras,
        synthetic=(job.listing.root / "synth.json").exists(),
        source=job.listing.fingerprint,
        skipped=skipped,
        arrays=_checksums(job, partial),
    )
    with (partial / HEADER).open("w") as file:
        file.write(header_text(header))
        _flush(file)
    _flush_folder(partial)


def _checksums(job: _Job, partial: Path) -> dict[str, ArrayFile]:
    arrays = {}
    progress = tqdm(total=job.bytes, desc="checksums", unit="B", unit_scale=True, leave=False, disable=None)
    with progress:
        for name, (dtype, shape) in job.layout.items():
            digest = sha256(partial / name, progress.update)
            size = _npy_size(dtype, shape)
            arrays[name] = ArrayFile(dtype=dtype, shape=list(shape), bytes=size, sha256=digest)
    return arrays


# ---- files ----


def _npy_size(dtype: str, shape: tuple[int, ...]) -> int:
    return len(npy_header(dtype, shape)) + int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize


def _length(path: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return None


def _reserve(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    """Make the .npy file of an array, zeros, whose place on the disk is certain."""
    size = _npy_size(dtype, shape)
    with path.open("wb") as file:
        file.write(npy_header(dtype, shape))
        file.flush()
        try:
            if not hasattr(os, "posix_fallocate"):
                raise OSError(errno.EOPNOTSUPP, "no posix_fallocate")
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            os.ftruncate(file.fileno(), size)  # a file system that cannot reserve


def _write_rows(descriptor: int, kind: tuple[str, tuple[int, ...]], first: int, rows: np.ndarray) -> None:
    """Write rows of an array, uint8 [n, ...], into its file. Not by a map: there a full disk is a signal."""
    offset = len(npy_header(*kind)) + first * rows[0].nbytes
    left = memoryview(rows).cast("B")
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


def _publish(partial: Path, out: Path) -> None:
    """Give the finished store its name. A reader of an outdated one keeps its open files."""
    old = out.with_name(f".{out.name}.old")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(old)
    if os.path.lexists(out):
        os.rename(out, old)
    os.rename(partial, out)
    _flush_folder(out.parent)
    os.unlink(out / JOURNAL)  # only now: until the name is there, it is what a killed call goes on by
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(old)


def _tidy(out: Path) -> None:
    """Remove what a call left that was killed just after the finished store had got its name."""
    old = out.with_name(f".{out.name}.old")
    if not any(map(os.path.lexists, (out / JOURNAL, old))) or not os.access(out.parent, os.W_OK):
        return
    with _lock(out):
        (out / JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Hold .NAME.lock beside `out`; waits while another process does."""
    path = out.with_name(f".{out.name}.lock")
    while True:
        with path.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{out} is being packed by another process; waiting for it", file=sys.stderr)
                fcntl.flock(file, fcntl.LOCK_EX)
            if not is_at(file.fileno(), path):
                continue  # its holder has removed it: take the next one
            try:
                yield
            finally:
                os.unlink(path)
            return


@contextlib.contextmanager
def _said(out: Path, job: _Job) -> Iterator[None]:
    """Every failure of the file system as a DSAError."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(out.parent).free
            why = f"the disk is full: {job.bytes:,} bytes are needed in all, {free:,} are free"
        raise DSAError(f"cannot write {out}: {why}") from error
