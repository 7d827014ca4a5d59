"""Maps by DensePose R-CNN, from weights that the user has: detectron2's zoo, or a model trained with it.

A picture is taken as a crop of one person, as data sets of re-identification have them: its border is
continued, it is scaled so that the person has about ROWS rows, and the picture itself is the box. Or it is a
photograph, in which the network's own detector finds people.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.ops import box_area, clip_boxes_to_image

from dsareid.densepose.estimators.base import EstimatedMap
from dsareid.densepose.estimators.batcher import Batcher
from dsareid.densepose.estimators.bodypix import People
from dsareid.densepose.estimators.rcnn import BYTES, STRIDE, Heads, Look
from dsareid.densepose.estimators.rcnn_file import read_weights
from dsareid.densepose.estimators.rcnn_names import build, own_name
from dsareid.densepose.people import MIN_SCORE, best_person
from dsareid.ground.distributed import choose_device
from dsareid.ground.errors import DSAError, logger

ROWS = 320  # of a crop, as the network sees it
BORDER = 0.125  # of a crop's sides, continued on each side
SHORTEST, LONGEST = 800, 1333  # sides of a photograph as the network sees it, as in detectron2
MOST_TOGETHER = 32  # crops that go through the network at once, on CUDA
_ROWS = 64, 1024  # what may be asked for


class RCNN:
    """The estimator.

    Args:
        model: a file of weights, see read_weights; or the weights themselves, by detectron2's names.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        rows: of a crop, as the network sees it; more find finer detail, and take longer.
        detect: take pictures as photographs, and find people in them.
        people: with `detect`: everybody, or "one", by choose_person's rule.
        bfloat16: compute most of the network in bfloat16, see DensePoseRCNN.use_bfloat16.

    Raises:
        DSAError: a file that holds no chart model of DensePose R-CNN; a device that does not exist; `rows`
            out of 64..1024.
        OSError: the file cannot be read.
        ValueError: people that do not exist.
    """

    def __init__(
        self,
        model: str | os.PathLike | dict[str, Tensor],
        device: str = "auto",
        rows: int = ROWS,
        detect: bool = False,
        people: People = "all",
        bfloat16: bool = False,
    ):
        if people not in get_args(People):
            raise ValueError(f"people must be one of {', '.join(get_args(People))}, not {people!r}")
        self.detect, self.people = detect, people
        least, most = _ROWS
        if not least <= rows <= most:
            raise DSAError(f"`rows` must be {least}..{most}, not {rows}")
        self.rows, self.device = rows, choose_device(device)
        weights = model if isinstance(model, dict) else read_weights(Path(model))
        try:
            network = build(weights)
        except DSAError as error:
            raise error if isinstance(model, dict) else DSAError(f"{model}: {error}") from error
        if bfloat16:
            network.use_bfloat16()
            if self.device.type == "cpu" and not _has_bfloat16():
                logger.warning("this processor has no instructions for bfloat16: `bfloat16` makes it slower")
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        # On a processor each thread computes a crop of its own: a batch gains nothing, and they would wait.
        self.together = Batcher(self._crop_heads, MOST_TOGETHER) if self.device.type == "cuda" else None
        self.digest = _digest({name: x for name, x in weights.items() if own_name(name) is not None})

    def __call__(self, image: np.ndarray, uv: bool = True, boxes: np.ndarray | None = None) -> EstimatedMap:
        """The map of a picture, uint8 [H, W, 3] RGB, with U and V as floats or without.

        On a processor every picture goes through the network alone: its map has the same bits whatever is
        estimated beside it. On CUDA crops of several threads go together, and the last bits depend on that.

        Args:
            boxes: of the people in a photograph, in place of the detector's: see Estimator. What lies outside
                of the photograph is cut off.

        Raises:
            ValueError: `boxes` of pictures that are taken as crops.
        """
        if boxes is not None and not self.detect:
            raise ValueError("boxes are for photographs; load the estimator with detect=True")
        with torch.inference_mode():
            found = self._photograph_map(image, boxes) if self.detect else self._crop_map(image)
        return found if uv else found._replace(uv=None)

    def record(self) -> dict[str, Any]:
        """What made the maps."""
        seen: dict[str, Any] = {"rows": self.rows, "border": BORDER}
        if self.detect:
            seen = {"shortest": SHORTEST, "longest": LONGEST, "min_score": MIN_SCORE, "people": self.people}
        return {
            "estimator": "densepose-rcnn",
            "weights_sha256": self.digest,
            **self.network.variant._asdict(),
            **seen,
            **({"bfloat16": True} if self.network.kind == torch.bfloat16 else {}),
        }

    def _crop_map(self, image: np.ndarray) -> EstimatedMap:
        crop = self._crop(image)
        heads = self.together(crop[0].shape, crop) if self.together else self._crop_heads([crop])[0]
        labels, floats, sure = read_heads(heads, *image.shape[:2])
        return _map_of(labels, floats, sure)

    def _crop_heads(self, crops: list[tuple[Tensor, Tensor]]) -> list[Heads]:
        """The heads of crops of one size, (1, C, h, w) of each."""
        pictures, boxes = zip(*crops)
        with torch.inference_mode():  # which a thread has for itself
            pixels = torch.cat(pictures).contiguous(memory_format=torch.channels_last)
            heads = self.network(pixels, boxes)
        return [Heads(*(head[k : k + 1] for head in heads)) for k in range(len(crops))]

    def _photograph_map(self, image: np.ndarray, given: np.ndarray | None) -> EstimatedMap:
        """The map of the people in a photograph; where they overlap, of the one with the better score."""
        size = image.shape[:2]
        seen = photograph_size(*size)
        pixels = network_input(image, *seen, self.network.plan.look).to(self.device)[None]
        levels = self.network.levels(pixels.contiguous(memory_format=torch.channels_last))
        scale = pixels.new_tensor([size[1] / seen[1], size[0] / seen[0]] * 2)
        if given is None:
            boxes, scores = self.network.detector(levels, *seen)
            own = clip_boxes_to_image(boxes * scale, size)  # in the picture's pixels
        else:
            best_first = pixels.new_tensor(given[np.argsort(-given[:, 4], kind="stable")])
            own, scores = clip_boxes_to_image(best_first[:, :4], size), best_first[:, 4]
            boxes = own / scale
        shares = box_area(own) / (size[0] * size[1])
        there = (shares > 0).nonzero()[:, 0]
        kept, main = _chosen(shares[there].tolist(), scores[there].tolist())
        rows = there[kept]
        canvas = _Canvas(size, self.device)
        if kept:
            heads = self.network.heads(levels, [boxes[rows]])
            for number, box in enumerate(own[rows].tolist()):
                canvas.add(box, Heads(*(head[number : number + 1] for head in heads)))
        others, instances = 0.0, None
        if self.people == "all":
            instances = canvas.instances.to(torch.uint8).cpu().numpy()
        elif main is not None:
            others = canvas.keep(main)
        found = _map_of(canvas.labels, canvas.uv, max(scores[rows].tolist(), default=0.0))
        unsure = main is not None and float(scores[rows][main]) < MIN_SCORE
        return found._replace(others=others, instances=instances, unsure=unsure)

    def _crop(self, image: np.ndarray) -> tuple[Tensor, Tensor]:
        """What the network sees of a crop, (1, 3, H, W), and the crop's box in it, (1, 4)."""
        height, width = image.shape[:2]
        down, right = (round(BORDER * length) for length in (height, width))
        whole = np.pad(image, ((down, down), (right, right), (0, 0)), mode="edge")
        scale = min(self.rows / height, LONGEST / max(whole.shape))
        size = [max(1, round(length * scale)) for length in whole.shape[:2]]
        y, x = (n / m for n, m in zip(size, whole.shape))
        box = [x * right, y * down, x * (right + width), y * (down + height)]
        pixels = network_input(whole, size[0], size[1], self.network.plan.look).to(self.device)[None]
        return pixels, torch.tensor([box], device=self.device)


class _Canvas:
    """The map of a photograph while people are painted into it, the first one uppermost."""

    def __init__(self, size: tuple[int, ...], device: torch.device):
        self.labels = torch.zeros(size, dtype=torch.int64, device=device)
        self.uv = torch.zeros((2, *size), device=device)
        self.instances = torch.zeros_like(self.labels)  # 1, 2, ... in the order of painting
        self.count = 0

    def add(self, box: list[float], heads: Heads) -> None:
        """Paint one person; the box, left, top, right, bottom, lies in the picture."""
        self.count += 1
        x, y, right, bottom = box
        height, width = max(int(bottom - y), 1), max(int(right - x), 1)  # as detectron2 cuts boxes
        labels, uv, _ = read_heads(heads, height, width)
        rows, columns = slice(int(y), int(y) + height), slice(int(x), int(x) + width)
        new = (labels > 0) & (self.labels[rows, columns] == 0)
        for canvas, painted in ((self.labels, labels), (self.instances, torch.full_like(labels, self.count))):
            canvas[rows, columns] = torch.where(new, painted, canvas[rows, columns])
        self.uv[:, rows, columns] = torch.where(new, uv, self.uv[:, rows, columns])

    def keep(self, number: int) -> float:
        """Leave one person, counted from 0; returns the share of the others among the people's pixels."""
        mine, people = self.instances == number + 1, float((self.labels > 0).sum())
        self.labels, self.uv, self.instances = self.labels * mine, self.uv * mine, mine.long()
        return 1 - float(mine.sum()) / people if people else 0.0


def _chosen(shares: list[float], scores: list[float]) -> tuple[list[int], int | None]:
    """Who is in the map, the best score first, and which of them is the main person; None: nobody."""
    main = best_person(list(zip(shares, scores)), MIN_SCORE)
    kept = [k for k, score in enumerate(scores) if score >= MIN_SCORE or k == main]
    return kept, None if main is None else kept.index(main)


def _map_of(labels: Tensor, floats: Tensor, sure: float) -> EstimatedMap:
    """Parts [H, W], and U and V [2, H, W], as a map."""
    planes = [labels, *(255 * floats).clamp(0, 255)]
    iuv = torch.stack([plane.to(torch.uint8) for plane in planes], 2)
    return EstimatedMap(iuv.cpu().numpy(), floats.clamp(0, 1).cpu().numpy(), sure)


def photograph_size(height: int, width: int) -> tuple[int, int]:
    """Height and width at which the network sees a photograph (detectron2's ResizeShortestEdge)."""
    scale = SHORTEST / min(height, width)
    size = [SHORTEST if length == min(height, width) else scale * length for length in (height, width)]
    if max(size) > LONGEST:
        size = [length * LONGEST / max(size) for length in size]
    return int(size[0] + 0.5), int(size[1] + 0.5)


def network_input(image: np.ndarray, height: int, width: int, look: Look = BYTES) -> Tensor:
    """uint8 [h, w, 3] RGB, scaled to height x width as detectron2 does -> float32 (3, H, W) for the network.

    H and W are the next multiples of STRIDE; what is added is 0, the mean of all pictures.
    """
    scaled = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    ordered = np.array(scaled[..., ::-1] if look.bgr else scaled, order="C")
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (look.mean, look.std))
    pixels = (torch.from_numpy(ordered).permute(2, 0, 1).float() - mean) / std
    return F.pad(pixels, (0, -width % STRIDE, 0, -height % STRIDE))


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


def _has_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _digest(weights: dict[str, Tensor]) -> str:
    """Hex SHA-256 of the weights by name: the same whatever file holds them."""
    found = hashlib.sha256()
    for name in sorted(weights):
        found.update(name.encode())
        found.update(weights[name].contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
