"""`dsareid extract`: the features of a folder of images, however many.

    OUT/plan.json        which model and which images, written first
    OUT/parts/           the features of 1024 images in a file, each there only when it is whole
    OUT/features.npy, images.csv, features.json     in the end, in place of the parts (see feature_folder.py)
    OUT/skipped.txt      images that could not be read and why, a line each; none without --skip-broken

A call that was ended at any moment is gone on with by the next one, also by another number of processes.
"""

import collections
import contextlib
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from dsareid.data.images import read_image
from dsareid.data.layouts.base import image_names
from dsareid.data.store.format import npy_header
from dsareid.ground.distributed import Processes, own_device, processes
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, make_folder
from dsareid.ground.machine import cores
from dsareid.inference.embedder import Embedder, load_embedder
from dsareid.inference.feature_folder import (
    FEATURES,
    HEADER,
    FeatureFolderInfo,
    labels_of,
    open_features,
    write_index,
)
from dsareid.runs.folder import choose_device

PLAN, PARTS, SKIPPED = "plan.json", "parts", "skipped.txt"
PART = 1024  # images
_AHEAD = 4  # batches of decoded images in memory


class Extracted(NamedTuple):
    """What is in a folder that extract has finished."""

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
    batch_size: int = 64,
    device: str = "auto",
    skip_broken: bool = False,
) -> Extracted:
    """Write the features of all images below a folder, with a progress bar.

    Each image is resized as for `dsareid eval`, and its features are the same. Processes that torchrun
    started share the work.

    Args:
        model: as for load_embedder.
        images: a folder; .jpg, .jpeg, .png and .bmp in it and in all folders below, in the order of their
            names.
        out: the folder to make, or one that an earlier call for the same model and images has begun.
        skip_broken: leave out images that cannot be read, and list them, instead of raising.

    Raises:
        DSAError: as load_embedder; no images, one that cannot be read, `out` is something else or cannot be
            written.
        ValueError: batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    images, out = Path(images), Path(out)
    chosen = own_device(choose_device(device))
    with processes(chosen) as those:
        embed = load_embedder(model, device if those.alone else str(chosen))
        files = find_images(images)
        plan = _plan(embed, images, files)
        with those.first_alone():
            _begin(out, plan)
        already = (out / HEADER).exists()
        if not already:
            _extract(embed, images, files, out, those, batch_size, skip_broken)
        with those.first_alone():
            if those.first:
                _finish(out, plan, files)
        found = open_features(out)
        return Extracted(len(found), found.features.shape[1], found.model, _skipped_files(out), already)


def find_images(folder: Path) -> list[str]:
    """All images below a folder, relative to it, sorted.

    Raises:
        DSAError: no folder, one that cannot be listed, no image in it.
    """
    found = []

    def fail(error: OSError) -> None:
        raise DSAError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    for place, _, names in os.walk(folder, onerror=fail):
        found += [os.path.relpath(os.path.join(place, name), folder) for name in image_names(names)]
    if not found:
        raise DSAError(f"{folder}: no images in it or below (.jpg, .jpeg, .png, .bmp)")
    return sorted(found)


def as_input(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """An image, uint8 [h, w, 3], in the size of a network's input: as evaluation resizes, bit for bit."""
    if image.shape[:2] == (height, width):
        return image
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


# ---- the plan ----


def _plan(embed: Embedder, images: Path, files: list[str]) -> dict:
    """What a call is about: parts of calls about something else are of no use to it."""
    digest = hashlib.sha256()
    for file in files:
        status = os.stat(images / file)
        digest.update(b"%s\0%d %d\n" % (os.fsencode(file), status.st_size, status.st_mtime_ns))
    return {
        "version": 1,
        "model": embed.model,
        "precision": embed.settings.precision,
        "dimension": embed.dimension,
        "images": str(images.absolute()),
        "list": digest.hexdigest(),
        "part": PART,
    }


def _begin(out: Path, plan: dict) -> None:
    """Make the folder, or find it begun for the same plan."""
    path = out / PLAN
    if not os.path.lexists(path):
        if out.exists() and (not out.is_dir() or any(_is_other(name) for name in os.listdir(out))):
            raise DSAError(f"{out}: exists already and extract has not written it; choose another folder")
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


def _is_other(name: str) -> bool:
    """Whether a file or folder in OUT is not one of a call that was killed before it had written its plan."""
    return name != PARTS and not name.startswith(f".{Path(PLAN).stem}-")


# ---- the parts ----


def _part(out: Path, number: int) -> Path:
    return out / PARTS / f"{number:06d}.safetensors"


def _ranges(count: int) -> list[range]:
    """The images of each part."""
    return [range(first, min(first + PART, count)) for first in range(0, count, PART)]


def _skipped_in(part: Path, rows: range) -> list[tuple[int, str]] | None:
    """The images that a part leaves out, with reasons; None where the part is not there or is damaged."""
    try:
        with safe_open(part, "numpy") as file:
            skipped = json.loads(file.metadata()["skipped"])
            count = file.get_slice("features").get_shape()[0]
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None
    return skipped if count + len(skipped) == len(rows) else None


def _extract(
    embed: Embedder, images: Path, files: list[str], out: Path, those: Processes, batch_size: int, skip: bool
) -> None:
    """Write this process's share of the parts that are not there."""
    todo = []
    for number, rows in enumerate(_ranges(len(files))):
        skipped = _skipped_in(_part(out, number), rows)
        if skipped is None or (skipped and not skip):  # without --skip-broken the image is to be named
            todo.append((number, rows))
    those.wait()  # until all have looked
    mine = todo[those.share(len(todo))]

    def read(row: int) -> np.ndarray | DSAError:
        try:
            image = read_image(images / files[row])
            return as_input(image, embed.settings.height, embed.settings.width)
        except DSAError as error:
            return error

    total = sum(len(rows) for _, rows in mine)
    everything = itertools.chain.from_iterable(rows for _, rows in mine)
    with (
        ThreadPoolExecutor(max(1, cores() // those.world)) as pool,  # Pillow decodes without the GIL
        contextlib.closing(_ahead(pool, read, everything, _AHEAD * batch_size)) as decoded,
        tqdm(
            total=total, desc="features", unit="image", leave=False, disable=None if those.first else True
        ) as progress,
    ):
        for number, rows in mine:
            features, skipped = _compute(embed, rows, decoded, batch_size, progress.update)
            if skipped and not skip:
                raise DSAError(f"{skipped[0][1]} (--skip-broken leaves such images out; the rest is kept)")
            with atomic_path(_part(out, number)) as temporary:
                temporary.write_bytes(save({"features": features}, {"skipped": json.dumps(skipped)}))
    those.wait()


def _compute(
    embed: Embedder,
    rows: range,
    decoded: Iterator[np.ndarray | DSAError],
    batch_size: int,
    advance: Callable[[], object],
) -> tuple[Tensor, list[tuple[int, str]]]:
    """Features of the rows that can be read, float32 [n, D], and of the others why they cannot."""
    pixels, skipped, features = [], [], [torch.empty(0, embed.dimension)]
    for row, image in zip(rows, decoded):
        if isinstance(image, DSAError):
            skipped.append((row, str(image)))
        else:
            pixels.append(image)
        if len(pixels) == batch_size or (pixels and row == rows[-1]):
            features.append(embed(np.stack(pixels)))
            pixels = []
        advance()
    return torch.cat(features), skipped


def _ahead(pool: ThreadPoolExecutor, work: Callable, items: Iterable, count: int) -> Iterator:
    """Results in order, of at most so many items ahead of the one that is taken."""
    waiting = collections.deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


# ---- the end ----


def _finish(out: Path, plan: dict, files: list[str]) -> None:
    """Join the parts, a part in memory at a time, and remove them."""
    if not (out / HEADER).exists():
        parts = [(_part(out, number), rows) for number, rows in enumerate(_ranges(len(files)))]
        skipped = {}
        for part, rows in parts:
            if (found := _skipped_in(part, rows)) is None:
                raise DSAError(f"{part}: gone or damaged; the same command makes it again")
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
            features=f"f of the MF-Stream, {plan['precision']}",
        )
        write_index(out, info, ((file, *labels_of(file)) for file in kept))
    shutil.rmtree(out / PARTS, ignore_errors=True)


def _skipped_files(out: Path) -> list[str]:
    """The lines of skipped.txt."""
    try:
        return os.fsdecode((out / SKIPPED).read_bytes()).splitlines()
    except OSError as error:
        raise DSAError(f"{out / SKIPPED}: cannot be read: {error.strerror}") from error
