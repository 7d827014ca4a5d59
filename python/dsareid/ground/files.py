"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import fcntl
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from dsareid.ground.errors import DSAError

ZIP = b"PK\x03\x04"  # how a zip archive begins


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on failure removed.

    The temporary name keeps the suffix, so that writers which choose the format by it work. What a killed
    process left of it is written over by the next one that writes `path`.

    Raises:
        DSAError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    with _said(path):
        temporary, handle = _take(path, folder=False)
        try:
            yield temporary
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        finally:
            os.close(handle)


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
    """Yield a temporary folder beside `out` that becomes `out` in the end, or disappears.

    What a killed process left of it is removed by the next one that makes `out`.

    Raises:
        DSAError: it cannot be written, or `out` is something else than an empty folder.
    """
    with _said(out):
        folder, handle = _take(out, folder=True)
        try:
            yield folder
            folder.rename(out)  # replaces an empty folder
        except DSAError as error:  # the folder's name means nothing to the user
            shutil.rmtree(folder, ignore_errors=True)
            raise DSAError(str(error).replace(str(folder), str(out))) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(handle)


def check_stored(path: str | os.PathLike) -> None:
    """Refuse a zip archive that unpacks to more than its own size, before torch.load unpacks it.

    torch.save compresses nothing, and no member shares the bytes of another. A file that does not begin as an
    archive passes.

    Raises:
        DSAError: a member is compressed, or all together claim more bytes than the file has.
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


def readable_size(count: int) -> str:
    """Bytes for people: 0.64 GB, 3.7 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def is_at(handle: int, path: Path) -> bool:
    """Whether an open file or folder is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    """Every failure of the file system as a DSAError."""
    try:
        yield
    except OSError as error:
        raise DSAError(f"cannot write {path}: {error.strerror or error}") from error


def _take(path: Path, *, folder: bool) -> tuple[Path, int]:
    """A temporary file or folder beside `path`, empty, and the handle that keeps other processes off it.

    The names are always the same ones, so that leftovers do not pile up: a killed process's lock ends with
    it, and the next one takes what it left.
    """
    number = 0
    while True:
        temporary = path.with_name(f".{path.stem}-unfinished-{number}{path.suffix}")
        if folder:
            temporary.mkdir(exist_ok=True)
        handle = os.open(temporary, os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        locked = _lock(handle)
        if locked and is_at(handle, temporary):  # else its holder has just given it its name
            break
        os.close(handle)
        number += not locked
    if folder:
        for left in temporary.iterdir():
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    else:
        os.ftruncate(handle, 0)
    return temporary, handle


def _lock(handle: int) -> bool:
    """Whether no other process holds it. Where the file system has no locks it is as if none did."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True
