"""Writing files so that a reader never sees half of one, locks between processes, and reading JSON.

A file is written under a temporary name beside the final one, .NAME-unfinished-0.SUFFIX, with a lock file of
the same name and .lock behind it. If these names are too long for the file system, the beginning of NAME and
a checksum replace NAME. A killed process leaves both files; the next process that writes NAME removes them.
An empty lock file that stays behind means nothing.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from filelock import FileLock, Timeout

from dsareid.ground.errors import DSAError, first_problem, logger

if TYPE_CHECKING:  # synth and the command line start without it
    from pydantic import TypeAdapter

T = TypeVar("T")
ZIP = b"PK\x03\x04"  # how a zip archive begins
_LONGEST_NAME = 255  # bytes of a file's name
_KEPT, _LONGEST_SUFFIX = 128, 32  # bytes that stay of a name that is too long, and of its suffix


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on failure removed.

    The temporary name keeps the suffix, so that writers which choose the format by it work.

    Raises:
        DSAError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    with _write_errors(path), _temporary_name(path) as temporary:
        _check_replaceable(path)
        temporary.touch(exist_ok=False)
        yield temporary
        os.replace(temporary, path)


def check_writable(path: str | os.PathLike, inputs: Iterable[str | os.PathLike] = ()) -> None:
    """Raise DSAError if atomic_path could not write this file. To be called before long work.

    Args:
        path: the file.
        inputs: the files that the work reads; `path` must be none of them.
    """
    path = Path(path)
    for other in inputs:
        if path.exists() and os.path.exists(other) and path.samefile(other):
            raise DSAError(f"{path}: this file is an input, and would be overwritten; choose another name")
    with _write_errors(path):
        _check_replaceable(path)
        with _temporary_name(path) as temporary:
            temporary.touch()


def _check_replaceable(path: Path) -> None:
    """Raise OSError if `path` is a folder, or a device or pipe, which os.replace would turn into a file."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file")


def check_writable_folder(path: str | os.PathLike) -> None:
    """Raise DSAError if a folder cannot be created, with its parents, or written to. Creates nothing."""
    path = place = Path(path).absolute()
    with _write_errors(path):
        while not _is_there(place):
            place = place.parent
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):  # False on a read-only file system too
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def make_folder(path: str | os.PathLike) -> Path:
    """Create the folder and its parents; it may exist.

    Raises:
        DSAError: it cannot be created, or a file stands in its place.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DSAError(f"cannot create the folder {path}: {error.strerror}") from error
    return path


@contextlib.contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; on success it is renamed to `out`, on failure removed.

    Raises:
        DSAError: it cannot be written, or `out` exists and is not an empty folder.
    """
    with _write_errors(out), _temporary_name(out) as folder:
        folder.mkdir()
        try:
            yield folder
        except DSAError as error:  # the folder's name means nothing to the user
            raise DSAError(str(error).replace(str(folder), str(out))) from error
        folder.rename(out)  # replaces an empty folder


@contextlib.contextmanager
def hold_lock(path: Path, waiting: str) -> Iterator[None]:
    """Hold a lock file; it is removed on release.

    Args:
        path: the lock file; its folder exists.
        waiting: what to log if another process holds it, before waiting for that one.

    Raises:
        OSError: the lock file cannot be made.
    """
    lock = _try_lock(path)
    if lock is None:
        logger.info(waiting)
        lock = FileLock(path, thread_local=False)
        lock.acquire()
    try:
        yield
    finally:
        _release(lock)


def read_json(path: str | os.PathLike, model: "type[T] | TypeAdapter[T]", what: str = "") -> T:
    """Read a JSON file, UTF-8 with or without a byte order mark, as a model of pydantic or any other type.

    Args:
        path: the file.
        model: what it must hold; `object` for any JSON.
        what: the file in words, for the error, as "the settings of a run".

    Raises:
        DSAError: it cannot be read, is no JSON, or holds something else.
        FileNotFoundError, NotADirectoryError: there is no such file; callers know what that means.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        data = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf")
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise DSAError(f"{path}: not readable as JSON: {first['ctx']['error']}") from error
        raise DSAError(f"{path}: not {what or 'as expected'}: {first_problem(error)}") from error


def check_stored(path: str | os.PathLike) -> None:
    """Refuse a zip archive that unpacks to more than its own size, before torch.load unpacks it.

    torch.save compresses nothing, and its members share no bytes. A file that does not begin as an archive
    passes.

    Raises:
        DSAError: a member is compressed, or the members together claim more bytes than the file has.
        zipfile.BadZipFile: it is damaged.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(len(ZIP)) != ZIP:
            return
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise DSAError(
                f"{path}: its {member.filename} is compressed, which torch.save never does; give the file as "
                "it was written"
            )
    claimed, size = sum(member.file_size for member in members), os.path.getsize(path)
    if claimed > size:
        raise DSAError(f"{path}: it claims to hold {claimed:,} bytes, but is {size:,} bytes long")


def user_cache() -> Path:
    """The user's cache, a folder for files that can be made or fetched again; it may not exist yet.

    A relative XDG_CACHE_HOME is ignored, as its specification asks.

    Raises:
        DSAError: the user has no home folder.
    """
    try:
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (given if given.is_absolute() else Path.home() / ".cache") / "dsareid"
    except RuntimeError as error:
        raise DSAError("there is no home folder for a cache; set XDG_CACHE_HOME") from error


def place_for(root: Path) -> Path:
    """The folder for files made from a data set: its root, or NAME-HASH in the user's cache if the root is
    not writable. It may not exist yet."""
    if os.access(root, os.W_OK):
        return root
    root = root.resolve()
    return user_cache() / f"{root.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


def check_is_text(path: str | os.PathLike) -> None:
    """Raise DSAError if a path is not UTF-8, so that JSON cannot hold it."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise DSAError(
            f"{path}: this path is not UTF-8, so it cannot be written to JSON; rename it"
        ) from error


def readable_size(count: int) -> str:
    """Bytes for people: 0.64 GB, 3.7 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    """Turn every failure of the file system into a DSAError."""
    try:
        yield
    except OSError as error:
        raise DSAError(f"cannot write {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _temporary_name(path: Path) -> Iterator[Path]:
    """Yield a locked name beside `path`; what is there is removed before and afterwards.

    Names are numbered from 0, so leftovers do not pile up: a killed process loses its lock, and the next
    process takes its name.
    """
    if not path.parent.is_dir():  # filelock would create it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    _is_there(path)  # a final name that is too long fails now, not after the work
    number, lock = 0, None
    while lock is None:
        temporary = path.with_name(_unfinished(path, number))
        lock = _try_lock(temporary.with_name(f"{temporary.name}.lock"))
        number += 1
    try:
        _remove(temporary)
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            _remove(temporary)
        _release(lock)


def _is_there(path: Path) -> bool:
    """Whether this name exists; unlike os.path.lexists it raises OSError for an impossible name."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


def _unfinished(path: Path, number: int) -> str:
    """The temporary name with this number, short enough for .lock behind it; no two paths share one."""
    name = f".{path.stem}-unfinished-{number}{path.suffix}"
    if len(os.fsencode(f"{name}.lock")) <= _LONGEST_NAME:
        return name
    # Cutting bytes may leave half a character at the end. It is dropped: the checksum tells names apart.
    begin = os.fsencode(path.stem)[:_KEPT].decode(sys.getfilesystemencoding(), "ignore")
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    suffix = path.suffix if len(os.fsencode(path.suffix)) <= _LONGEST_SUFFIX else ""
    return f".{begin}-{digest}-unfinished-{number}{suffix}"


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _try_lock(path: Path) -> FileLock | None:
    """Take the lock; None if another process holds it. Without locks in the file system, nobody does."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
    return lock


def _release(lock: FileLock) -> None:
    # Removed while it is held: a process that has opened it meanwhile finds it gone and makes a new one.
    with contextlib.suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()
