"""A tiny data set in Market-1501's layout: 4 identities x 4 images to train on, 2 to test."""

from pathlib import Path

import numpy as np
from PIL import Image

from dsareid.data.iuv import write_iuv

HEIGHT, WIDTH = 64, 32


def write_person(root: Path, split: str, name: str, seed: int, hue: int) -> None:
    """One image of a person of a colour, with an IUV map of a few parts."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[8:56, 8:24] = (hue, 255 - hue, (hue * 7) % 256)
    iuv = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    y, x = np.mgrid[8:56, 8:24]
    iuv[8:56, 8:24, 0] = 1 + (y - 8) // 8 * 4 + (x - 8) // 4
    iuv[8:56, 8:24, 1] = (y - 8) % 8 * 32
    iuv[8:56, 8:24, 2] = (x - 8) % 4 * 64
    for folder in (root / split, root / "iuv" / split):
        folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / split / f"{name}.png")
    write_iuv(root / "iuv" / split / f"{name}.png", iuv)


def make_data(root: Path) -> Path:
    for identity in range(1, 7):
        split = "bounding_box_train" if identity <= 4 else "bounding_box_test"
        for shot in range(4):
            name = f"{identity:04d}_c{shot % 2 + 1}s1_{shot:06d}_00"
            write_person(root, split, name, 100 * identity + shot, 40 * identity)
        if identity > 4:
            write_person(root, "query", f"{identity:04d}_c3s1_000009_00", identity, 40 * identity)
    write_person(root, "bounding_box_test", "0000_c1s1_000000_00", 7, 3)
    write_person(root, "bounding_box_test", "-1_c1s1_000000_00", 8, 5)
    return root
