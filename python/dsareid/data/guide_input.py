"""The guide input: DSAP-images, or one of three that show what their alignment is worth.

    part-images     the 24 DSAP-images, densely aligned (the method)
    part-crops      the 24 parts cut out, not aligned inside (CSA, Table 4)
    masked-patches  24 patches of a grid over the image without its background (a control, not in the paper)
    image-patches   24 patches of a grid, without any DensePose (a control, not in the paper)

All are (B, 24, 3, S, S), normalised, 0 where there is nothing. The last three are plain torch: they serve an
ablation and two controls. Guidance "pool" needs to know where the parts are, not what they show; these are
uint8 (B, H, W), the part of each pixel of the image:

    part-map        the image's own
    others          another person's (a control)
    stripes         eight stripes from the top down, as if each were a part (a control)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsa_ext.batch import seen_pixels, view_parts
from dsa_ext.parts import GROUPS
from dsareid.models.options import MEAN, STD, InputName

PATCH_ROWS, PATCH_COLUMNS = 6, 4


@dataclass(frozen=True)
class Samples:
    """The stored images of a batch, and the augmentation of each."""

    images: np.ndarray | Tensor  # uint8 (N, h, w, 3)
    iuv: np.ndarray | Tensor | None  # the same; None if the guide needs no maps
    index: Tensor  # int64 (B,), rows of both
    drawn: Tensor | None  # int32 (B, 8), from draw_augmentation; None: not augmented

    def stored(self) -> tuple[Tensor, Tensor]:
        """The images and maps of the batch, uint8 [B, h, w, 3]."""
        if self.iuv is None:
            raise ValueError("iuv must be given: this guide input is made from IUV maps")
        return _rows(self.images, self.index), _rows(self.iuv, self.index)


def _crops(samples: Samples, image: Tensor, size: int) -> Tensor:
    pixels, charts = seen_pixels(*samples.stored(), samples.drawn, *image.shape[2:])
    return part_crops(pixels, charts[..., 0], size, MEAN, STD).to(image.device, image.dtype)


def _masked_patches(samples: Samples, image: Tensor, size: int) -> Tensor:
    _, iuv = samples.stored()
    person = view_parts(iuv[..., 0], samples.drawn, *image.shape[2:])[:, None] > 0
    return image_patches(image * person.to(image.device, image.dtype), size, None)


def _patches(samples: Samples, image: Tensor, size: int) -> Tensor:
    return image_patches(image, size, samples.drawn)


def _part_map(samples: Samples, image: Tensor, size: int) -> Tensor:
    _, iuv = samples.stored()
    return view_parts(iuv[..., 0], samples.drawn, *image.shape[2:]).to(image.device)


def _others(samples: Samples, image: Tensor, size: int) -> Tensor:
    """The part maps of the batch, each given to the image half a batch away: as a batch has K images of each
    of P people, that is another person's."""
    return _part_map(samples, image, size).roll(len(image) // 2, 0)


def _stripes(samples: Samples, image: Tensor, size: int) -> Tensor:
    """Of each of the eight body parts the first of its parts. What the view does not show is background, and
    parts are dropped, as in a map."""
    height, width = samples.images.shape[1:3]
    first = torch.tensor([GROUPS[8].index(group) + 1 for group in range(8)], dtype=torch.uint8)
    rows = first[torch.arange(height) * 8 // height]
    striped = rows[None, :, None].expand(len(samples.index), height, width).to(image.device)
    return view_parts(striped, samples.drawn, *image.shape[2:])


FromBatch = Callable[[Samples, Tensor, int], Tensor]
"""A function of the samples, of image (B, 3, H, W) as assemble_batch made it, and of S. It returns the guide
input, on image's device; the first four kinds are of its type."""

GUIDE_INPUTS: Mapping[InputName, FromBatch | None] = {
    "part-images": None,
    "part-crops": _crops,
    "masked-patches": _masked_patches,
    "image-patches": _patches,
    "part-map": _part_map,
    "others": _others,
    "stripes": _stripes,
}
"""How each is made from the augmented view; None: by assemble_batch, in the pass that makes the images."""


def part_crops(
    pixels: Tensor, parts: Tensor, size: int, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """The 24 parts cut out of their images: coarse alignment alone (CSA, Table 4).

    A crop is the tight box of the part's pixels, all other pixels set to the mean, resized bilinearly (the
    four nearest pixels, centres at halves; our decision, as the paper does not say). So it differs from a
    DSAP-image by the alignment within the part.

    Args:
        pixels: uint8 (B, h, w, 3) RGB.
        parts: uint8 (B, h, w), I of each pixel.
        size: S.
        mean, std: per channel.

    Returns:
        float32 (B, 24, 3, S, S), normalised; a part that is absent is 0.
    """
    batch, height, width, _ = pixels.shape
    member = parts[:, None] == torch.arange(1, 25, device=parts.device)[:, None, None]  # [B, 24, h, w]
    top, bottom = _extent(member.any(3))  # [B, 24]
    left, right = _extent(member.any(2))
    y, below, weight_y = _taps(top, bottom, size)  # [B, 24, S]
    x, beside, weight_x = _taps(left, right, size)
    value = (pixels.float() / 255 - torch.tensor(mean, device=pixels.device)) / torch.tensor(
        std, device=pixels.device
    )
    value = value.flatten(1, 2).movedim(2, 1)  # [B, 3, h*w]
    member = member.flatten(2)  # [B, 24, h*w]
    crops = torch.zeros(batch, 3, 24, size, size, device=pixels.device)
    for rows, of_rows in ((y, 1 - weight_y), (below, weight_y)):
        for columns, of_columns in ((x, 1 - weight_x), (beside, weight_x)):
            place = (rows[..., :, None] * width + columns[..., None, :]).flatten(2)  # [B, 24, S*S]
            weight = (of_rows[..., :, None] * of_columns[..., None, :]).flatten(2) * member.gather(2, place)
            found = value.gather(2, place.flatten(1)[:, None].expand(-1, 3, -1))  # [B, 3, 24*S*S]
            crops += (found * weight.flatten(1)[:, None]).view_as(crops)
    return crops.transpose(1, 2)


def image_patches(image: Tensor, size: int, drawn: Tensor | None) -> Tensor:
    """24 patches of a grid of 6 rows and 4 columns over the image, resized bilinearly: no alignment at all.

    Patches are dropped by the draws that drop parts, so that the two inputs differ in nothing else.

    Args:
        image: floating (B, 3, H, W), normalised.
        drawn: int32 (B, 8) of draw_augmentation, or None.

    Returns:
        (B, 24, 3, S, S), of the type of image; a patch that is dropped is 0.
    """
    grid = F.interpolate(image, (PATCH_ROWS * size, PATCH_COLUMNS * size), mode="bilinear")
    cells = grid.unflatten(2, (PATCH_ROWS, size)).unflatten(4, (PATCH_COLUMNS, size))
    patches = cells.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [B, 24, 3, S, S]
    if drawn is None:
        return patches.contiguous()
    bits = torch.arange(1, 25, device=drawn.device, dtype=drawn.dtype)
    keep = (drawn[:, 7:] >> bits) & 1  # [B, 24]
    return patches * keep.to(image.device, image.dtype)[:, :, None, None, None]


def _rows(stored: np.ndarray | Tensor, index: Tensor) -> Tensor:
    if isinstance(stored, Tensor):
        return stored[index.to(stored.device)]
    return torch.from_numpy(stored[index.numpy()])


def _extent(filled: Tensor) -> tuple[Tensor, Tensor]:
    """First and last True along the last axis; 0 and its length less one where there is none."""
    first = filled.int().argmax(-1)
    last = filled.shape[-1] - 1 - filled.flip(-1).int().argmax(-1)
    return first, last


def _taps(first: Tensor, last: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `size` cells over first..last: the two pixels it lies between, and the second's weight."""
    cells = torch.arange(size, device=first.device)
    place = (cells + 0.5) * ((last - first + 1) / size)[..., None] - 0.5
    place = place.clamp(min=0).minimum((last - first)[..., None]) + first[..., None]
    lower = place.floor().long()
    return lower, (lower + 1).minimum(last[..., None]), place - lower
