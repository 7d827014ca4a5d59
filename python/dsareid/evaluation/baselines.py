"""What a model must beat: a random order of the gallery, and colour histograms."""

import torch
from torch import Tensor

from dsareid.evaluation.arguments import check_positive
from dsareid.evaluation.ranking import Matches, RankResult

STRIPES = 6  # horizontal bands: about head, shoulders, chest, hips, thighs, shins
HUES, SATURATIONS, VALUES = 8, 4, 4
_GREY = 110.0  # of 255; light enough to tell dark from bright, dark enough not to saturate


@torch.no_grad()
def chance(
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor,
    gallery_cams: Tensor,
    max_rank: int = 50,
) -> RankResult:
    """The expected result of `rank` for a random order of the gallery, in closed form.

    For a query with n matches among N kept gallery images, every order equally likely:
    - a match in the first k: 1 - (N-n)/N * (N-n-1)/(N-1) * ... (k factors);
    - place k holds a match with probability n / N, and then (n-1)/(N-1) of the k-1 places before
      it do, so AP is on average (1/N) * sum over k of (1 + (k-1) (n-1)/(N-1)) / k
      = (H + (n-1)/(N-1) * (N - H)) / N with the harmonic number H = 1 + 1/2 + ... + 1/N.

    The arguments are those of `rank`.

    Raises:
        ValueError: as `rank`.
    """
    check_positive("max_rank", max_rank)
    for name, labels in (("query_ids", query_ids), ("gallery_ids", gallery_ids)):
        if not isinstance(labels, Tensor) or labels.ndim != 1 or not len(labels):
            raise ValueError(f"{name} must be a tensor [images], at least 1")
    matches = Matches(
        query_ids,
        gallery_ids,
        query_cams,
        gallery_cams,
        len(query_ids),
        len(gallery_ids),
        query_ids.device,
    )
    junk = matches.junk_count()
    n, size = (matches.count - junk).cpu(), (len(gallery_ids) - junk).cpu()
    queries = (n > 0).nonzero().squeeze(1)
    if not len(queries):
        raise ValueError("no query has a match in the gallery")
    n, size = n[queries].double(), size[queries].double()

    harmonic = (1 / torch.arange(1, len(gallery_ids) + 1, dtype=torch.float64)).cumsum(0)
    h = harmonic[size.long() - 1]
    ap = (h + (n - 1) / (size - 1).clamp(min=1) * (size - h)) / size  # [queries]
    place = torch.arange(max_rank, dtype=torch.float64)  # [max_rank]
    misses = (size - n)[:, None] - place  # [queries, max_rank], wrong images left at each place
    miss = (misses.clamp(min=0) / (size[:, None] - place).clamp(min=1)).cumprod(1)
    return RankResult(float(ap.mean()), (1 - miss).mean(0), ap, queries, len(query_ids) - len(queries))


@torch.no_grad()
def colour_histograms(images: Tensor, *, balanced: bool = False) -> Tensor:
    """Joint HSV histograms of horizontal stripes, as features for `rank`.

    The middle half of the columns, where the person is, is cut into STRIPES bands; each has a
    histogram of 8 hues x 4 saturations x 4 values that sums to 1 / STRIPES. The square root makes
    the Euclidean distance the Hellinger distance.

    Args:
        images: uint8 [N, H, W, 3], RGB, H >= STRIPES.
        balanced: first scale the channels of each image (its middle half) to the same mean, the
            grey-world assumption. Where cameras have colour casts, plain histograms tell cameras
            apart rather than people, which may be worse than chance.

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
    # Half a bin further, so that a bin is centred on pure red and not cut by it.
    hue_bin = (hue * (HUES / 6) + 0.5).long() % HUES
    saturation_bin = (chroma / value.clamp(min=1) * SATURATIONS).long().clamp(max=SATURATIONS - 1)
    value_bin = (value * (VALUES / 256)).long()
    return (hue_bin * SATURATIONS + saturation_bin) * VALUES + value_bin
