"""Augmentation: image and IUV map together, drawn for each sample by itself."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsa_ext import parts


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied."""

    pad: int = 10
    """Pixels of padding on each side before the random crop."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    erase: float = 0.5
    """Probability of random erasing (area 0.02..0.4, aspect 0.3..3.33, filled with the mean)."""
    drop_person: float = 0.0
    """Probability that a sample's whole IUV map is taken away (not in the paper)."""
    drop_part: float = 0.0
    """Probability that a single part of a sample's IUV map is taken away (not in the paper)."""


@dataclass(frozen=True)
class Augmentation:
    """What was drawn for B samples."""

    shift: np.ndarray  # int64 [B, 2]: rows and columns by which the view moves, -pad..pad
    flip: np.ndarray  # bool [B]
    erase: np.ndarray  # int64 [B, 4]: top, left, bottom, right of the erased box; empty if none
    keep: np.ndarray  # bool [B, 25]: which parts of the IUV map stay (row 0 is background)


def draw_augmentation(
    config: AugmentConfig,
    seed: int,
    epoch: int,
    index: np.ndarray,
    repeat: np.ndarray,
    height: int,
    width: int,
) -> Augmentation:
    """Draw for the samples `index` (int [B]) that were seen `repeat` (int [B]) times before.

    A sample's draw depends on (seed, epoch, index, repeat) alone.
    """
    drawn = [
        _draw_one(config, np.random.default_rng([seed, epoch, i, k]), height, width)
        for i, k in zip(index.tolist(), repeat.tolist())
    ]
    return Augmentation(*(np.stack(column) for column in zip(*drawn)))


def _draw_one(config: AugmentConfig, rng: np.random.Generator, height: int, width: int):
    shift = rng.integers(-config.pad, config.pad, 2, endpoint=True)
    flip = rng.random() < config.flip
    box = np.zeros(4, np.int64)
    if rng.random() < config.erase:
        box = _erased_box(rng, height, width)
    keep = rng.random(25) >= config.drop_part
    keep &= rng.random() >= config.drop_person
    return shift, flip, box, keep


def _erased_box(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    for _ in range(100):  # a tall box may not fit: draw again, as random erasing does
        area = rng.uniform(0.02, 0.4) * height * width
        aspect = np.exp(rng.uniform(np.log(0.3), np.log(1 / 0.3)))
        h, w = int(round((area * aspect) ** 0.5)), int(round((area / aspect) ** 0.5))
        if 0 < h < height and 0 < w < width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            return np.array([top, left, top + h, left + w])
    return np.zeros(4, np.int64)


def augment(
    images: Tensor, iuv: Tensor | None, draw: Augmentation
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Apply a draw: shift, then flip, then erase.

    Args:
        images: uint8 [B, H, W, 3].
        iuv: uint8 [B, H, W, 3] in the order I, U, V, or None.

    Returns:
        The images and maps, same shapes, and bool [B, H, W]: False where a pixel came from outside
        or was erased. There the map is background; the image holds whatever it held, and is to be
        replaced by the mean once it is normalised.
    """
    batch, height, width, _ = images.shape
    device = images.device
    shift, flip, box, keep = (
        torch.from_numpy(x).to(device) for x in (draw.shift, draw.flip, draw.erase, draw.keep)
    )
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    rows = y + shift[:, :1]  # [B, H]
    columns = torch.where(flip[:, None], width - 1 - x, x) + shift[:, 1:]  # [B, W]
    top, left, bottom, right = box.T[:, :, None]  # each [B, 1]
    erased = ((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    valid = inside & ~erased  # [B, H, W]

    at = (
        torch.arange(batch, device=device)[:, None, None],
        rows.clamp(0, height - 1)[:, :, None],
        columns.clamp(0, width - 1)[:, None],
    )
    images = images[at]  # [B, H, W, 3]
    if iuv is not None:
        iuv = iuv[at]
        kept = keep.gather(1, iuv[..., 0].flatten(1).long()).view_as(valid)
        iuv = torch.where((valid & kept)[..., None], iuv, 0)
        iuv = torch.where(flip[:, None, None, None], swap_sides(iuv), iuv)
    return images, iuv, valid


def swap_sides(iuv: Tensor) -> Tensor:
    """The IUV values of the mirrored person, pixel by pixel (the image is not moved).

    The closed form of DensePose's UV_symmetry_transforms: left and right parts change places; hands,
    feet and head take U -> 255 - U, the torso V -> 255 - V. iuv: uint8 [..., 3].
    """
    device = iuv.device
    i = iuv[..., 0].long()
    twin = torch.tensor((0, *parts.TWIN), dtype=torch.uint8, device=device)
    flip_u = torch.tensor((False, *parts.FLIP_U), device=device)
    flip_v = torch.tensor((False, *parts.FLIP_V), device=device)
    u, v = iuv[..., 1], iuv[..., 2]
    return torch.stack(
        [twin[i], torch.where(flip_u[i], 255 - u, u), torch.where(flip_v[i], 255 - v, v)], -1
    )
