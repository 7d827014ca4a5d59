"""Writing files so that a reader never sees half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dsareid.errors import DSAError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on failure removed.

    The temporary name keeps the suffix, so that writers which choose the format by it work.

    Raises:
        DSAError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(
            prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent
        )
        os.close(handle)
        os.chmod(temporary, 0o666 & ~_umask())
    except OSError as error:
        raise DSAError(f"cannot write {path}: {error.strerror}") from error
    try:
        yield Path(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise DSAError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


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

    Raises:
        DSAError: it cannot be written, or `out` is something else than an empty folder.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)
    except OSError as error:
        raise DSAError(f"cannot write beside {out}: {error.strerror}") from error
    with temporary as private:
        folder = Path(private) / out.name  # in it, so that it has the permissions of any new folder
        try:
            folder.mkdir()
            yield folder
            folder.rename(out)  # replaces an empty folder
        except DSAError as error:  # the folder's name means nothing to the user
            raise DSAError(str(error).replace(str(folder), str(out))) from error
        except OSError as error:
            raise DSAError(f"cannot write {out}: {error.strerror or error}") from error


def readable_size(count: int) -> str:
    """Bytes for people: 0.64 GB, 3.7 MB."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
