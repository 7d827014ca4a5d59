"""The part of a model that inference uses: the MF-Stream, from uint8 pixels to features."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsareid.ground.errors import DSAError
from dsareid.inference.formats.base import Convention, ExportPrecision
from dsareid.inference.settings import ModelSettings
from dsareid.models import DSAReID
from dsareid.models.options import MEAN, RESNET, STD
from dsareid.runs.folder import Run


class PixelNetwork(nn.Module):
    """An MF-Stream with the normalisation before it, on the model's device: what is run and exported."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: DSAReID, precision: ExportPrecision = "float32"):
        super().__init__()
        self.dtype: torch.dtype = getattr(torch, precision)
        self.model = model.to(self.dtype).eval().requires_grad_(False)
        device = next(model.parameters()).device
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None].to(device), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, D)."""
        x = image.permute(0, 3, 1, 2).float()  # a view in channels_last, in which convolutions are fast
        return self.model(((x / 255 - self.mean) / self.std).to(self.dtype))


class NormalisedNetwork(PixelNetwork):
    """The same for images as torchreid and boxmot prepare them."""

    def forward(self, image: Tensor) -> Tensor:
        """float32 (B, 3, H, W), normalised -> float32 (B, D)."""
        return self.model(image)


class SquareNetwork(PixelNetwork):
    """The same for crops as ultralytics prepares them: the square is squeezed to H x W again.

    Args:
        width: the network's.
    """

    def __init__(self, model: DSAReID, width: int):
        super().__init__(model)
        self.width = width

    def forward(self, image: Tensor) -> Tensor:
        """float32 (B, 3, H, H), 0..1 -> float32 (B, D)."""
        x = F.interpolate(image, (image.shape[2], self.width), mode="bilinear", antialias=False)
        return self.model((x - self.mean) / self.std)


def network_by_convention(model: DSAReID, settings: ModelSettings) -> PixelNetwork:
    """The network that a convention's graph is traced from, in the settings' precision."""
    if settings.convention == "torchreid":
        return NormalisedNetwork(model, settings.precision)
    if settings.convention == "ultralytics":
        return SquareNetwork(model, settings.width)
    return PixelNetwork(model, settings.precision)


def prepare(images: Tensor, convention: Convention) -> Tensor:
    """Images, uint8 (B, H, W, 3), as a convention's graph takes them."""
    if convention == "dsareid":
        return images
    x = images.permute(0, 3, 1, 2).float() / 255
    if convention == "torchreid":
        mean, std = (torch.tensor(values, device=x.device)[:, None, None] for values in (MEAN, STD))
        return ((x - mean) / std).contiguous()
    return F.interpolate(x, (x.shape[2], x.shape[2]), mode="bilinear")


def network_of_run(run: Run, path: Path) -> tuple[ModelSettings, DSAReID]:
    """The settings and the model of a run; the parts that inference does not use are dropped from the model.

    Args:
        path: the run's folder, for messages.

    Raises:
        DSAError: the run has no MF-Stream.
    """
    config, model = run.config, run.model
    if model.mf is None:
        raise DSAError(
            f"{path}: model {config.model} has no MF-Stream: its features need IUV maps, so it cannot be "
            "exported or used on images alone"
        )
    weights = inference_weights(model)
    drop_unused(model, weights)
    with torch.inference_mode():
        device = next(model.parameters()).device
        dimension = model(torch.zeros(1, 3, config.height, config.width, device=device)).shape[1]
    network = config.network
    settings = ModelSettings(
        model="0" * 16,
        height=config.height,
        width=config.width,
        dimension=dimension,
        branches=config.branches,
        trunk=network.trunk,
        trunk_stage=network.trunk_stage,
        network_width=network.width,
        head_width=network.head_width,
        depths=network.depths,
        classifier=network.classifier,
    )
    return settings.model_copy(update={"model": identity(settings, weights)}), model


def empty_model(settings: ModelSettings) -> DSAReID:
    """The model that settings describe, on the meta device: nothing is allocated yet. With a timm trunk it is
    on the CPU, because timm's networks have tables that no state dict holds.

    Raises:
        DSAError: timm is missing, or does not have this trunk.
    """
    with torch.device("meta" if settings.trunk == RESNET else "cpu"):
        return DSAReID(
            1,
            streams="mf",
            branches=settings.branches,
            trunk=settings.trunk,
            trunk_stage=settings.trunk_stage,
            width=settings.network_width,
            head_width=settings.head_width,
            depths=settings.depths,
            classifier_kind=settings.classifier,
        ).eval()


def identity(settings: ModelSettings, weights: Mapping[str, Tensor]) -> str:
    """16 hex digits that identify a model: a hash of its weights and of the settings that matter."""
    decides = {"height", "width", "branches", "network_width", "head_width", "depths", "classifier"}
    if settings.trunk != RESNET:
        decides |= {"trunk", "trunk_stage"}
    digest = hashlib.sha256(json.dumps(settings.model_dump(include=decides), sort_keys=True).encode())
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {list(weight.shape)}".encode())
        digest.update(weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def inference_weights(model: DSAReID) -> dict[str, Tensor]:
    """The weights that inference uses, by their names in the model: those of the layers that it calls, and of
    the modules that contain such layers (a ViT's position embedding)."""
    called: set[nn.Module] = set()
    hooks = [
        module.register_forward_hook(lambda module, *_: called.add(module)) for module in model.modules()
    ]
    like = next(model.parameters())
    with torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32, dtype=like.dtype, device=like.device))
    for hook in hooks:
        hook.remove()
    return {
        f"{prefix}.{name}": weight
        for prefix, module in model.named_modules()
        if any(inner in called for inner in module.modules())
        for name, weight in (*module._parameters.items(), *module._buffers.items())
        if weight is not None and weight.is_floating_point()
    }


def drop_unused(model: DSAReID, names: Iterable[str]) -> None:
    """Drop the parts of a model that have none of these weights: guiding stream, fusion, classifiers."""
    names = tuple(names)
    for prefix, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            begin = f"{prefix}.{name}.".lstrip(".")
            if next(child.parameters(), None) is not None and not any(x.startswith(begin) for x in names):
                setattr(module, name, None)
