"""Data sets in Market-1501's layout, decoded once into arrays.

    ROOT/bounding_box_train/0002_c1s1_000451_03.jpg     identity 2, camera 1
    ROOT/query, ROOT/bounding_box_test                  the same
    ROOT/iuv/<folder>/0002_c1s1_000451_03.png           its IUV map (NAME_IUV.png is found too)
"""

import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from dsareid.data.iuv import read_image, read_pair
from dsareid.errors import DSAError

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
_NAME = re.compile(r"(-?\d{1,9})_c(\d{1,9})(?!\d)")


@dataclass
class Split:
    """One folder of a data set in memory."""

    root: Path
    name: str  # "bounding_box_train", "query" or "bounding_box_test"
    names: list[str]  # N paths relative to root
    ids: np.ndarray  # int64 [N]; 0 is a distractor
    cams: np.ndarray  # int64 [N]
    images: np.ndarray  # uint8 [N, H, W, 3] RGB
    iuv: np.ndarray | None  # uint8 [N, H, W, 3] in the order I, U, V

    def __len__(self) -> int:
        return len(self.names)


def load_split(
    root: str | os.PathLike, split: str, height: int, width: int, *, iuv: bool
) -> Split:
    """Decode one folder of a data set, with a progress bar and on all cores.

    Images are resized bilinearly to height x width, IUV maps by nearest neighbour. Junk (identity
    -1) is dropped; distractors (identity 0) stay.

    Raises:
        DSAError: a folder or file that is missing, empty, unreadable or misnamed, an IUV map that
            is missing or of another size than its image.
    """
    root = Path(root)
    entries = list_split(root, split)
    maps = [find_iuv(root, split, path) for path, _, _ in entries] if iuv else [None] * len(entries)
    images = np.empty((len(entries), height, width, 3), np.uint8)
    charts = np.empty_like(images) if iuv else None

    def decode(index: int) -> None:
        path, iuv_path = entries[index][0], maps[index]
        if iuv_path is None:
            image = read_image(path)
        else:
            image, chart = read_pair(path, iuv_path)
            charts[index] = _resize(chart, height, width, Image.Resampling.NEAREST)
        images[index] = _resize(image, height, width, Image.Resampling.BILINEAR)

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without holding the GIL
        progress = tqdm(total=len(entries), desc=f"decoding {split}", unit="image", leave=False, disable=None)
        with progress:
            for _ in _as_they_come(pool, decode, len(entries)):
                progress.update()
    return Split(
        root=root,
        name=split,
        names=[f"{split}/{path.name}" for path, _, _ in entries],
        ids=np.array([identity for _, identity, _ in entries], np.int64),
        cams=np.array([camera for _, _, camera in entries], np.int64),
        images=images,
        iuv=charts,
    )


def list_split(root: Path, split: str) -> list[tuple[Path, int, int]]:
    """The images of a folder by name, as (path, identity, camera), without junk.

    Raises:
        DSAError: the folder is missing, holds no images, or a name without identity and camera.
    """
    folder = root / split
    if not folder.is_dir():
        raise DSAError(
            f"{folder}: no such folder; --data must be a folder with {TRAIN}, {QUERY} and {GALLERY}"
        )
    entries = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        match = _NAME.match(path.name)
        if not match:
            raise DSAError(
                f"{path}: the name must begin with identity and camera, as in 0002_c1s1_000451_03.jpg"
            )
        identity, camera = int(match[1]), int(match[2])
        if identity >= 0:
            entries.append((path, identity, camera))
    if not entries:
        raise DSAError(f"{folder}: no images here (expected *.jpg or *.png)")
    return entries


def find_iuv(root: Path, split: str, image: Path) -> Path:
    """The IUV map of an image.

    Raises:
        DSAError: there is none.
    """
    folder = root / "iuv" / split
    for name in (f"{image.stem}.png", f"{image.stem}_IUV.png"):
        if (folder / name).exists():
            return folder / name
    raise DSAError(
        f"{folder / image.stem}.png: the IUV map of {image} is missing, and so is "
        f"{image.stem}_IUV.png (an image without a detection needs an all-background map)"
    )


def _as_they_come(pool: ThreadPoolExecutor, work, count: int) -> Iterable[None]:
    """Results in order; after the first failure the work that has not begun is dropped."""
    try:
        yield from pool.map(work, range(count))
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def _resize(array: np.ndarray, height: int, width: int, how: Image.Resampling) -> np.ndarray:
    if array.shape[:2] == (height, width):
        return array
    return np.asarray(Image.fromarray(array).resize((width, height), how))
