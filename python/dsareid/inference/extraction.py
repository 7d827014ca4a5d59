"""The order of an extraction, whatever its rows are: compute in parts, join them, open what came out.

OUT/plan.json, parts/     what is done so far (see feature_parts.py)
OUT/features.npy, images.csv, features.json     at the end, instead of the parts (see feature_folder.py)
OUT/skipped.txt      rows that could not be read and why, a line each; empty without skip_broken
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict, TypeVar

from dsareid.ground.distributed import choose_device, join_group, own_device
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path
from dsareid.inference.embedder import BATCH_SIZE, Embedder, check_batch_size, embed
from dsareid.inference.feature_folder import HEADER, SKIPPED, open_features
from dsareid.inference.feature_parts import (
    RowSource,
    begin,
    make_plan,
    remove_parts,
    skipped_rows,
    write_parts,
)
from dsareid.inference.settings import Facts

Rows = TypeVar("Rows", bound=RowSource)


class ExtractSettings(TypedDict, total=False):
    """What extract and extract_tracks take alike, by keyword; extract_rows has the defaults."""

    batch_size: int
    """Pictures at a time."""
    device: str
    """As for embed()."""
    skip_broken: bool
    """Leave out pictures that cannot be read, and list them, instead of raising."""
    trust: bool
    """As for embed()."""
    facts: Facts | None
    """As for embed()."""


class Extracted(NamedTuple):
    """The contents of a folder that an extraction has finished."""

    images: int  # or tracks
    dimension: int
    model: str
    skipped: list[str]  # lines of skipped.txt
    already: bool  # whether there was nothing to do


def extract_rows(
    model: str | os.PathLike,
    source: Path,
    out: Path,
    make_rows: Callable[[], Rows],
    join: Callable[[Embedder, Rows, list[int]], None],
    plan: Mapping[str, str] | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    skip_broken: bool = False,
    trust: bool = False,
    facts: Facts | None = None,
) -> Extracted:
    """Write a folder of features; processes that torchrun started share the work.

    Args:
        model, device, trust, facts: as for embed().
        source: where the rows come from.
        out: the folder to make, or one that an earlier call with the same arguments has begun.
        make_rows: lists the rows.
        join: writes the folder's files from the parts, in one process; it is given the rows that could be
            read.
        plan: what else an earlier call must have had.
        batch_size, skip_broken: see ExtractSettings.

    Raises:
        DSAError: as embed() and make_rows; a row that cannot be read, `out` is something else or cannot be
            written, batch_size is below 1.
    """
    check_batch_size(batch_size)
    chosen = own_device(choose_device(device))
    with join_group(chosen) as group:
        embedder = embed(model, device if group.alone else str(chosen), trust=trust, facts=facts)
        rows = make_rows()
        with group.rank_0_first():
            begin(out, make_plan(embedder, source, rows) | dict(plan or {}))
        already = (out / HEADER).exists()
        if not already:
            write_parts(embedder, rows, out, group, batch_size, skip_broken)
        with group.rank_0_first():
            if group.is_rank_0 and not already:
                skipped = skipped_rows(out, rows)
                _write_skipped(out, skipped.values())
                join(embedder, rows, [row for row in range(len(rows.names)) if row not in skipped])
            if group.is_rank_0:
                remove_parts(out)
        found = open_features(out)
        return Extracted(len(found), found.features.shape[1], found.model, _skipped_lines(out), already)


def _write_skipped(out: Path, reasons: Iterable[str]) -> None:
    with atomic_path(out / SKIPPED) as temporary:
        temporary.write_bytes(os.fsencode("".join(f"{reason}\n" for reason in reasons)))


def _skipped_lines(out: Path) -> list[str]:
    try:
        return os.fsdecode((out / SKIPPED).read_bytes()).splitlines()
    except OSError as error:
        raise DSAError(f"{out / SKIPPED}: cannot be read: {error.strerror}") from error
