"""The MF-Stream's trunk: ResNet-50's conv1..conv4_x, or any network of timm.

A timm trunk ends at its last stage of stride 16, or of the stride nearest to 16. With stage "whole" it ends
at its last stage, and the stride of that stage is removed. Heads and guide scale with the trunk's channels,
relative to ResNet-50's 1024.
"""

import contextlib
import difflib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from dsareid.ground.errors import DSAError
from dsareid.models.mf import ResNetTrunk, Trunk
from dsareid.models.options import MEAN, RESNET, STD, TrunkStage

_CHANNELS = 1024  # of ResNet-50's conv4_x, for which the paper chose the widths of heads and guide
_NARROWEST = 1 / 32  # width of heads and guide, and the step between widths
_STRIDE = 16
ANY_SIZE: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""timm's options for images of any size; the first that a network accepts is used."""


def build_trunk(name: str, width: float, depths: Sequence[int], stage: TrunkStage) -> Trunk:
    """A trunk by its name, with random weights.

    Args:
        name: options.RESNET, or a model of timm.
        width, depths: for options.RESNET, see ResNetTrunk.
        stage: for a timm model, where it ends; see the module.

    Raises:
        DSAError: timm is missing, has no such model, or cannot make a trunk of it.
    """
    return ResNetTrunk(width, depths) if name == RESNET else TimmTrunk(name, stage)


class TimmTrunk(Trunk):
    """The first stages of a timm model; its input is normalised by options.MEAN and STD.

    Args:
        name: the model's.
        stage: see the module.
        state: a state dict with timm's names to fill the stages from; default: random weights.

    Raises:
        DSAError: as build_trunk, or timm does not accept the state.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, stage: TrunkStage, state: Mapping[str, Any] | None = None):
        super().__init__()
        self.name, self.stage = name, stage
        self.body, self.channels = _stages(name, stage, state)
        for layer in self.body.modules():
            if type(layer) is nn.Conv2d and layer.groups == layer.in_channels > 1 and max(layer.stride) > 1:
                layer.__class__ = _StridedDepthwise  # the same parameters under the same names
        pretrained: Any = (
            getattr(self.body, "pretrained_cfg", None) or import_timm().get_pretrained_cfg(name).to_dict()
        )
        mean, std, given_mean, given_std = (
            torch.tensor(values)[:, None, None]
            for values in (pretrained.get("mean", MEAN), pretrained.get("std", STD), MEAN, STD)
        )
        self.register_buffer("scale", given_std / std, persistent=False)
        self.register_buffer("shift", (given_mean - mean) / std, persistent=False)
        self._channels_last = str(getattr(self.body, "output_fmt", "")).endswith("NHWC")

    def forward(self, image: Tensor) -> Tensor:
        x = self.body(image * self.scale + self.shift)[-1]
        return x.permute(0, 3, 1, 2) if self._channels_last else x

    def check_size(self, height: int, width: int) -> None:
        """Raise DSAError if the trunk does not take images of this size."""
        try:
            with torch.inference_mode():
                like = next(self.parameters())
                self(torch.zeros(2, 3, height, width, dtype=like.dtype, device=like.device))
        except Exception as error:  # whatever a network raises
            raise DSAError(
                f"`network.trunk={self.name}` does not take images of {height}x{width}: {error}"
            ) from error

    def head_width(self, width: float) -> float:
        """Scale `width`, a width of heads and guide for ResNet-50, to this trunk's channels."""
        return max(_NARROWEST, round(width * self.channels / _CHANNELS / _NARROWEST) * _NARROWEST)


class _StridedDepthwise(nn.Conv2d):
    """A depthwise convolution with a stride. Where training computes in bfloat16 on CPUs it takes every
    stride-th output of the one without: oneDNN has no fast gradient with a stride for that type."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu" or _computed_in(x) != torch.bfloat16:
            return super().forward(x)
        whole = F.conv2d(x, self.weight, self.bias, 1, self.padding, self.dilation, self.groups)
        return F.avg_pool2d(whole, 1, self.stride)


def _computed_in(x: Tensor) -> torch.dtype:
    """The type in which a convolution of x is computed."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def import_timm() -> Any:
    """Import timm.

    Raises:
        DSAError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise DSAError(f"`network.trunk` needs timm: pip install timm ({error})") from error
    return timm


def _stages(name: str, stage: TrunkStage, state: Mapping[str, Any] | None) -> tuple[nn.Module, int]:
    """The stages of the model that the trunk uses, and the channels of their output."""
    timm = import_timm()
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3)
        known = f"; similar: {', '.join(close)}" if close else ""
        raise DSAError(f"`network.trunk={name}`: timm {timm.__version__} has no such model{known}")
    with torch.device("meta"):  # only to read the strides of its stages
        reductions = _info(_create(timm, name, None)).reduction()
    index = _last_stage(reductions, stage)
    options: dict[str, Any] = {"out_indices": (index,)}
    if stage == "whole" and reductions[-1] > _STRIDE:
        options["output_stride"] = _STRIDE
    body = _create(timm, name, state, **options)
    if "output_stride" in options:
        _undilate(body)
    _cut(body, _info(body).module_name()[-1])
    return body, _info(body).channels()[-1]


def _info(body: nn.Module) -> Any:
    """timm's description of the stages."""
    return body.feature_info


def _last_stage(reductions: Sequence[int], stage: TrunkStage) -> int:
    """The index of the trunk's last stage among stages with these strides."""
    if stage == "whole":
        return len(reductions) - 1
    off = [abs(math.log2(stride / _STRIDE)) for stride in reductions]
    return max(k for k, value in enumerate(off) if value == min(off))


def _undilate(body: nn.Module) -> None:
    """Make dilated convolutions plain ones: timm puts a dilation where it takes a stride out. Networks for
    re-identification do without (Luo et al., 2019): a dilated kernel is wider than a crop's feature map."""
    for module in body.modules():
        layer: Any = module
        # Also timm's own kinds of convolutions; its blocks have a dilation, too, but no kernel.
        if hasattr(layer, "kernel_size") and _pair(getattr(layer, "dilation", 1)) != (1, 1):
            layer.padding = tuple(p // d for p, d in zip(_pair(layer.padding), _pair(layer.dilation)))
            layer.dilation = (1, 1)


def _cut(body: nn.Module, last: str) -> None:
    """Drop the blocks after `last`, for example "blocks.4", if timm kept them."""
    sequence, _, number = last.rpartition(".")
    blocks = getattr(body, sequence, None)
    if number.isdecimal() and isinstance(blocks, nn.Sequential):
        setattr(body, sequence, blocks[: int(number) + 1])


@contextlib.contextmanager
def _no_word_of_unused_weights() -> Iterator[None]:
    """timm warns of weights that a trunk leaves out. What is missing is an error of ours."""
    logs = logging.getLogger("timm.models._builder")
    level = logs.level
    logs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logs.setLevel(level)


def _create(timm: Any, name: str, state: Mapping[str, Any] | None, **options: Any) -> nn.Module:
    given = (
        {} if state is None else {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(state)}}
    )
    reason: Exception | None = None
    for size in ANY_SIZE:
        try:
            with _no_word_of_unused_weights():
                return timm.create_model(name, features_only=True, **given, **options, **size)
        except TypeError as error:  # it does not know the option
            if "output_stride" in str(error):
                raise DSAError(
                    f"`network.trunk={name}`: the stride of its last stage cannot be removed; use "
                    "`network.trunk_stage=sixteenth`"
                ) from error
            reason = error
        except (RuntimeError, NotImplementedError, AssertionError, AttributeError, ValueError) as error:
            raise DSAError(f"`network.trunk={name}`: timm cannot make a trunk of it: {error}") from error
    raise DSAError(f"`network.trunk={name}`: timm cannot make a trunk of it: {reason}") from reason
