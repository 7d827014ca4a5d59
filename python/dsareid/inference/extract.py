"""`dsareid extract`: the features of all images below a folder.

    OUT/plan.json        which model and which images, written first
    OUT/parts/           the features of 1024 images in a file, each file whole or absent
    OUT/features.npy, images.csv, features.json     at the end, instead of the parts (see feature_folder.py)
    OUT/skipped.txt      images that could not be read and why, a line each; empty without skip_broken

The same call resumes an interrupted one, even with another number of processes.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from dsareid.data.folders import find_images, left_out
from dsareid.data.labels import NOT_KNOWN, image_labels
from dsareid.data.store.format import npy_header
from dsareid.ground.distributed import ProcessGroup, choose_device, join_group, own_device
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path, make_folder
from dsareid.ground.machine import cores
from dsareid.inference.embedder import BATCH_SIZE, BATCHES_AHEAD, Embedder, check_batch_size, embed
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
from dsareid.inference.pixels import read_ahead
from dsareid.inference.settings import AnySettings, Facts, OtherSettings

PLAN, PARTS = "plan.json", "parts"
PART = 1024  # images


class Extracted(NamedTuple):
    """The contents of a folder that extract has finished."""

    images: int
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
        plan = _plan(embedder, images, files)
        with group.rank_0_first():
            _begin(out, plan)
        already = (out / HEADER).exists()
        if not already:
            _write_parts(embedder, images, files, out, group, batch_size, skip_broken)
        with group.rank_0_first():
            if group.is_rank_0:
                _join_parts(out, plan, files, embedder.settings)
        found = open_features(out)
        if already and group.is_rank_0:
            _compare_labels(found)
        return Extracted(len(found), found.features.shape[1], found.model, _skipped_files(out), already)


# ---- the plan ----


def _plan(embedder: Embedder, images: Path, files: list[str]) -> dict[str, Any]:
    """The plan of a call: its model and images. Only parts of the same plan can be resumed."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(b"%s\0%s\n" % (os.fsencode(file), _stamp(images / file)))
    return {
        "version": 2,
        "model": embedder.model,
        "precision": embedder.settings.precision,
        "dimension": embedder.dimension,
        "images": str(images.absolute()),
        "list": digest.hexdigest(),
        "part": PART,
    }


def _stamp(path: Path) -> bytes:
    try:
        status = os.stat(path)
    except OSError:  # a dangling link: reading it raises the error
        return b"unreadable"
    return b"%d %d" % (status.st_size, status.st_mtime_ns)


def _begin(out: Path, plan: dict[str, Any]) -> None:
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


# ---- the parts ----


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


def _write_parts(
    embedder: Embedder,
    images: Path,
    files: list[str],
    out: Path,
    group: ProcessGroup,
    batch_size: int,
    skip_broken: bool,
) -> None:
    """Write this process's share of the missing parts."""
    todo = []
    for number, rows in enumerate(_ranges(len(files))):
        skipped = _skipped_in(_part(out, number), rows)
        # Without skip_broken, a part that leaves out images is read again, to name the first.
        if skipped is None or (skipped and not skip_broken):
            todo.append((number, rows))
    group.barrier()  # nothing is written before all processes have listed the parts
    mine = todo[group.share(len(todo))]
    decoded = read_ahead(
        (images / files[row] for _, rows in mine for row in rows),
        embedder.settings.height,
        embedder.settings.width,
        threads=max(1, cores() // group.world),
        ahead=BATCHES_AHEAD * batch_size,
    )
    total, hidden = sum(len(rows) for _, rows in mine), None if group.is_rank_0 else True
    with (
        contextlib.closing(decoded),
        tqdm(total=total, desc="features", unit="image", leave=False, disable=hidden) as progress,
    ):
        for number, rows in mine:
            features, skipped = _compute(embedder, rows, decoded, batch_size, progress.update)
            if skipped and not skip_broken:
                raise DSAError(
                    f"{skipped[0][1]} (`skip_broken=True` leaves such images out; the features of the others "
                    "are kept)"
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


# ---- the end ----


def _join_parts(out: Path, plan: dict[str, Any], files: list[str], settings: AnySettings) -> None:
    """Join the parts, with one of them in memory at a time, and remove them."""
    if not (out / HEADER).exists():
        parts = [(_part(out, number), rows) for number, rows in enumerate(_ranges(len(files)))]
        skipped: dict[int, str] = {}
        for part, rows in parts:
            if (found := _skipped_in(part, rows)) is None:
                raise DSAError(f"{part}: missing or damaged; run the same command again to make it")
            skipped |= dict(found)
        kept = [file for row, file in enumerate(files) if row not in skipped]
        if not kept:
            raise DSAError(f"{plan['images']}: no image can be read; the first: {skipped[0]}")
        with atomic_path(out / FEATURES) as temporary, temporary.open("wb") as joined:
            joined.write(npy_header("<f4", (len(kept), plan["dimension"])))
            for part, _ in parts:
                joined.write(load_file(part)["features"].numpy().tobytes())
        with atomic_path(out / SKIPPED) as temporary:
            text = "".join(f"{reason}\n" for reason in skipped.values())
            temporary.write_bytes(os.fsencode(text))
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
    shutil.rmtree(out / PARTS, ignore_errors=True)


def _compare_labels(found: FeatureFolder) -> None:
    """Warn if the labels of finished features are not what the images' data set says now."""
    now = image_labels(found.images, found.files)
    other = [file for file, one, two in zip(found.files, found.labels, now) if one != two]
    if other:
        logger.warning(
            f"{found.path / IMAGES}: labels that differ from the images' own: {len(other):,}, the first of "
            f"{other[0]}; if you have not edited them, remove the folder and extract again"
        )


def _skipped_files(out: Path) -> list[str]:
    """The lines of skipped.txt."""
    try:
        return os.fsdecode((out / SKIPPED).read_bytes()).splitlines()
    except OSError as error:
        raise DSAError(f"{out / SKIPPED}: cannot be read: {error.strerror}") from error
