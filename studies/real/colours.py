"""Ranking people by the mean colours of regions alone: what alignment is worth before any network.

    python studies/real/colours.py --cuhk03 ROOT --cuhk01 ROOT --pku ROOT

People that are not tested on: CUHK03's and CUHK01's training people, and all of the part of PKU-Reid. Each
must have its maps (dsareid densepose estimate ROOT). Every image is a query against all images of the other
camera. The distance of two images is the mean squared difference over the regions that both show. Prints a
table, and writes colours.json beside this file.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsa_ext import iuv_to_dsap
from dsa_ext.parts import GROUPS
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.store.cache import ensure_store
from dsareid.data.store.reader import Store
from dsareid.evaluation import Labels, Ranking
from dsareid.evaluation.ranking import chance
from dsareid.ground.files import atomic_path

RESULT = Path(__file__).with_name("colours.json")
STRIPES = 8
SIZE = 16  # S of a part image

Regions = tuple[Tensor, Tensor]
"""Mean colours of each region, float32 [N, R, 3], 0..1, and whether it is seen, bool [N, R]."""


def stripes(pixels: Tensor, iuv: Tensor) -> Regions:
    """Horizontal bands of the whole crop."""
    return _means(pixels, _bands(pixels).expand(len(pixels), -1, -1, pixels.shape[2]))


def masked_stripes(pixels: Tensor, iuv: Tensor) -> Regions:
    """Horizontal bands of the person: the background left out."""
    return _means(pixels, _bands(pixels) & (iuv[..., 0] > 0)[:, None])


def body_parts(pixels: Tensor, iuv: Tensor) -> Regions:
    """The eight body parts: left, right, front and back of each are one."""
    group = torch.tensor([-1, *GROUPS[8]])[iuv[..., 0].long()]
    return _means(pixels, group[:, None] == torch.arange(8)[:, None, None])


def parts(pixels: Tensor, iuv: Tensor) -> Regions:
    """The 24 parts: what crops of parts (CSA) see."""
    return _means(pixels, iuv[:, None, :, :, 0] == torch.arange(1, 25)[:, None, None])


def part_images(pixels: Tensor, iuv: Tensor) -> Regions:
    """The 24 DSAP-images: the same parts, each place of the surface counted once."""
    images, source = iuv_to_dsap(
        pixels.permute(0, 3, 1, 2), iuv.permute(0, 3, 1, 2), size=SIZE, return_source=True
    )
    seen = source.view(len(pixels), 24, -1) >= 0  # [N, 24, S*S]
    return _mean(images.float().div(255).flatten(3), seen[:, :, None])


def quarters(pixels: Tensor, iuv: Tensor) -> Regions:
    """Each DSAP-image cut into 4 x 4: places of the surface, aligned inside the parts."""
    images, source = iuv_to_dsap(
        pixels.permute(0, 3, 1, 2), iuv.permute(0, 3, 1, 2), size=SIZE, return_source=True
    )
    seen = (source >= 0).view(len(pixels), 24, 1, 4, SIZE // 4, 4, SIZE // 4)
    values = images.float().div(255).view(len(pixels), 24, 3, 4, SIZE // 4, 4, SIZE // 4)
    total = (values * seen).sum((4, 6)).flatten(3).transpose(2, 3)  # [N, 24, 16, 3]
    count = seen.sum((4, 6)).flatten(3).transpose(2, 3)  # [N, 24, 16, 1]
    return (total / count.clamp(min=1)).flatten(1, 2), (count > 0).flatten(1)


REGIONS: Mapping[str, Callable[[Tensor, Tensor], Regions]] = {
    "stripes": stripes,
    "masked stripes": masked_stripes,
    "8 body parts": body_parts,
    "24 parts (CSA)": parts,
    "24 part images (DSAP)": part_images,
    "part images, 4 x 4 each": quarters,
}


def _bands(pixels: Tensor) -> Tensor:
    """The rows of each band, bool [1, STRIPES, H, 1]."""
    height = pixels.shape[1]
    band = torch.arange(height) * STRIPES // height
    return (band == torch.arange(STRIPES)[:, None])[None, :, :, None]


def _means(pixels: Tensor, member: Tensor) -> Regions:
    """Means over the pixels uint8 [N, H, W, 3] of each region, bool [N, R, H, W]."""
    weight = member.flatten(2).float()  # [N, R, H*W]
    count = weight.sum(2, keepdim=True)
    return weight @ pixels.flatten(1, 2).float().div(255) / count.clamp(min=1), count[..., 0] > 0


def _mean(values: Tensor, seen: Tensor) -> Regions:
    count = seen.sum(3)  # [N, 24, 1]
    return (values * seen).sum(3) / count.clamp(min=1), count[..., 0] > 0


# What is compared of the mean colours [N, R, 3]; cameras [N].
def plain(colours: Tensor, seen: Tensor, cameras: Tensor) -> Tensor:
    return colours


def balanced(colours: Tensor, seen: Tensor, cameras: Tensor) -> Tensor:
    """Logarithms, less their mean over the image's regions: the grey-world assumption."""
    logs = (colours + 1 / 32).log()
    weight = seen[..., None].float()
    return logs - (logs * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)


def by_camera(colours: Tensor, seen: Tensor, cameras: Tensor) -> Tensor:
    """Logarithms, less their mean over the camera's images: a camera's light and colour cast."""
    logs = (colours + 1 / 32).log()
    for camera in cameras.unique():
        rows = cameras == camera
        weight = seen[rows][..., None].float()
        mean = (logs[rows] * weight).sum(0) / weight.sum(0).clamp(min=1)
        logs[rows] -= mean
    return logs


COLOURS = {"plain": plain, "balanced by image": balanced, "balanced by camera": by_camera}


def distances(values: Tensor, seen: Tensor) -> Tensor:
    """The mean squared difference over common regions, float32 [N, N]; without any, the largest of all."""
    weight = seen[..., None].float()
    known = (values * weight).flatten(1)
    square = (values.square().sum(2) * seen).float()  # [N, R]
    mask = seen.float()
    total = square @ mask.T + mask @ square.T - 2 * known @ known.T
    common = mask @ mask.T
    mean = total.clamp(min=0) / common.clamp(min=1)
    return torch.where(common > 0, mean, mean.max())


def measure(store: Store, splits: Sequence[str]) -> dict[str, dict[str, float]]:
    """mAP and rank-1 of each region and colour, and of chance."""
    chosen = [store.select(split, iuv=True) for split in splits]
    rows = np.concatenate([split.rows for split in chosen])
    pixels, iuv = (torch.from_numpy(np.stack([x[row] for row in rows])) for x in (store.images, store.iuv))
    ids, cameras = (
        torch.from_numpy(np.concatenate([getattr(x, name) for x in chosen])) for name in ("ids", "cams")
    )
    labels = Labels(ids, ids, cameras, cameras)
    results = {"chance": chance(labels)}
    for region, mean in REGIONS.items():
        found = [mean(*some) for some in zip(pixels.split(256), iuv.split(256))]
        colours, seen = (torch.cat(x) for x in zip(*found))
        for name, prepare in COLOURS.items():
            matrix = distances(prepare(colours.clone(), seen, cameras), seen)
            results[f"{region}, {name}"] = Ranking(matrix, labels).result()
    return {
        name: {"mAP": x.mAP, "rank1": x.cmc[0].item(), "queries": len(x.ap)} for name, x in results.items()
    }


def main() -> None:
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=how)
    for name in ("cuhk03", "cuhk01", "pku"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = vars(parser.parse_args())
    results = {}
    for name, root in options.items():
        splits = [QUERY, GALLERY] if name == "pku" else [TRAIN]  # PKU-Reid's people are all test people
        results[name] = measure(ensure_store(root, 128, 64), splits)
    with atomic_path(RESULT) as temporary:
        temporary.write_text(json.dumps(results, indent=1) + "\n")
    for row in results["cuhk03"]:
        print(
            f"{row:45}",
            *(f"{100 * x[row]['mAP']:6.1f} {100 * x[row]['rank1']:6.1f}" for x in results.values()),
        )


if __name__ == "__main__":
    main()
