"""How near estimated maps are to DensePose's, by which settings, and the lines that stretch the charts.

    DSA_REAL=FOLDER python studies/estimator/run.py            the table of README.md
    DSA_REAL=FOLDER python studies/estimator/run.py --fit      GAIN and SHIFT of estimators/calibration.py

FOLDER holds five photographs with DensePose's maps (demo_im and pairs/), crops of pku/, and bodypix/, the
weights. None of it is in the repository. Photographs are cropped to their map's box with a margin of 15 %,
and seen at two resolutions: a long side of 385, and 128 rows.
"""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsa_ext.parts import TWIN
from dsareid.data.iuv import read_iuv
from dsareid.densepose.estimators import bodypix
from dsareid.densepose.estimators.body_parts import PARTS
from dsareid.densepose.estimators.bodypix import BodyPix, BodyPixSettings
from dsareid.densepose.estimators.tfjs import GraphModel, read_graph, read_weights

REAL = Path(os.environ.get("DSA_REAL", "real"))
NAMES = ("demo_im", "pairs/spotlight_001", "pairs/spotlight_002", "pairs/stool", "pairs/jacket")
MAN = slice(185, 425), slice(180, 262)  # the one of demo_im's people who stands alone
MARGIN, FEWEST = 0.15, 20  # of a box; pixels of a part that say something
PRIOR = 0.05  # how strongly a line is held to gain 1 and shift 0, in photographs
CROPS = 8  # every so many of pku/
STRIDE_8 = bodypix.SETTINGS["default"]._replace()  # by the other graph, of twice the resolution


class Photograph(NamedTuple):
    """A photograph at one resolution."""

    name: str
    image: np.ndarray  # uint8 [H, W, 3]
    iuv: np.ndarray  # uint8 [H, W, 3], DensePose's


class Pair(NamedTuple):
    """What was estimated of a photograph, and what is right."""

    name: str
    part: np.ndarray  # [H, W]
    uv: np.ndarray  # float32 [2, H, W]
    iuv: np.ndarray  # DensePose's


def photographs(rows: int | None) -> list[Photograph]:
    """Those with maps; with `rows` of that height, else of a long side of 385."""
    found = []
    for name in NAMES:
        image = np.asarray(Image.open(REAL / f"{name}.jpg").convert("RGB"))
        iuv = read_iuv(REAL / f"{name}_IUV.png")
        if name == "demo_im":
            image, iuv = image[MAN], iuv[MAN]
        y, x = np.nonzero(iuv[..., 0])
        box = []
        for values, length in ((y, image.shape[0]), (x, image.shape[1])):
            margin = MARGIN * (values.max() - values.min() + 1)
            least, most = int(values.min() - margin), int(values.max() + 1 + margin)
            box.append(slice(max(0, least), min(length, most)))
        image, iuv = image[tuple(box)], iuv[tuple(box)]
        scale = rows / image.shape[0] if rows else 385 / max(image.shape[:2])
        size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
        how = Image.Resampling.BILINEAR if scale > 1 else Image.Resampling.LANCZOS
        smaller = Image.fromarray(np.ascontiguousarray(iuv)).resize(size, Image.Resampling.NEAREST)
        found.append(
            Photograph(name, np.asarray(Image.fromarray(image).resize(size, how)), np.asarray(smaller))
        )
    return found


def estimate(estimator: BodyPix, shown: list[Photograph]) -> list[Pair]:
    maps = [(photograph, estimator(photograph.image)) for photograph in shown]
    return [Pair(photograph.name, found.iuv[..., 0], found.uv, photograph.iuv) for photograph, found in maps]


def scores(pair: Pair) -> tuple[float, float, float, float]:
    """Mask IoU, share of equal parts where both see a person, medians of |dU| and |dV| of right parts."""
    body, true = pair.part > 0, pair.iuv[..., 0] > 0
    right = body & (pair.part == pair.iuv[..., 0])
    off = abs(np.floor(255 * pair.uv) - pair.iuv[..., 1:].transpose(2, 0, 1))[:, right] / 255
    overlap = (body & true).sum()
    return overlap / (body | true).sum(), right.sum() / overlap, np.median(off[0]), np.median(off[1])


def fit(pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Gain and shift of each chart, [2, 24] each in BodyPix's order, by least squares, each photograph alike.

    Left and right share their pixels: their charts are mirror images, or run the same way.
    """
    gain, shift = np.ones((2, 24), np.float32), np.zeros((2, 24), np.float32)
    for k, part in enumerate(PARTS):
        for c in (0, 1):
            normal, right = np.zeros((2, 2)), np.zeros(2)
            for pair in pairs:
                for same in {part, TWIN[part - 1]}:
                    at = (pair.part == same) & (pair.iuv[..., 0] == same)
                    if at.sum() < FEWEST:
                        continue
                    x, y = pair.uv[c][at] - 0.5, pair.iuv[..., 1 + c][at] / 255 - 0.5
                    if same != part and _is_reversed(part, c):
                        x, y = -x, -y
                    normal += np.array([[(x * x).mean(), x.mean()], [x.mean(), 1]])
                    normal += np.diag([PRIOR, 5 * PRIOR])
                    right += np.array([(x * y).mean() + PRIOR, y.mean()])
            if normal.any():
                gain[c, k], shift[c, k] = np.linalg.solve(normal, right)
    return gain, shift


def _is_reversed(part: int, coordinate: int) -> bool:
    """Whether the chart of a part's twin runs the other way in U or V."""
    from dsa_ext.parts import FLIP_U, FLIP_V

    return (FLIP_U, FLIP_V)[coordinate][part - 1]


def stretched(pair: Pair, lines: tuple[np.ndarray, np.ndarray]) -> Pair:
    order = np.zeros(25, int)
    order[list(PARTS)] = range(24)
    gain, shift = (table[:, order[pair.part]] for table in lines)
    return pair._replace(uv=np.clip(0.5 + gain * (pair.uv - 0.5) + shift, 0, 1) * (pair.part > 0))


def left_out(pairs: list[Pair]) -> list[tuple[float, float, float, float]]:
    """The scores of each photograph with lines that were fitted on the others, at both resolutions."""
    return [scores(stretched(pair, fit([x for x in pairs if x.name != pair.name]))) for pair in pairs]


def unstretched(settings: BodyPixSettings, stride: int = 16) -> BodyPix:
    bodypix.GAIN, bodypix.SHIFT = np.ones((2, 24), np.float32), np.zeros((2, 24), np.float32)
    estimator = BodyPix(REAL / "bodypix", "cpu")
    estimator.settings = settings
    if stride != 16:
        graph = read_graph(REAL / f"bodypix/model-stride{stride}.json")
        nodes = {node.name: node for node in graph.modelTopology.node}
        weights = read_weights(graph, REAL / "bodypix")
        estimator.network = GraphModel(nodes, weights, estimator.network.outputs)
    return estimator


def table() -> None:
    """Print the table of README.md."""
    default, best = bodypix.SETTINGS["default"], bodypix.SETTINGS["best"]
    crops = [np.array(Image.open(x).convert("RGB")) for x in sorted((REAL / "pku").rglob("*.png"))[::CROPS]]
    large, small = photographs(None), photographs(128)
    titles = "sizes, mirrored, threshold, charts, IoU, parts, dU, dV, the same of 128 rows, nearly empty"
    print(f"| {titles.replace(', ', ' | ')} |\n|{'---|' * 10}")
    for settings in (
        BodyPixSettings((385,), mirrored=False),
        BodyPixSettings((257,), mirrored=False),
        BodyPixSettings((385,)),
        BodyPixSettings((257,)),
        BodyPixSettings((257, 449)),
        default._replace(threshold=0.56),
        default._replace(threshold=0.72),
        default,
        best,
        STRIDE_8,
    ):
        estimator = unstretched(settings, 8 if settings is STRIDE_8 else 16)
        pairs = estimate(estimator, large), estimate(estimator, small)
        share = np.mean([(estimator(crop).iuv[..., 0] > 0).mean() < 0.15 for crop in crops])
        for charts, found in (
            ("as they are", [[scores(pair) for pair in some] for some in pairs]),
            ("stretched", np.split(np.array(left_out([*pairs[0], *pairs[1]])), 2)),
        ):
            cells = [" | ".join(f"{x:.3f}" for x in np.mean(found[0], 0))]
            cells += [" / ".join(f"{x:.3f}" for x in np.mean(found[1], 0))]
            sizes = ", ".join(map(str, settings.sides)) + " (stride 8)" * (settings is STRIDE_8)
            print(
                f"| {sizes} | {'yes' if settings.mirrored else 'no'} | {settings.threshold} | {charts} | "
                f"{' | '.join(cells)} | {share:.1%} |",
                flush=True,
            )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--fit", action="store_true", help="print the lines that stretch the charts")
    if not arguments.parse_args().fit:
        table()
        return
    estimator = unstretched(bodypix.SETTINGS["default"])
    for line in fit([*estimate(estimator, photographs(None)), *estimate(estimator, photographs(128))]):
        print([[round(float(x), 3) for x in row] for row in line])


if __name__ == "__main__":
    main()
