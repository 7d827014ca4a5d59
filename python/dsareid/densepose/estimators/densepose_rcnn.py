"""Maps by DensePose R-CNN, from weights that the user has: detectron2's zoo, or a model trained with it.

A picture is taken as a crop of one person, as data sets of re-identification have them: its border is
continued, it is scaled so that the person has about ROWS rows, and the picture itself is the box. The
network's own detector of people is not used.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dsareid.densepose.estimators.base import EstimatedMap
from dsareid.densepose.estimators.rcnn import BGR_MEAN, STRIDE, Heads, build
from dsareid.densepose.estimators.rcnn_file import read_weights
from dsareid.ground.distributed import choose_device
from dsareid.ground.errors import DSAError

ROWS = 320  # of a crop, as the network sees it
BORDER = 0.125  # of a crop's sides, continued on each side
LONGEST = 1333  # pixels of what the network sees, as in detectron2
_ROWS = 64, 1024  # what may be asked for


class RCNN:
    """The estimator.

    Args:
        model: a file of weights, see read_weights.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        rows: of a crop, as the network sees it; more find finer detail, and take longer.

    Raises:
        DSAError: a file that holds no chart model of DensePose R-CNN; a device that does not exist; `rows`
            out of 64..1024.
        OSError: the file cannot be read.
    """

    def __init__(self, model: str | os.PathLike, device: str = "auto", rows: int = ROWS):
        least, most = _ROWS
        if not least <= rows <= most:
            raise DSAError(f"`rows` must be {least}..{most}, not {rows}")
        self.rows, self.device = rows, choose_device(device)
        weights = read_weights(Path(model))
        try:
            network = build(weights)
        except DSAError as error:
            raise DSAError(f"{model}: {error}") from error
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.digest = _digest(weights)

    def __call__(self, image: np.ndarray, uv: bool = True) -> EstimatedMap:
        """The map of a picture, uint8 [H, W, 3] RGB, with U and V as floats or without.

        Every picture goes through the network alone: its map has the same bits whatever is estimated beside
        it.
        """
        height, width = image.shape[:2]
        pixels, box = self._crop(image)
        with torch.inference_mode():
            heads = self.network(pixels, [box])
            labels, floats, sure = read_heads(heads, height, width)
        planes = [labels, *(255 * floats).clamp(0, 255).to(torch.uint8)]
        iuv = torch.stack([plane.to(torch.uint8) for plane in planes], 2).cpu().numpy()
        return EstimatedMap(iuv, floats.clamp(0, 1).cpu().numpy() if uv else None, sure)

    def record(self) -> dict[str, Any]:
        """What made the maps."""
        return {
            "estimator": "densepose-rcnn",
            "weights_sha256": self.digest,
            **self.network.variant._asdict(),
            "rows": self.rows,
            "border": BORDER,
        }

    def _crop(self, image: np.ndarray) -> tuple[Tensor, Tensor]:
        """What the network sees of a crop, (1, 3, H, W), and the crop's box in it, (1, 4)."""
        height, width = image.shape[:2]
        down, right = (round(BORDER * length) for length in (height, width))
        whole = np.pad(image, ((down, down), (right, right), (0, 0)), mode="edge")
        scale = min(self.rows / height, LONGEST / max(whole.shape))
        size = [max(1, round(length * scale)) for length in whole.shape[:2]]
        y, x = (n / m for n, m in zip(size, whole.shape))
        box = [x * right, y * down, x * (right + width), y * (down + height)]
        pixels = network_input(whole, size[0], size[1]).to(self.device)[None]
        return pixels.contiguous(memory_format=torch.channels_last), torch.tensor([box], device=self.device)


def network_input(image: np.ndarray, height: int, width: int) -> Tensor:
    """uint8 [h, w, 3] RGB, scaled to height x width as detectron2 does -> float32 (3, H, W) for the network.

    H and W are the next multiples of STRIDE; what is added is 0, the mean of all pictures.
    """
    scaled = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    bgr = torch.from_numpy(np.ascontiguousarray(scaled[..., ::-1])).permute(2, 0, 1).float()
    bgr -= torch.tensor(BGR_MEAN)[:, None, None]
    return F.pad(bgr, (0, -width % STRIDE, 0, -height % STRIDE))


def read_heads(heads: Heads, height: int, width: int) -> tuple[Tensor, Tensor, float]:
    """The map of one box of height x width pixels, as detectron2's ToChartResultConverter makes it.

    Returns:
        Parts, int64 [h, w], 0 the background; U and V of the pixel's part as the network gives them, which
        may be a little outside of 0..1, float32 [2, h, w], 0 in the background; and how probable a person is
        in the parts' pixels, on average.
    """
    coarse, fine, u, v = (
        F.interpolate(head.float(), (height, width), mode="bilinear", align_corners=False)[0]
        for head in heads
    )
    body = coarse.argmax(0) > 0
    labels = fine.argmax(0) * body
    uv = torch.cat([head.gather(0, labels[None]) for head in (u, v)]) * (labels > 0)
    chance = 1 - coarse.softmax(0)[0]
    return labels, uv, float(chance[labels > 0].mean()) if labels.any() else 0.0


def _digest(weights: dict[str, Tensor]) -> str:
    """Hex SHA-256 of the weights by name: the same whatever file holds them."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].contiguous().numpy().tobytes())
    return found.hexdigest()
