"""The network of a run: built from its settings, with the weights that it starts from."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dsareid.data.batch import InputConfig
from dsareid.ground.errors import DSAError
from dsareid.models.reid import DSAReID
from dsareid.models.table import MODELS
from dsareid.models.trunks import TimmTrunk, import_timm
from dsareid.runs.config import TrainConfig
from dsareid.runs.weights import is_plain, read_timm_weights, read_weights

_CLASSIFIERS = ("classify_", "pooling.classify.")


def build_model(config: TrainConfig, identities: int) -> DSAReID:
    """The network of a run, with random weights drawn from its seed."""
    network = config.network
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they are
        torch.manual_seed(config.seed)
        model = DSAReID(
            identities,
            streams=MODELS[config.model].streams,
            branches=config.branches,
            guidance=config.guidance,
            texture_size=config.target_length,
            trunk=network.trunk,
            trunk_stage=network.trunk_stage,
            width=network.width,
            head_width=network.head_width,
            depths=network.depths,
            classifier_kind=network.classifier,
            zero_init=network.zero_init,
        )
        if model.mf and isinstance(model.mf.trunk, TimmTrunk):
            model.mf.trunk.check_size(config.height, config.width)
    return model


def input_config(config: TrainConfig, device: torch.device) -> InputConfig:
    """The input of a run's network in training."""
    return InputConfig(config.height, config.width, config.guide, config.dsap_size, _dtype(config, device))


def _dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    if config.precision != "auto":
        return getattr(torch, config.precision)
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def load_pretrained(model: DSAReID, state: Mapping[str, Any], source: str) -> None:
    """Load all weights of another run but the classifiers', for example to fine-tune on another data set.

    Args:
        state: the other model's state dict.
        source: what errors call the other run.

    Raises:
        DSAError: the state dict is another network's.
    """
    classifiers = {name: x for name, x in model.state_dict().items() if name.startswith(_CLASSIFIERS)}
    state = renewed(model, state)
    state = {name: x for name, x in state.items() if not name.startswith(_CLASSIFIERS)} | classifiers
    if difference := first_difference(model, state):
        raise DSAError(f"`weights={source}`: that run's network is another than this one: {difference}")
    model.load_state_dict(state)


def load_initial_weights(model: DSAReID, source: str) -> None:
    """Fill the trunk (conv1..conv4_x) from `source`, and conv5_x too if f_G is all that there is: in the
    baseline, and so in dsa-global with guidance "pool" or "texture".

    Heads and DSAG-Stream stay random (section 4.1), and so does a network of the DSAG-Stream alone.

    Args:
        source: "imagenet" (torchvision's IMAGENET1K_V1, or timm's own for its trunk, downloaded once), "none"
            (all stays random), or a .pth or .safetensors file with a state dict of the trunk's network, see
            read_weights and read_timm_weights.

    Raises:
        DSAError: as read_weights; or the download fails, or the weights do not fit.
    """
    if source == "none" or model.mf is None:
        return
    if isinstance(model.mf.trunk, TimmTrunk):
        _fill_timm_trunk(model.mf.trunk, source)
        return
    state = _imagenet() if source == "imagenet" else read_weights(Path(source))
    targets: list[tuple[nn.Module, str, tuple[str, ...]]]
    targets = [(model.mf.trunk, "", ("conv1.", "bn1.", "layer1.", "layer2.", "layer3."))]
    if model.mf.head_g is not None and model.mf.head_l is None and model.dsag is None:
        targets.append((model.mf.head_g, "layer4.", ("layer4.",)))
    for module, prefix, wanted in targets:
        # Older torchvision files lack BatchNorm's num_batches_tracked, which is 0 in a new module.
        part = {k: v for k, v in module.state_dict().items() if k.endswith("num_batches_tracked")}
        part |= {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(wanted)}
        if difference := first_difference(module, part):
            raise DSAError(
                f"`weights={source}`: not the weights of a ResNet-50 of this width: {prefix}{difference}"
            )
        module.load_state_dict(part)


def _fill_timm_trunk(trunk: TimmTrunk, source: str) -> None:
    """Fill a timm trunk from timm's weights or from a file."""
    timm = import_timm()
    if source == "imagenet":
        try:
            state = timm.create_model(trunk.name, pretrained=True, num_classes=0).state_dict()
        except Exception as error:  # whatever the download raises
            raise DSAError(
                f"`weights=imagenet`: timm cannot fetch the weights of {trunk.name} ({error}). Copy "
                "them from elsewhere and give `weights=FILE`, or start from random weights: `weights=none`"
            ) from error
    else:
        with torch.device("meta"):
            expected = timm.create_model(trunk.name, num_classes=0).state_dict()
            classifier = timm.create_model(trunk.name).state_dict().keys() - expected.keys()
        state = read_timm_weights(Path(source), expected, classifier)
    # A trunk's names are the whole network's with other separators, and perhaps a wrapper's prefix.
    names = {name.replace(".", "_") for name in state}
    wanted = [name for name in trunk.body.state_dict() if not name.endswith("num_batches_tracked")]
    missing = [name for name in wanted if re.sub(r"^(model|body)\.", "", name).replace(".", "_") not in names]
    if missing:
        raise DSAError(
            f"`weights={source}`: not the weights of {trunk.name}: {len(missing)} of {len(wanted)} tensors "
            f"of the trunk are missing, the first {missing[0]}"
        )
    trunk.load_state_dict(TimmTrunk(trunk.name, trunk.stage, state).state_dict())


def renewed(model: DSAReID, state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict under today's names.

    The eight classifiers of f_L, and the eight fusions, were eight modules each in older versions.
    """
    state = dict(state)
    for name, expected in model.state_dict().items():
        head = next((x for x in ("classify_f_local.", "fusion.local.") if name.startswith(x)), None)
        old = [f"{head}{part}.{name.removeprefix(head)}" for part in range(8)] if head else []
        found = [state[x] for x in old if isinstance(state.get(x), Tensor)]
        if head is None or len(found) < 8 or len({x.shape for x in found}) > 1:
            continue
        if expected.dim() == 0:
            found = found[:1]  # a BatchNorm's count of batches
        if sum(x.numel() for x in found) == expected.numel():
            state = {x: value for x, value in state.items() if x not in old}
            state[name] = torch.stack(found).reshape(expected.shape)
    return state


def first_difference(module: nn.Module, state: Mapping[str, Any]) -> str | None:
    """The first reason why a state dict does not fit a module; None if it fits."""
    expected = module.state_dict()
    for name, value in expected.items():
        if name not in state:
            return f"{name} is missing"
        came = state[name]
        if not isinstance(came, Tensor) or came.shape != value.shape:
            shape = list(came.shape) if isinstance(came, Tensor) else type(came).__name__
            return f"{name} must be {list(value.shape)}, not {shape}"
        if not is_plain(came):
            return f"{name} must hold plain real numbers, not {came.dtype}, {came.layout} on {came.device}"
    unexpected = [name for name in state if name not in expected]
    return f"{unexpected[0]} is unexpected" if unexpected else None


def _imagenet() -> dict[str, Tensor]:
    from torchvision.models import ResNet50_Weights

    weights = ResNet50_Weights.IMAGENET1K_V1
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise DSAError(
            f"`weights=imagenet`: cannot download {weights.url} ({error}). Copy that file from elsewhere "
            "and give `weights=FILE`, or start from random weights: `weights=none`"
        ) from error
