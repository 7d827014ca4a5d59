"""A second person in a crop, and holes in masks: what was tried beside the settings of run.py.

    DSA_REAL=FOLDER python studies/estimator/people.py

Crops of two people are made of the five photographs: another one's person is pasted beside, in front of or
behind the photograph's own, as tall, at distances in parts of that height, 128 rows high. Then the people of
demo_im, each in his box; then the photographs themselves and the crops of pku/, of which nothing should go.
IoU is of the mask with that of the one person. Three ways: everybody; the connected piece of the mask that is
largest and most central; the long offsets (tell_apart), as `people="one"`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from run import MARGIN, REAL, photographs
from scipy import ndimage

from dsareid.data.iuv import read_iuv
from dsareid.densepose.estimators.bodypix import BodyPix

SHIFTS = 0.15, 0.3, 0.45  # from middle to middle, in heights
ROWS = 128
CHANGE = 0.01  # of IoU: less is no change


class Crop(NamedTuple):
    """A picture, and the mask of the person it is of."""

    image: np.ndarray  # uint8 [H, W, 3]
    mask: np.ndarray  # bool [H, W]


def pasted() -> Iterator[tuple[str, Crop]]:
    """Crops of two people, each with its kind."""
    shown = [Crop(each.image, each.iuv[..., 0] > 0) for each in photographs(ROWS)]
    for number, own in enumerate(shown):
        for other in shown[:number] + shown[number + 1 :]:
            for shift in SHIFTS:
                for side in (-1, 1):
                    for in_front in (True, False):
                        crop = paste(own, cut_out(other), side * shift, in_front)
                        yield f"{shift} in front" if in_front else f"{shift} behind", crop


def cut_out(crop: Crop) -> Crop:
    """The person alone, as large as the mask."""
    y, x = np.nonzero(crop.mask)
    box = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
    return Crop(crop.image[box], crop.mask[box])


def paste(own: Crop, other: Crop, shift: float, in_front: bool) -> Crop:
    y, x = np.nonzero(own.mask)
    height = y.max() + 1 - y.min()
    scale = height / other.mask.shape[0]
    size = max(1, round(other.mask.shape[1] * scale)), height
    added = np.asarray(Image.fromarray(other.image).resize(size, Image.Resampling.LANCZOS))
    added_mask = np.asarray(Image.fromarray(other.mask).resize(size, Image.Resampling.NEAREST))
    left = round((x.min() + x.max()) / 2 + shift * height - size[0] / 2)
    image, covered = own.image.copy(), np.zeros_like(own.mask)
    columns = np.arange(size[0]) + left
    inside = (columns >= 0) & (columns < own.mask.shape[1])
    covered[y.min() : y.max() + 1, columns[inside]] = added_mask[:, inside]
    if not in_front:
        covered &= ~own.mask
    pasted_on = np.zeros_like(image)
    pasted_on[y.min() : y.max() + 1, columns[inside]] = added[:, inside]
    image[covered] = pasted_on[covered]
    return Crop(image, own.mask & ~covered)


def demo_people() -> Iterator[Crop]:
    """The people of the street scene who are large enough to be estimated, each in his box."""
    image = np.asarray(Image.open(REAL / "demo_im.jpg").convert("RGB"))
    instances = np.asarray(Image.open(REAL / "demo_im_INDS.png"))
    body = read_iuv(REAL / "demo_im_IUV.png")[..., 0] > 0
    for instance in np.unique(instances[body]):
        mask = (instances == instance) & body
        if mask.sum() < 1000:
            continue
        box = []
        for values, length in zip(np.nonzero(mask), mask.shape):
            margin = MARGIN * (np.ptp(values) + 1)
            box.append(slice(max(0, int(values.min() - margin)), min(length, int(values.max() + 1 + margin))))
        yield Crop(image[tuple(box)], mask[tuple(box)])


def central_piece(mask: np.ndarray) -> np.ndarray:
    """The connected piece whose pixels times centrality are most."""
    pieces, count = ndimage.label(mask)
    if count < 2:
        return mask
    x = np.linspace(-1, 1, mask.shape[1])
    weight = ndimage.sum_labels(np.broadcast_to(1 - abs(x), mask.shape), pieces, range(1, count + 1))
    return pieces == 1 + np.argmax(weight)


def iou(mask: np.ndarray, true: np.ndarray) -> float:
    return (mask & true).sum() / max((mask | true).sum(), 1)


def ways(everybody: BodyPix, one: BodyPix, crop: Crop) -> tuple[float, float, float]:
    mask = everybody(crop.image).iuv[..., 0] > 0
    kept = one(crop.image).iuv[..., 0] > 0
    return iou(mask, crop.mask), iou(central_piece(mask), crop.mask), iou(kept, crop.mask)


def row(name: str, found: list[tuple[float, float, float]]) -> None:
    scores = np.array(found)
    cells = [f"{scores[:, 0].mean():.3f}"]
    for way in (1, 2):
        change = scores[:, way] - scores[:, 0]
        better, worse = (change > CHANGE).sum(), (change < -CHANGE).sum()
        cells.append(f"{scores[:, way].mean():.3f} (+{better} -{worse})")
    print(f"| {name} | {len(found)} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    everybody, one = (BodyPix(REAL / "bodypix", "cpu", people=people) for people in ("all", "one"))
    print(f"| crops | count | everybody | central piece | long offsets |\n|{'---|' * 5}")
    pastes: dict[str, list[tuple[float, float, float]]] = {}
    for kind, crop in pasted():
        pastes.setdefault(kind, []).append(ways(everybody, one, crop))
    for kind, found in sorted(pastes.items()):
        row(f"pasted, {kind}", found)
    row("demo_im's people", [ways(everybody, one, crop) for crop in demo_people()])
    single = [Crop(each.image, each.iuv[..., 0] > 0) for rows in (None, ROWS) for each in photographs(rows)]
    row("one person", [ways(everybody, one, crop) for crop in single])

    removed, pieces, holes, empty = [], [], [], 0
    for path in sorted((REAL / "pku").rglob("*.png")):
        found = one(np.array(Image.open(path).convert("RGB")))
        mask = everybody(np.array(Image.open(path).convert("RGB"))).iuv[..., 0] > 0
        empty += not mask.any()
        if mask.any():
            removed.append(found.others)
            pieces.append(1 - central_piece(mask).sum() / mask.sum())
            holes.append(ndimage.binary_fill_holes(mask).sum() / mask.sum() - 1)
    for name, shares in (("long offsets", removed), ("central piece", pieces), ("holes", holes)):
        many = (np.array(shares) > 0.02).sum()
        print(f"pku, {len(shares)} masks, {name}: {np.mean(shares):.2%}, above 2 % in {many}", flush=True)
    print("\nIoU with holes filled, at a long side of 385 and at 128 rows:")
    for rows in (None, ROWS):
        for each in photographs(rows):
            mask, true = everybody(each.image).iuv[..., 0] > 0, each.iuv[..., 0] > 0
            print(f"{each.name}: {iou(mask, true):.4f} -> {iou(ndimage.binary_fill_holes(mask), true):.4f}")


if __name__ == "__main__":
    main()
