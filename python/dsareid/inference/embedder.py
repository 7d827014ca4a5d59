"""A trained MF-Stream in any of its forms, as one function from images to features.

    embed = load_embedder("RUN")            # or MODEL.safetensors, MODEL.onnx, MODEL.pt2
    features = embed(images)                # uint8 (B, H, W, 3) -> float32 (B, D)

Files come from anywhere: nothing in one is run before it has been checked (see load_embedder).
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dsareid.engine import Run
from dsareid.ground.errors import DSAError, first_problem
from dsareid.inference.pt2 import read_pt2
from dsareid.models import DSAReID
from dsareid.models.features import Branches
from dsareid.models.heads import ClassifierKind
from dsareid.models.options import MEAN, STD
from dsareid.runs.folder import choose_device, load_run

METADATA = "dsareid"
"""Under this name a file holds its settings, as JSON."""

FORMS = "a run's folder, or a .safetensors, .onnx or .pt2 file that dsareid export wrote"

Precision = Literal["float32", "bfloat16"]
_Side = Annotated[int, Field(ge=32, le=4096)]
_Depth = Annotated[int, Field(ge=1, le=100)]


class Settings(BaseModel):
    """What a file says about its network."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["dsareid MF-Stream"] = "dsareid MF-Stream"
    version: Literal[1] = 1
    model: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """The model's identity, see identity()."""
    height: _Side
    width: _Side
    dimension: Annotated[int, Field(ge=1, le=1 << 20)]
    precision: Precision = "float32"
    """What the network computes in; images and features are the same in both."""
    image: str = (
        "uint8 (B, height, width, 3) RGB, resized to this size bilinearly as Pillow does; "
        "normalised inside of the network"
    )
    features: str = "float32 (B, dimension): f_G and f_L of the MF-Stream, each L2-normalised, side by side"
    branches: Branches
    network_width: Annotated[float, Field(gt=0, le=8, multiple_of=1 / 64)]
    head_width: Annotated[float, Field(gt=0, le=8, multiple_of=1 / 32)]
    depths: tuple[_Depth, _Depth, _Depth, _Depth]
    classifier: ClassifierKind


@dataclass(frozen=True, eq=False)
class Embedder:
    """A network from images to features."""

    path: Path
    settings: Settings
    device: torch.device
    compute: Callable[[Tensor], Tensor] = field(repr=False)

    @property
    def model(self) -> str:
        """The model's identity: the same for a run and all that was exported from it."""
        return self.settings.model

    @property
    def dimension(self) -> int:
        """D of the features."""
        return self.settings.dimension

    @torch.inference_mode()
    def __call__(self, images: Tensor | np.ndarray) -> Tensor:
        """Features of some images.

        Args:
            images: uint8 (B, H, W, 3) RGB of the network's size, B at least 1, on any device.

        Returns:
            float32 (B, D) on the CPU, [f_G, f_L], each L2-normalised; Euclidean distances compare them.

        Raises:
            ValueError: images of another type or shape.
        """
        images = torch.as_tensor(images)
        size = (self.settings.height, self.settings.width, 3)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != size or not len(images):
            raise ValueError(
                f"images must be uint8 (B, {size[0]}, {size[1]}, 3), not {images.dtype} {list(images.shape)}"
            )
        return self.compute(images.to(self.device)).cpu()


class Network(nn.Module):
    """What is exported: an MF-Stream with its normalisation."""

    def __init__(self, model: DSAReID, precision: Precision = "float32"):
        super().__init__()
        self.dtype = getattr(torch, precision)
        self.model = model.to(self.dtype).eval().requires_grad_(False)
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, D)."""
        x = image.permute(0, 3, 1, 2).float()  # channels_last as it lies, in which convolutions are fast
        return self.model(((x / 255 - self.mean) / self.std).to(self.dtype))


def load_embedder(path: str | os.PathLike, device: str = "auto") -> Embedder:
    """Load a trained MF-Stream.

    A file may come from anywhere. A checkpoint and a .safetensors file hold tensors alone; a .onnx file is
    a graph of operators, which onnxruntime computes and which can do nothing else. A .pt2 file can hold
    pickles, compiled libraries and expressions that torch.export.load would run: one with anything but the
    operators of our own network and plain tensors is refused before torch sees it.

    Args:
        path: a run's folder, or a file that dsareid export wrote.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.

    Raises:
        DSAError: nothing there, another kind of file, one without our settings or that was altered, a run
            without an MF-Stream, a package that is missing, a device that does not exist.
    """
    path = Path(path)
    if path.is_dir():
        settings, model = inference_model(load_run(path, device), path)
        return Embedder(path, settings, next(model.parameters()).device, on_images(model))
    readers = {".safetensors": _load_safetensors, ".onnx": _load_onnx, ".pt2": _load_pt2}
    if not path.exists() or path.suffix not in readers:
        raise DSAError(f"{path}: {'not a model' if path.exists() else 'no such file'}; expected {FORMS}")
    with _said(path):
        return readers[path.suffix](path, device)


def inference_model(run: Run, path: Path) -> tuple[Settings, DSAReID]:
    """What is to be known of the model of a run, and the model, which loses all that inference does not use.

    Raises:
        DSAError: the run has no MF-Stream.
    """
    config, model = run.config, run.model
    if model.mf is None:
        raise DSAError(
            f"{path}: --model {config.model} has no MF-Stream: its features need IUV maps, so it cannot be "
            "exported or used on images alone"
        )
    weights = weights_of(model)
    _drop_others(model, weights)
    with torch.inference_mode():
        like = next(model.parameters())
        dimension = model(torch.zeros(1, 3, config.height, config.width, device=like.device)).shape[1]
    network = config.network
    settings = Settings(
        model="0" * 16,
        height=config.height,
        width=config.width,
        dimension=dimension,
        branches=config.branches,
        network_width=network.width,
        head_width=network.head_width,
        depths=network.depths,
        classifier=network.classifier,
    )
    return settings.model_copy(update={"model": identity(settings, weights)}), model


def on_images(model: DSAReID, precision: Precision = "float32") -> Network:
    """A model that takes images as they are, on the model's device."""
    return Network(model, precision).to(next(model.parameters()).device)


def identity(settings: Settings, weights: dict[str, Tensor]) -> str:
    """16 hex digits that stand for a model: of what decides about its features, and its float32 weights."""
    decides = {"height", "width", "branches", "network_width", "head_width", "depths", "classifier"}
    digest = hashlib.sha256(json.dumps(settings.model_dump(include=decides), sort_keys=True).encode())
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {list(weight.shape)}".encode())
        digest.update(weight.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:16]


def weights_of(model: DSAReID) -> dict[str, Tensor]:
    """The weights that inference uses, by their names in the model: those of the layers that it calls."""
    called, hooks = set(), []
    for module in model.modules():
        hooks.append(module.register_forward_hook(lambda module, *_: called.add(module)))
    like = next(model.parameters())
    with torch.inference_mode():
        model(torch.zeros(1, 3, 32, 32, dtype=like.dtype, device=like.device))
    for hook in hooks:
        hook.remove()
    return {
        f"{prefix}.{name}": weight
        for prefix, module in model.named_modules()
        if module in called
        for name, weight in (*module._parameters.items(), *module._buffers.items())
        if weight is not None and weight.is_floating_point()
    }


def _drop_others(model: DSAReID, names: Iterable[str]) -> None:
    """Drop the parts of a model that have none of these weights: guiding stream, fusion, classifiers."""
    names = tuple(names)
    for prefix, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            begin = f"{prefix}.{name}.".lstrip(".")
            if next(child.parameters(), None) is not None and not any(x.startswith(begin) for x in names):
                setattr(module, name, None)


def parse_settings(path: Path, text: str | None) -> Settings:
    """The settings in a file.

    Raises:
        DSAError: there are none, or others than we write.
    """
    if text is None:
        raise DSAError(f"{path}: holds no settings of dsareid; expected {FORMS}")
    try:
        return Settings.model_validate_json(text)
    except ValidationError as error:
        raise DSAError(
            f"{path}: not the settings that dsareid export writes: {first_problem(error)}"
        ) from error


@contextlib.contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror or error}") from error


def _load_safetensors(path: Path, device: str) -> Embedder:
    try:
        with safe_open(path, "pt") as file:
            settings = parse_settings(path, (file.metadata() or {}).get(METADATA))
            state = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise DSAError(f"{path}: not readable as safetensors: {error}") from error
    with torch.device("meta"):  # nothing is allocated before the shapes are found to be those of the file
        model = DSAReID(
            1,
            streams="mf",
            branches=settings.branches,
            width=settings.network_width,
            head_width=settings.head_width,
            depths=settings.depths,
            classifier_kind=settings.classifier,
        ).eval()
    expected = {name: list(weight.shape) for name, weight in weights_of(model).items()}
    for name in expected.keys() | state.keys():
        came = list(state[name].shape) if name in state else "missing"
        if expected.get(name) != came or state[name].dtype != torch.float32:
            raise DSAError(f"{path}: {name} must be float32 {expected.get(name, 'absent')}, but is {came}")
    if identity(settings, state) != settings.model:
        raise DSAError(
            f"{path}: altered since it was written: its weights are not those of model {settings.model}"
        )
    target = choose_device(device)
    _drop_others(model, expected)
    model.to_empty(device=target).load_state_dict(state, strict=False)  # but BatchNorm's counters of batches
    return Embedder(path, settings, target, on_images(model))


def _load_onnx(path: Path, device: str) -> Embedder:
    try:
        import onnxruntime
    except ImportError as error:
        raise DSAError(f"{path}: onnxruntime is missing: pip install dsareid[onnx]") from error
    served = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    target = torch.device("cpu") if device == "auto" and not served else choose_device(device)
    if target.type == "cuda" and not served:
        raise DSAError(f"--device {device}: this onnxruntime has no CUDA; install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    # Between batches the cores are for whoever decodes the next images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    provider = ("CUDAExecutionProvider", {"device_id": target.index or 0})
    providers = [provider] if target.type == "cuda" else ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(path, options, providers)
    except Exception as error:  # its exceptions have no common class of their own
        raise DSAError(f"{path}: not readable as ONNX: {str(error)[:200]}") from error
    settings = parse_settings(path, session.get_modelmeta().custom_metadata_map.get(METADATA))
    found = [(x.name, x.type, x.shape[1:]) for x in (*session.get_inputs(), *session.get_outputs())]
    expected = [
        ("image", "tensor(uint8)", [settings.height, settings.width, 3]),
        ("features", "tensor(float)", [settings.dimension]),
    ]
    if found != expected:
        raise DSAError(f"{path}: its input and output must be {expected}, as its settings say, not {found}")

    def compute(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["features"], {"image": images.cpu().numpy()})[0])

    return Embedder(path, settings, torch.device("cpu"), compute)  # onnxruntime moves them itself


def _load_pt2(path: Path, device: str) -> Embedder:
    text, program = read_pt2(path, METADATA)
    settings = parse_settings(path, text)
    target = choose_device(device)
    if target.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, target)
    network = program.module()
    shape = (1, settings.height, settings.width, 3)
    try:
        with torch.inference_mode():
            found = network(torch.zeros(shape, dtype=torch.uint8, device=target))
        fits = found.shape == (1, settings.dimension) and found.dtype == torch.float32
    except Exception as error:  # whatever a graph leads torch to
        why = str(error)[:200]
        raise DSAError(f"{path}: its graph does not take uint8 {list(shape)}: {why}") from error
    if not fits:
        expected = f"float32 (B, {settings.dimension})"
        raise DSAError(f"{path}: its features must be {expected}, not {found.dtype} {list(found.shape)}")
    return Embedder(path, settings, target, network)
