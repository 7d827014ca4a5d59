"""The baseline that a model must beat besides `chance`: colour histograms."""

import torch
from torch import Tensor

STRIPES = 6  # horizontal bands: about head, shoulders, chest, hips, thighs, shins
HUES, SATURATIONS, VALUES = 8, 4, 4
_GREY = 110.0  # of 255; light enough to tell dark from bright, dark enough not to saturate


@torch.no_grad()
def colour_histograms(images: Tensor, *, balanced: bool = False) -> Tensor:
    """Joint HSV histograms of horizontal stripes, as features for `rank`.

    The middle half of the columns, where the person is, is cut into STRIPES bands; each has a
    histogram of 8 hues x 4 saturations x 4 values that sums to 1 / STRIPES. The square root makes
    the Euclidean distance the Hellinger distance.

    Args:
        images: uint8 [N, H, W, 3], RGB, H >= STRIPES.
        balanced: first scale the channels of each image (its middle half) to the same mean, the
            grey-world assumption. If cameras have colour casts, plain histograms tell cameras apart
            rather than people, which may be worse than chance.

    Returns:
        float32 [N, STRIPES * 128] on the same device, each row of norm 1.

    Raises:
        ValueError: images has another dtype or shape.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be uint8 [N, H, W, 3], not {images.dtype} {list(images.shape)}")
    margin = images.shape[2] // 4
    images = images[:, :, margin : images.shape[2] - margin]
    count, height, width, _ = images.shape
    if height < STRIPES or width < 1:
        raise ValueError(f"images must be at least {STRIPES} pixels high, not {height}x{width}")
    bins = STRIPES * HUES * SATURATIONS * VALUES
    band = torch.arange(height, device=images.device) * STRIPES // height  # [H]
    rows = band.bincount(minlength=STRIPES).double() * width  # pixels in each band
    features = torch.empty(count, bins, dtype=torch.float32, device=images.device)
    for start in range(0, count, 64):  # 64 images at once: the HSV planes stay small
        part = images[start : start + 64]
        part = _grey_world(part) if balanced else part
        index = _hsv_bin(part) + band[:, None] * (bins // STRIPES)  # [n, H, W]
        index += torch.arange(len(part), device=images.device)[:, None, None] * bins
        histogram = torch.bincount(index.flatten(), minlength=len(part) * bins)
        share = histogram.view(len(part), STRIPES, -1) / (rows[:, None] * STRIPES)
        features[start : start + 64] = share.sqrt().flatten(1).float()
    return features


def _grey_world(images: Tensor) -> Tensor:
    """Scale the channels of each image so that all have the mean _GREY; uint8 [N, H, W, 3]."""
    mean = images.float().mean((1, 2), keepdim=True).clamp(min=1)
    return (images * (_GREY / mean)).clamp(0, 255).to(torch.uint8)


def _hsv_bin(images: Tensor) -> Tensor:
    """The joint HSV bin of each pixel, int64 [N, H, W], of uint8 [N, H, W, 3] RGB."""
    red, green, blue = images.float().unbind(-1)
    value = images.amax(-1).float()
    chroma = value - images.amin(-1).float()
    safe = chroma.clamp(min=1)
    hue = torch.where(
        value == red,
        ((green - blue) / safe) % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )  # 0 <= hue <= 6; grey is 0
    # Shifted by half a bin, so that pure red is the centre of a bin and not its edge.
    hue_bin = (hue * (HUES / 6) + 0.5).long() % HUES
    saturation_bin = (chroma / value.clamp(min=1) * SATURATIONS).long().clamp(max=SATURATIONS - 1)
    value_bin = (value * (VALUES / 256)).long()
    return (hue_bin * SATURATIONS + saturation_bin) * VALUES + value_bin
