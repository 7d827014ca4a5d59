"""`dsareid extract`: the features of all images below a folder.

    OUT/plan.json, parts/     what is done so far (see feature_parts.py)
    OUT/features.npy, images.csv, features.json     at the end, instead of the parts (see feature_folder.py)
    OUT/skipped.txt      images that could not be read and why, a line each; empty without skip_broken

The same call resumes an interrupted one, even with another number of processes.
"""

import hashlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np

from dsareid.data.folders import find_images, left_out
from dsareid.data.labels import NOT_KNOWN, image_labels
from dsareid.data.store.format import npy_header
from dsareid.ground.distributed import choose_device, join_group, own_device
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path
from dsareid.inference.embedder import BATCH_SIZE, check_batch_size, embed
from dsareid.inference.feature_folder import (
    FEATURES,
    HEADER,
    IMAGES,
    SKIPPED,
    FeatureFolder,
    FeatureFolderInfo,
    open_features,
    write_index,
)
from dsareid.inference.feature_parts import (
    begin,
    file_stamp,
    make_plan,
    read_parts,
    remove_parts,
    skipped_rows,
    write_parts,
)
from dsareid.inference.pixels import read_ahead
from dsareid.inference.settings import AnySettings, Facts, OtherSettings


class ExtractSettings(TypedDict, total=False):
    """What extract and extract_tracks take alike."""

    batch_size: int
    device: str
    skip_broken: bool
    trust: bool
    facts: Facts | None


class Extracted(NamedTuple):
    """The contents of a folder that extract has finished."""

    images: int  # or tracks
    dimension: int
    model: str
    skipped: list[str]  # lines of skipped.txt
    already: bool  # whether there was nothing to do


def extract(
    model: str | os.PathLike,
    images: str | os.PathLike,
    out: str | os.PathLike,
    *,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    skip_broken: bool = False,
    trust: bool = False,
    facts: Facts | None = None,
) -> Extracted:
    """Write the features of all images below a folder, with a progress bar.

    Each image is resized as for `dsareid eval`, and its features are the same. Processes that torchrun
    started share the work.

    Args:
        model, device, trust, facts: as for embed().
        images: a folder; all images in it and below it, in the order of their names. image_labels gives
            their identities and cameras.
        out: the folder to make, or one that an earlier call for the same model and images has begun.
        batch_size: images at a time.
        skip_broken: leave out images that cannot be read, and list them, instead of raising.

    Raises:
        DSAError: as embed(); no images, one that cannot be read, `out` is something else or cannot be
            written, batch_size is below 1.
    """
    check_batch_size(batch_size)
    images, out = Path(images), Path(out)
    chosen = own_device(choose_device(device))
    with join_group(chosen) as group:
        embedder = embed(model, device if group.alone else str(chosen), trust=trust, facts=facts)
        files, others = find_images(images)
        if others:
            logger.warning(f"{images}: {left_out(others)}")
        rows = _ImageRows(images, files)
        plan = make_plan(embedder, images, rows)
        with group.rank_0_first():
            begin(out, plan)
        already = (out / HEADER).exists()
        if not already:
            write_parts(embedder, rows, out, group, batch_size, skip_broken)
        with group.rank_0_first():
            if group.is_rank_0:
                _join_parts(out, plan, rows, embedder.settings)
        found = open_features(out)
        if already and group.is_rank_0:
            _compare_labels(found)
        return Extracted(len(found), found.features.shape[1], found.model, skipped_lines(out), already)


class _ImageRows:
    """All images below a folder."""

    unit = "image"

    def __init__(self, folder: Path, files: list[str]):
        self.folder, self.names = folder, files

    def digest(self) -> str:
        found = hashlib.sha256()
        for file in self.names:
            found.update(b"%s\0%s\n" % (os.fsencode(file), file_stamp(self.folder / file)))
        return found.hexdigest()

    def read(
        self, rows: Iterable[int], height: int, width: int, threads: int, ahead: int
    ) -> Generator[np.ndarray | DSAError, None, None]:
        paths = (self.folder / self.names[row] for row in rows)
        return read_ahead(paths, height, width, threads=threads, ahead=ahead)


def _join_parts(out: Path, plan: dict[str, Any], rows: _ImageRows, settings: AnySettings) -> None:
    """Join the parts, with one of them in memory at a time, and remove them."""
    if not (out / HEADER).exists():
        skipped = skipped_rows(out, rows)
        kept = [file for row, file in enumerate(rows.names) if row not in skipped]
        with atomic_path(out / FEATURES) as temporary, temporary.open("wb") as joined:
            joined.write(npy_header("<f4", (len(kept), plan["dimension"])))
            for features in read_parts(out, rows):
                joined.write(features.tobytes())
        write_skipped(out, skipped.values())
        info = FeatureFolderInfo(
            model=plan["model"],
            count=len(kept),
            dimension=plan["dimension"],
            images=plan["images"],
            features=settings.description,
            facts=settings.facts if isinstance(settings, OtherSettings) else None,
        )
        labels = image_labels(Path(plan["images"]), kept)
        if unknown := labels.count(NOT_KNOWN):
            logger.warning(
                f"{out / IMAGES}: identity and camera of {unknown:,} of {len(kept):,} images are not known, "
                f"the first {kept[labels.index(NOT_KNOWN)]}: fill in these columns to rank them"
            )
        write_index(out, info, kept, labels)
    remove_parts(out)


def _compare_labels(found: FeatureFolder) -> None:
    """Warn if the labels of finished features are not what the images' data set says now."""
    now = image_labels(found.images, found.files)
    other = [file for file, one, two in zip(found.files, found.labels, now) if one != two]
    if other:
        logger.warning(
            f"{found.path / IMAGES}: labels that differ from the images' own: {len(other):,}, the first of "
            f"{other[0]}; if you have not edited them, remove the folder and extract again"
        )


def write_skipped(out: Path, reasons: Iterable[str]) -> None:
    """Write skipped.txt."""
    with atomic_path(out / SKIPPED) as temporary:
        temporary.write_bytes(os.fsencode("".join(f"{reason}\n" for reason in reasons)))


def skipped_lines(out: Path) -> list[str]:
    """The lines of skipped.txt."""
    try:
        return os.fsdecode((out / SKIPPED).read_bytes()).splitlines()
    except OSError as error:
        raise DSAError(f"{out / SKIPPED}: cannot be read: {error.strerror}") from error
