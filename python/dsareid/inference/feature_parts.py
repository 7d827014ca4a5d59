"""Features of many rows, computed in parts, so that an interrupted call resumes: what `dsareid extract` does.

OUT/plan.json        which model and which rows, written first
OUT/parts/           the features of 1024 rows in a file, each file whole or absent
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from dsareid.ground.distributed import ProcessGroup
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, make_folder
from dsareid.ground.machine import cores
from dsareid.inference.embedder import BATCHES_AHEAD, Embedder

PLAN, PARTS = "plan.json", "parts"
PART = 1024  # rows


class RowSource(Protocol):
    """The pictures whose features are wanted, a row each."""

    unit: str
    """What a row is, for the progress bar: image."""

    @property
    def names(self) -> Sequence[str]:
        """Of each row."""

    def digest(self) -> str:
        """A hash over the rows and the state of their files: parts of the same rows alone can be resumed."""

    def read(
        self, rows: Iterable[int], height: int, width: int, threads: int, ahead: int
    ) -> Generator[np.ndarray | DSAError, None, None]:
        """The pictures of some rows in their order, uint8 [height, width, 3], or why one cannot be read; at
        most `ahead` are decoded before they are taken."""


def make_plan(embedder: Embedder, source: Path, rows: RowSource) -> dict[str, Any]:
    """The plan of a call: its model and rows. Only parts of the same plan can be resumed."""
    return {
        "version": 2,
        "model": embedder.model,
        "precision": embedder.settings.precision,
        "dimension": embedder.dimension,
        "images": str(source.absolute()),
        "list": rows.digest(),
        "part": PART,
    }


def file_stamp(path: Path) -> bytes:
    """The size and time of a file; changes if the file does."""
    try:
        status = os.stat(path)
    except OSError:  # a dangling link: reading it raises the error
        return b"unreadable"
    return b"%d %d" % (status.st_size, status.st_mtime_ns)


def begin(out: Path, plan: dict[str, Any]) -> None:
    """Make the folder, or check that it was begun with the same plan."""
    path = out / PLAN
    if not os.path.lexists(path):
        if out.exists() and (not out.is_dir() or any(_is_foreign(name) for name in os.listdir(out))):
            raise DSAError(f"{out}: exists already and was not written by extract; choose another folder")
        make_folder(out / PARTS)
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(plan, indent=1) + "\n")
    try:
        found = json.loads(path.read_bytes())
        found = found if isinstance(found, dict) else {}
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DSAError(f"{path}: not readable as JSON; remove {out}") from error
    for name, expected in plan.items():
        if (came := found.get(name)) != expected:
            what = f"its {name} is {came}, not {expected}"
            what = "files have been added, removed or changed since" if name == "list" else what
            raise DSAError(
                f"{out}: holds features of another model or other images: {what}; choose another folder"
            )


def _is_foreign(name: str) -> bool:
    """Whether a file or folder in OUT is anything but the rest of a call that was killed before its plan."""
    return name != PARTS and not name.startswith(f".{Path(PLAN).stem}-")


def _part(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.safetensors"


def _ranges(count: int) -> list[range]:
    """The images of each part."""
    return [range(first, min(first + PART, count)) for first in range(0, count, PART)]


def _skipped_in(part: Path, rows: range) -> list[tuple[int, str]] | None:
    """The images that a part leaves out, with reasons; None if the part is missing or damaged."""
    try:
        with safe_open(part, "numpy") as file:
            skipped = json.loads(file.metadata()["skipped"])
            count = file.get_slice("features").get_shape()[0]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return skipped if count + len(skipped) == len(rows) else None


def write_parts(
    embedder: Embedder, rows: RowSource, out: Path, group: ProcessGroup, batch_size: int, skip_broken: bool
) -> None:
    """Write this process's share of the missing parts.

    Raises:
        DSAError: a row that cannot be read, without skip_broken; a part that cannot be written.
    """
    todo = []
    for number, some in enumerate(_ranges(len(rows.names))):
        skipped = _skipped_in(_part(out, number), some)
        # Without skip_broken, a part that leaves out rows is read again, to name the first.
        if skipped is None or (skipped and not skip_broken):
            todo.append((number, some))
    group.barrier()  # nothing is written before all processes have listed the parts
    mine = todo[group.share(len(todo))]
    decoded = rows.read(
        (row for _, some in mine for row in some),
        embedder.settings.height,
        embedder.settings.width,
        threads=max(1, cores() // group.world),
        ahead=BATCHES_AHEAD * batch_size,
    )
    total, hidden = sum(len(some) for _, some in mine), None if group.is_rank_0 else True
    with (
        contextlib.closing(decoded),
        tqdm(total=total, desc="features", unit=rows.unit, leave=False, disable=hidden) as progress,
    ):
        for number, some in mine:
            features, skipped = _compute(embedder, some, decoded, batch_size, progress.update)
            if skipped and not skip_broken:
                raise DSAError(
                    f"{skipped[0][1]} (`skip_broken=True` leaves such {rows.unit}s out; the features of the "
                    "others are kept)"
                )
            with atomic_path(_part(out, number)) as temporary:
                temporary.write_bytes(save({"features": features}, {"skipped": json.dumps(skipped)}))
    group.barrier()


def _compute(
    embedder: Embedder,
    rows: range,
    decoded: Iterator[np.ndarray | DSAError],
    batch_size: int,
    advance: Callable[[], object],
) -> tuple[Tensor, list[tuple[int, str]]]:
    """Features of the rows that can be read, float32 [n, D], and the reasons for the others."""
    skipped: list[tuple[int, str]] = []

    def readable() -> Iterator[np.ndarray]:
        for row, image in zip(rows, decoded):
            if isinstance(image, DSAError):
                skipped.append((row, str(image)))
            else:
                yield image
            advance()

    features = [torch.empty(0, embedder.dimension), *embedder.batches(readable(), batch_size)]
    return torch.cat(features), skipped


def skipped_rows(out: Path, rows: RowSource) -> dict[int, str]:
    """Why rows were left out.

    Raises:
        DSAError: a part is missing or damaged, or no row can be read.
    """
    skipped: dict[int, str] = {}
    for number, some in enumerate(_ranges(len(rows.names))):
        if (found := _skipped_in(part := _part(out, number), some)) is None:
            raise DSAError(f"{part}: missing or damaged; run the same command again to make it")
        skipped |= dict(found)
    if len(skipped) == len(rows.names):
        raise DSAError(f"no {rows.unit} can be read; the first: {skipped[0]}")
    return skipped


def read_parts(out: Path, rows: RowSource) -> Iterator[np.ndarray]:
    """The features of the rows that could be read, float32 [n, D], a part at a time."""
    for number, _ in enumerate(_ranges(len(rows.names))):
        yield load_file(_part(out, number))["features"].numpy()


def remove_parts(out: Path) -> None:
    """Remove the parts."""
    shutil.rmtree(out / PARTS, ignore_errors=True)
