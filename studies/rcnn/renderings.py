"""Compare `densepose render` with detectron2's visualisers, pixel by pixel.

    pip install av opencv-python-headless  # and what prove.py needs
    PYTHONPATH=detectron2:detectron2/projects/DensePose python studies/rcnn/renderings.py FOLDER

FOLDER holds maps, NAME_IUV.png. Each is given to dp_segm, dp_u and dp_v as the chart of one box around
everything, with alpha=1, on black, or for magicanimate on the first colour of VIRIDIS.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from densepose.structures import DensePoseChartResult
from densepose.vis.densepose_results import (
    DensePoseResultsFineSegmentationVisualizer,
    DensePoseResultsUVisualizer,
    DensePoseResultsVVisualizer,
)

from dsareid.densepose import drawer
from dsareid.densepose.map_folder import find_maps


def drawn_by(visualizer: type, chart: np.ndarray, cmap: int, background: np.ndarray) -> np.ndarray:
    """What a visualiser of detectron2 draws of a map [3, H, W], uint8 [H, W, 3] RGB."""
    height, width = chart.shape[1:]
    canvas = np.tile(background, (height, width, 1)).astype(np.uint8)
    uv = (torch.from_numpy(chart[1:].astype(np.float32)) + 0.5) / 255  # which it truncates to the same bytes
    result = DensePoseChartResult(labels=torch.from_numpy(chart[0].astype(np.int64)), uv=uv)
    box = torch.tensor([[0, 0, width, height]])
    return visualizer(cmap=cmap, alpha=1).visualize(canvas, ([result], box))[..., ::-1]


def main(folder: Path) -> int:
    """Print how many pixels differ; the exit status is 1 if any does."""
    black, purple = np.zeros(3), cv2.applyColorMap(np.zeros((1, 1), np.uint8), cv2.COLORMAP_VIRIDIS)[0, 0]
    segmentation, parula = DensePoseResultsFineSegmentationVisualizer, cv2.COLORMAP_PARULA
    theirs: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {
        "viton": lambda chart: [drawn_by(segmentation, chart, parula, black)],
        "magicanimate": lambda chart: [drawn_by(segmentation, chart, cv2.COLORMAP_VIRIDIS, purple)],
        "uv": lambda chart: [
            drawn_by(kind, chart, parula, black)
            for kind in (DensePoseResultsUVisualizer, DensePoseResultsVVisualizer)
        ],
    }
    wrong = 0
    for style, draw in theirs.items():
        differing = pixels = 0
        for each in find_maps(folder).maps.values():
            chart = each.chart()
            for ours, other in zip(drawer(style)(chart.transpose(1, 2, 0)), draw(chart), strict=True):
                differing += int((ours != other).any(2).sum())
                pixels += ours.shape[0] * ours.shape[1]
        print(f"{style}: {differing:,} of {pixels:,} pixels differ")
        wrong += differing
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
