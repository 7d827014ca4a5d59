"""`dsareid extract`: the features of all images below a folder, a row each.

The same call resumes an interrupted one, even with another number of processes (see extraction.py).
"""

import hashlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Unpack

import numpy as np

from dsareid.data.folders import find_images, left_out
from dsareid.data.labels import NOT_KNOWN, image_labels
from dsareid.data.store.format import npy_header
from dsareid.ground.distributed import rank_and_world
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import atomic_path
from dsareid.inference.embedder import Embedder
from dsareid.inference.extraction import Extracted, ExtractSettings, extract_rows
from dsareid.inference.feature_folder import (
    FEATURES,
    IMAGES,
    FeatureFolder,
    FeatureFolderInfo,
    open_features,
    write_index,
)
from dsareid.inference.feature_parts import file_stamp, read_parts
from dsareid.inference.pixels import read_ahead
from dsareid.inference.settings import OtherSettings


def extract(
    model: str | os.PathLike,
    images: str | os.PathLike,
    out: str | os.PathLike,
    **settings: Unpack[ExtractSettings],
) -> Extracted:
    """Write the features of all images below a folder, with a progress bar.

    Each image is resized as for `dsareid eval`, and its features are the same. Processes that torchrun
    started share the work.

    Args:
        model: as for embed().
        images: a folder; all images in it and below it, in the order of their names. image_labels gives
            their identities and cameras.
        out: the folder to make, or one that an earlier call for the same model and images has begun.
        settings: batch_size, device, skip_broken, trust, facts, see extraction.ExtractSettings.

    Raises:
        DSAError: as embed(); no images, one that cannot be read, `out` is something else or cannot be
            written, batch_size is below 1.
    """
    folder, out = Path(images), Path(out)

    def join(embedder: Embedder, rows: _ImageRows, kept: list[int]) -> None:
        _join_parts(embedder, rows, kept, out)

    found = extract_rows(model, folder, out, lambda: _ImageRows(folder), join, **settings)
    if found.already and rank_and_world()[0] == 0:
        _compare_labels(open_features(out))
    return found


class _ImageRows:
    """All images below a folder."""

    unit = "image"

    def __init__(self, folder: Path):
        self.folder, (self.names, others) = folder, find_images(folder)
        if others:
            logger.warning(f"{folder}: {left_out(others)}")

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


def _join_parts(embedder: Embedder, rows: _ImageRows, readable: list[int], out: Path) -> None:
    """Join the parts, with one of them in memory at a time."""
    kept, settings = [rows.names[row] for row in readable], embedder.settings
    with atomic_path(out / FEATURES) as temporary, temporary.open("wb") as joined:
        joined.write(npy_header("<f4", (len(kept), embedder.dimension)))
        for features in read_parts(out, rows):
            joined.write(features.tobytes())
    info = FeatureFolderInfo(
        model=embedder.model,
        count=len(kept),
        dimension=embedder.dimension,
        images=str(rows.folder.absolute()),
        features=settings.description,
        facts=settings.facts if isinstance(settings, OtherSettings) else None,
    )
    labels = image_labels(rows.folder, kept)
    if unknown := labels.count(NOT_KNOWN):
        logger.warning(
            f"{out / IMAGES}: identity and camera of {unknown:,} of {len(kept):,} images are not known, the "
            f"first {kept[labels.index(NOT_KNOWN)]}: fill in these columns to rank them"
        )
    write_index(out, info, kept, labels)


def _compare_labels(found: FeatureFolder) -> None:
    """Warn if the labels of finished features are not what the images' data set says now."""
    now = image_labels(found.images, found.files)
    other = [file for file, one, two in zip(found.files, found.labels, now) if one != two]
    if other:
        logger.warning(
            f"{found.path / IMAGES}: labels that differ from the images' own: {len(other):,}, the first of "
            f"{other[0]}; if you have not edited them, remove the folder and extract again"
        )
