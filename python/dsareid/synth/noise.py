"""Errors of a DensePose network, imitated in exact synthetic IUV maps.

Each function takes a map uint8 [H, W, 3] in the order I, U, V and returns a new one; background stays
0, 0, 0 and parts stay 1..24.
"""

import numpy as np
from PIL import Image

from dsareid.synth.config import Difficulty


def add_faults(iuv: np.ndarray, difficulty: Difficulty, rng: np.random.Generator) -> np.ndarray:
    """Apply all faults at the rates of a difficulty."""
    if rng.random() < difficulty.missing_person_rate:
        return np.zeros_like(iuv)
    iuv = drop_parts(iuv, difficulty.missing_part_rate, rng)
    iuv = shift_borders(iuv, difficulty.border_shift * len(iuv) / 128, rng)
    return distort_uv(iuv, difficulty.uv_error, rng)


def drop_parts(iuv: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Remove each part as a whole at this rate."""
    missing = rng.random(25) < rate
    missing[0] = False
    return np.where(missing[iuv[..., :1]], np.uint8(0), iuv)


def shift_borders(iuv: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """Move the borders: every pixel takes the value found at a small, smoothly varying distance.

    pixels: the distance's spread. Some maps also lose the person's outermost pixels.
    """
    height, width = iuv.shape[:2]
    rows, columns = np.mgrid[:height, :width]
    rows = rows + np.rint(pixels * _smooth_field(height, width, 10, rng)).astype(int)
    columns = columns + np.rint(pixels * _smooth_field(height, width, 10, rng)).astype(int)
    moved = iuv[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    if pixels > 0 and rng.random() < 0.3:
        moved = _eroded(moved)
    return moved


def distort_uv(iuv: np.ndarray, spread: float, rng: np.random.Generator) -> np.ndarray:
    """Add a smooth error with this spread to U and V, in units of the chart."""
    height, width = iuv.shape[:2]
    error = np.stack([_smooth_field(height, width, 16, rng) for _ in "uv"], 2)
    uv = np.clip(np.rint(iuv[..., 1:] + 255 * spread * error), 0, 255).astype(np.uint8)
    is_person = iuv[..., :1] > 0
    return np.concatenate([iuv[..., :1], np.where(is_person, uv, np.uint8(0))], 2)


def _eroded(iuv: np.ndarray) -> np.ndarray:
    """Person pixels with background above, below, left or right become background."""
    person = np.pad(iuv[..., 0] > 0, 1, "edge")
    inside = person[1:-1, 1:-1] & person[:-2, 1:-1] & person[2:, 1:-1]
    inside &= person[1:-1, :-2] & person[1:-1, 2:]
    return np.where(inside[..., None], iuv, np.uint8(0))


def _smooth_field(height: int, width: int, grain: float, rng: np.random.Generator) -> np.ndarray:
    """Random numbers float32 [height, width] of spread about 1.

    grain: distance, in pixels at a height of 128, over which they change.
    """
    step = grain * height / 128
    coarse = (max(2, round(height / step)), max(2, round(width / step)))
    field = Image.fromarray(rng.normal(0, 1, coarse).astype(np.float32))
    return np.asarray(field.resize((width, height), Image.Resampling.BICUBIC))
