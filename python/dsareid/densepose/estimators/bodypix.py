"""Maps by BodyPix 2.0, whose head of part offsets holds DensePose's U and V (see body_parts).

The network sees a picture at several sizes, each also mirrored, and its outputs are averaged. The threshold
of the mask follows how sure the network gets of a person in this picture: at a fixed one half, masks are too
wide for people who are seen well, and broken for those who are not. The network pulls U and V to the middle
of their charts; a linear map for each chart stretches them again. studies/estimator says how these settings
were chosen.
"""

import os
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dsareid.data.map_notes import note_digest
from dsareid.densepose.estimators.base import EstimatedMap
from dsareid.densepose.estimators.body_parts import PARTS, mirror_heads
from dsareid.densepose.estimators.calibration import GAIN, SHIFT
from dsareid.densepose.estimators.people_apart import mirror_toward, tell_apart, toward_middle
from dsareid.densepose.estimators.weights import LICENCE, NAME, ORIGIN, SHARD_SHA256, load_network
from dsareid.ground.distributed import choose_device

Quality = Literal["default", "best"]
People = Literal["all", "one"]


class BodyPixSettings(NamedTuple):
    """How the network sees a picture."""

    sides: tuple[int, ...]  # the longer side of what the network sees, in pixels
    threshold: float = 0.64  # of a pixel's probability of a person, relative to that of the surer pixels
    mirrored: bool = True  # whether it sees the mirror image too


SETTINGS: dict[Quality, BodyPixSettings] = {
    "default": BodyPixSettings((257, 385)),
    "best": BodyPixSettings((257, 321, 385, 449, 513)),
}
LONGEST = 640  # of a picture's sides; a longer one is made smaller, and its map larger again
NOBODY = 0.5  # if no pixel has this probability of a person, nobody is in the picture
_BOUNDS = 0.25, 0.75  # of the threshold
_OUTPUTS = ("float_segments", "float_part_heatmaps", "float_part_offsets")
_LONG, _LONG_SIDE = "float_long_offsets", 385  # the head for tell_apart, and the side at which it is read
_STRIDE = 16


class BodyPix:
    """The estimator.

    Args:
        weights: a folder; None: see estimators.weights.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        quality: default, for thirty crops of 64x128 a second on two cores, or best.
        people: "all" of a picture, or "one": the largest and most central (see tell_apart).

    Raises:
        DSAError: no weights, or those of another network; a device that does not exist.
        ValueError: a quality or people that do not exist.
    """

    def __init__(
        self,
        weights: str | os.PathLike | None = None,
        device: str = "auto",
        quality: Quality = "default",
        people: People = "all",
    ):
        for name, value, known in (("quality", quality, Quality), ("people", people, People)):
            if value not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
        self.quality, self.people, self.settings = quality, people, SETTINGS[quality]
        self.device = choose_device(device)
        self.network = load_network(weights, (*_OUTPUTS, _LONG)).to(self.device)

    def __call__(self, image: np.ndarray, uv: bool = True, boxes: np.ndarray | None = None) -> EstimatedMap:
        """The map of a picture, uint8 [H, W, 3] RGB, with U and V as floats or without.

        Every picture goes through the network alone, with its mirror image: so its map has the same bits
        whatever is estimated before, beside or after it.

        Raises:
            ValueError: `boxes`, which BodyPix does not take.
        """
        if boxes is not None:
            raise ValueError("boxes are for a model of DensePose R-CNN, not for BodyPix")
        height, width = image.shape[:2]
        if max(height, width) <= LONGEST:
            found = self._estimate(image)
            return found if uv else found._replace(uv=None)
        scale = LONGEST / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = self._estimate(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX)))
        rows, columns = (np.arange(n) * m // n for n, m in zip((height, width), small.iuv.shape))
        large = np.ix_(rows, columns)
        floats = np.stack([plane[large] for plane in small.uv]) if uv and small.uv is not None else None
        instances = None if small.instances is None else small.instances[large]
        return small._replace(iuv=small.iuv[large], uv=floats, instances=instances)

    def record(self) -> dict[str, Any]:
        """What made the maps."""
        return {
            "estimator": "bodypix",
            "network": NAME,
            "origin": ORIGIN,
            "licence": LICENCE,
            "weights_sha256": SHARD_SHA256,
            "quality": self.quality,
            "people": self.people,
            **self.settings._asdict(),
            "calibration": note_digest(GAIN.tobytes() + SHIFT.tobytes()),
        }

    @torch.inference_mode()
    def _estimate(self, image: np.ndarray) -> EstimatedMap:
        pixels = torch.from_numpy(np.array(image)).to(self.device)
        scaled = pixels.permute(2, 0, 1)[None].float() / 127.5 - 1  # (1, 3, H, W)
        both = torch.cat([scaled, scaled.flip(3)]) if self.settings.mirrored else scaled
        heads = toward = torch.zeros((), device=self.device)
        for side in self.settings.sides:
            outputs = self._look(both, side)
            heads = heads + self._heads(outputs, both.shape[2:])
            if side == min(self.settings.sides, key=lambda x: abs(x - _LONG_SIDE)):
                toward = self._toward(outputs[_LONG], both.shape[2:])
        return self._map(heads / len(self.settings.sides), toward)

    def _look(self, both: Tensor, side: int) -> dict[str, Tensor]:
        """The network's outputs for the picture and its mirror image at one size."""
        scale = side / max(both.shape[2:])
        size = [max(1, round(length * scale / _STRIDE)) * _STRIDE + 1 for length in both.shape[2:]]
        seen = F.interpolate(both, size, mode="bicubic", antialias=True).clamp(-1, 1)
        return self.network(seen.contiguous(memory_format=torch.channels_last))

    def _heads(self, outputs: dict[str, Tensor], size: Sequence[int]) -> Tensor:
        """The heads, (73, H, W), the mean of the picture and its mirror image."""
        segments, parts, offsets = (outputs[name] for name in _OUTPUTS)
        heads = torch.cat([segments.sigmoid(), parts, offsets[:, 0::2], offsets[:, 1::2]], 1)
        full = F.interpolate(heads, size, mode="bilinear", align_corners=True)
        return (full[0] + mirror_heads(full[1])) / 2 if len(full) > 1 else full[0]

    def _toward(self, long_offsets: Tensor, size: Sequence[int]) -> Tensor:
        """The way from each pixel to its person's middle, (2, H, W)."""
        toward = toward_middle(long_offsets, size, _STRIDE)
        full = F.interpolate(toward, size, mode="bilinear", align_corners=True)
        return (full[0] + mirror_toward(full[1])) / 2 if len(full) > 1 else full[0]

    def _threshold(self, segments: Tensor) -> float:
        """The least probability of a person in a pixel of the mask; more than 1 if nobody is seen.

        It follows the picture, because the network is less sure of dark or blurred people.
        """
        if segments.max() < NOBODY:
            return 2.0
        surer = segments[segments > _BOUNDS[0]].quantile(0.8)
        least, most = _BOUNDS
        return min(max(self.settings.threshold * float(surer), least), most)

    def _map(self, heads: Tensor, toward: Tensor) -> EstimatedMap:
        """The map of everybody or of the main person, from averaged heads."""
        segments, parts, u, v = heads.split([1, 24, 24, 24])
        part = parts.argmax(0, keepdim=True)  # [1, H, W]
        everybody = segments > self._threshold(segments)
        whose = tell_apart(everybody[0], toward)
        one = self.people == "one"
        body = (whose == 1)[None] if one else everybody
        others = 1 - float(body.sum()) / max(float(everybody.sum()), 1) if everybody.any() else 0.0
        labels = torch.tensor(PARTS, device=self.device)[part] * body
        uv = torch.cat([u.gather(0, part), v.gather(0, part)])  # [2, H, W]
        gain, shift = (torch.from_numpy(table).to(self.device)[:, part[0]] for table in (GAIN, SHIFT))
        uv = (0.5 + gain * (uv - 0.5) + shift).clamp(0, 1) * body
        iuv = torch.cat([labels, (255 * uv).floor().long()]).byte().permute(1, 2, 0)
        instances = None if one else whose.byte().cpu().numpy()
        return EstimatedMap(iuv.cpu().numpy(), uv.cpu().numpy(), float(segments.max()), others, instances)
