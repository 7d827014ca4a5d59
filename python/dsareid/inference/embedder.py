"""A trained MF-Stream in any of its formats, or another network, as one function from images to features.

embedder = embed("RUN")                     # or MODEL.safetensors, MODEL.onnx
features = embedder(["a.jpg", "b.png"])     # paths, PIL images, arrays of any size -> float32 (N, D)
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm
from typing_extensions import TypeIs

from dsareid.data.any_image import ImageLike
from dsareid.ground.errors import DSAError
from dsareid.ground.machine import cores
from dsareid.inference import other_networks
from dsareid.inference.formats import onnx
from dsareid.inference.formats.table import MODEL_FORMATS
from dsareid.inference.network import PixelNetwork, network_of_run
from dsareid.inference.other_networks import library_of, load_by_name
from dsareid.inference.pixels import read_ahead
from dsareid.inference.settings import AnySettings, Facts, ModelSettings
from dsareid.runs.folder import load_run

BATCH_SIZE = 64  # default number of images at a time
BATCHES_AHEAD = 4  # batches of decoded images in memory


@dataclass(frozen=True, eq=False)
class Embedder:
    """A trained network as a function from images to features; embed() loads one."""

    path: Path
    settings: AnySettings
    device: torch.device
    compute: Callable[[Tensor], Tensor] = field(repr=False)
    """uint8 (B, H, W, 3) of the network's size, on `device` -> float32 (B, D)."""

    @property
    def model(self) -> str:
        """The model's identity: the same for a run and every file exported from it."""
        return self.settings.model

    @property
    def dimension(self) -> int:
        """D, the length of a feature."""
        return self.settings.dimension

    def __call__(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
    ) -> Tensor:
        """Features of one image or of several, computed in batches.

        Args:
            images: an image, or a list or other iterable of images: paths of image files, PIL images, uint8
                [h, w, 3] RGB, of any size. They are resized as in evaluation. Or a batch, uint8 (N, H, W, 3)
                of the network's size, on any device.
            batch_size: images at a time.
            progress: whether to show a progress bar.

        Returns:
            float32 (N, D) on the CPU, [f_G, f_L], each L2-normalised, or another network's feature,
            L2-normalised; Euclidean distances compare them.

        Raises:
            DSAError: a file that cannot be read, or batch_size is below 1.
            ValueError: `images` holds something else, or nothing.
        """
        check_batch_size(batch_size)
        if getattr(images, "ndim", 0) == 4:
            found = list(self._of_batch(images, batch_size))
        elif _is_one_image(images):
            found = list(self._of_several([images], batch_size, progress))
        elif not isinstance(images, Iterable):
            raise ValueError(f"images must be an image or an iterable of images, not {type(images).__name__}")
        else:
            found = list(self._of_several(images, batch_size, progress))
        if not found:
            raise ValueError("images must hold at least one image")
        return torch.cat(found)

    def batches(self, pixels: Iterable[np.ndarray], batch_size: int) -> Iterator[Tensor]:
        """The features of each batch, float32 (B, D); `pixels` are uint8 [H, W, 3] of the network's size."""
        remaining = iter(pixels)
        while batch := list(itertools.islice(remaining, batch_size)):
            yield self._features(torch.from_numpy(np.stack(batch)))

    def _of_several(self, images: Iterable[ImageLike], batch_size: int, progress: bool) -> Iterator[Tensor]:
        total = len(images) if isinstance(images, (list, tuple)) else None
        size = self.settings.height, self.settings.width
        decoded = read_ahead(images, *size, threads=cores(), ahead=BATCHES_AHEAD * batch_size)
        hidden = None if progress else True
        with (
            contextlib.closing(decoded),
            tqdm(total=total, desc="features", unit="image", leave=False, disable=hidden) as bar,
        ):
            for features in self.batches(map(_readable, decoded), batch_size):
                bar.update(len(features))
                yield features

    def _of_batch(self, batch: Any, batch_size: int) -> Iterator[Tensor]:
        """Features of images in one array, copied a part at a time, because it may be memory-mapped."""
        if not isinstance(batch, np.ndarray):
            batch = torch.as_tensor(batch)
        size = (self.settings.height, self.settings.width, 3)
        kind = str(batch.dtype).removeprefix("torch.")
        if kind != "uint8" or tuple(batch.shape[1:]) != size or not len(batch):
            raise ValueError(
                f"a batch of images must be uint8 (B, {size[0]}, {size[1]}, 3), not {kind} "
                f"{list(batch.shape)}; give images of other sizes as a list"
            )
        for start in range(0, len(batch), batch_size):
            part = batch[start : start + batch_size]
            yield self._features(
                part if isinstance(part, Tensor) else torch.from_numpy(np.array(part, order="C"))
            )

    @torch.inference_mode()
    def _features(self, batch: Tensor) -> Tensor:
        # Contiguous: another memory layout would sum in another order and give other bits.
        return self.compute(batch.to(self.device).contiguous()).cpu()


def embed(
    path: str | os.PathLike,
    device: str = "auto",
    *,
    trust: bool = False,
    facts: Facts | None = None,
    remembered: Facts | None = None,
) -> Embedder:
    """Load a trained network: the function from images to features.

    A run's folder, a .safetensors and a .onnx file may come from anywhere: they hold tensors, or a graph of
    operators that can only compute. A .pt2 file can run code when it is loaded, so it must be trusted.

    Args:
        path: a run's folder, or a file that dsareid export wrote. Or another network: any .onnx file, or
            timm:NAME or torchvision:NAME.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        trust: also load a file that can run code; only for files whose origin you trust.
        facts: of another network, what neither its file nor its library says, such as the size of its input.
        remembered: of another network, what takes the place of `facts` if they are None: what a folder of its
            features says.

    Raises:
        DSAError: `path` does not exist, is no model file, lacks its settings or was altered; a .pt2 file
            without `trust`, a run without an MF-Stream, a missing package, a device that does not exist;
            facts of a network that has its own, or that another one does not fit.
    """
    others, facts = facts or remembered or Facts(), facts or Facts()
    name, path = os.fspath(path), Path(path)
    if library_of(name):
        return Embedder(path, *load_by_name(name, device, others))
    if path.suffix == ".onnx" and path.is_file():
        session = onnx.open_session(path, device)
        if onnx.settings_text(path, session) is None:
            return Embedder(path, *other_networks.load_session(path, session, others))
        _check_no_facts(path, facts)
        loaded = onnx.load_session(path, session)
        if isinstance(loaded.settings, ModelSettings) and loaded.settings.convention == "ultralytics":
            raise DSAError(f"{path}: takes crops stretched to squares, for ultralytics: export one without")
        return Embedder(path, *loaded)
    if path.exists():
        _check_no_facts(path, facts)
    if path.is_dir():
        settings, model = network_of_run(load_run(path, device), path)
        return Embedder(path, settings, next(model.parameters()).device, PixelNetwork(model))
    if not path.exists() or path.suffix not in MODEL_FORMATS:
        raise DSAError(
            f"{path}: {'not a model' if path.exists() else 'no such file'}; expected a run's folder, a "
            f"{', '.join(MODEL_FORMATS)} file that dsareid export wrote, any .onnx file, timm:NAME or "
            "torchvision:NAME"
        )
    chosen = MODEL_FORMATS[path.suffix]
    if chosen.runs_code and not trust:
        raise DSAError(
            f"{path}: a {path.suffix} file can run code when it is loaded. Use .safetensors or .onnx of the "
            "same run; or `trust=True`, if you trust the file's origin"
        )
    try:
        return Embedder(path, *chosen.load(path, device))
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_no_facts(path: Path, facts: Facts) -> None:
    if facts.stated:
        stated = ", ".join(f"`{name}`" for name in facts.model_dump(exclude_none=True))
        raise DSAError(f"{path} knows its own input: leave out {stated}, which other networks need")


def check_batch_size(batch_size: int) -> None:
    """Raise DSAError if batch_size is below 1."""
    if batch_size < 1:
        raise DSAError(f"`batch_size` must be at least 1, not {batch_size}")


def _is_one_image(images: ImageLike | Iterable[ImageLike]) -> TypeIs[ImageLike]:
    return isinstance(images, (str, os.PathLike, Image.Image, np.ndarray, Tensor))


def _readable(image: np.ndarray | DSAError) -> np.ndarray:
    if isinstance(image, DSAError):
        raise image
    return image
