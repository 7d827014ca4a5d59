"""MODEL.safetensors: the weights that inference uses, float32, and the settings in the metadata."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dsareid.ground.distributed import choose_device
from dsareid.ground.errors import DSAError
from dsareid.inference.formats.base import LoadedModel, ModelFormat
from dsareid.inference.network import (
    PixelNetwork,
    drop_unused,
    empty_model,
    identity,
    inference_weights,
)
from dsareid.inference.settings import METADATA, ModelSettings, parse_settings
from dsareid.models.options import RESNET


def write(network: PixelNetwork, settings: ModelSettings, path: Path) -> None:
    weights = {name: weight.contiguous() for name, weight in inference_weights(network.model).items()}
    path.write_bytes(save(weights, {METADATA: settings.model_dump_json()}))


def load(path: Path, device: str) -> LoadedModel:
    try:
        with safe_open(path, "pt") as file:
            settings = parse_settings(path, (file.metadata() or {}).get(METADATA))
            state = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise DSAError(f"{path}: not readable as safetensors: {error}") from error
    model = empty_model(settings)
    expected = {name: list(weight.shape) for name, weight in inference_weights(model).items()}
    for name in expected.keys() | state.keys():
        came = list(state[name].shape) if name in state else "missing"
        if expected.get(name) != came or state[name].dtype != torch.float32:
            raise DSAError(f"{path}: {name} must be float32 {expected.get(name, 'absent')}, but is {came}")
    if identity(settings, state) != settings.model:
        raise DSAError(
            f"{path}: altered since it was written: its weights are not those of model {settings.model}"
        )
    target = choose_device(device)
    drop_unused(model, expected)
    model = model.to_empty(device=target) if settings.trunk == RESNET else model.to(target)
    model.load_state_dict(state, strict=False)  # not strict: num_batches_tracked is not stored
    return LoadedModel(settings, target, PixelNetwork(model))


SAFETENSORS = ModelFormat(".safetensors", write, load)
