"""Other guides than the paper's, tried for one thing: whether they tell people apart whom they never saw.

Each takes the DSAG-Stream's place in a run of its own (`use`). They are of the study, not of the package.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dsa_ext.parts import GROUPS, MIRROR_GROUP
from dsareid.models import reid
from dsareid.models.branch import BranchConv2d, ConvBlock
from dsareid.models.dsag import DSAGStream, merge_after
from dsareid.models.features import Features
from dsareid.models.options import MEAN, STD


class _Tied(nn.Module):
    """The weights of 24 branches, made of those of fewer: branch k has those of stem index[k]."""

    def __init__(self, index: tuple[int, ...]):
        super().__init__()
        self.register_buffer("index", torch.tensor(index), persistent=False)

    def forward(self, stems: Tensor) -> Tensor:
        return stems[self.index].flatten(0, 1)

    def right_inverse(self, weight: Tensor) -> Tensor:
        first = [self.index.tolist().index(stem) for stem in range(int(self.index.max()) + 1)]
        return weight.unflatten(0, (len(self.index), -1))[first]


def _tie(stream: nn.Module, index: tuple[int, ...]) -> None:
    """Let branches share the weights of their convolutions up to the first merge; norms stay apart."""
    for layer in list(stream.modules()):
        if isinstance(layer, BranchConv2d) and layer.branches == len(index):
            parametrize.register_parametrization(layer, "weight", _Tied(index))


class OneStem(DSAGStream):
    """One stem for all 24 parts."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        _tie(self, (0,) * 24)


class TwinStems(DSAGStream):
    """13 stems: a part and its mirror twin share one."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        _tie(self, MIRROR_GROUP)


class Narrow(DSAGStream):
    """Half the channels inside, the same features."""

    def __init__(self, width: float, branches, *args):
        size = 4 * int(512 * width)
        super().__init__(width / 2, branches, size, size // 8)


class Jittered(DSAGStream):
    """Colours and light varied for each image in training: a gain of each channel, and of all."""

    def forward(self, dsap: Tensor) -> Features:
        if self.training:
            mean, std = (torch.tensor(x, device=dsap.device)[:, None, None] for x in (MEAN, STD))
            gains = 0.2 * torch.randn(len(dsap), 1, 3, 1, 1, device=dsap.device)
            light = 0.2 * torch.randn(len(dsap), 1, 1, 1, 1, device=dsap.device)
            colours = ((dsap.float() * std + mean) * (gains + light).exp() - mean) / std
            dsap = torch.where(dsap != 0, colours.to(dsap.dtype), dsap)
        return super().forward(dsap)


class Visible(DSAGStream):
    """Where a part image has pixels is a fourth channel, and features are means over those places alone."""

    def __init__(self, width: float, *args):
        super().__init__(width, *args)
        self.conv1 = ConvBlock(24, 4, int(32 * width), 5)
        members = torch.tensor([[float(group == k) for group in GROUPS[8]] for k in range(8)])
        self.register_buffer("members", members, persistent=False)

    def forward(self, dsap: Tensor) -> Features:
        seen = (dsap != 0).any(2, keepdim=True).to(dsap.dtype)  # [B, 24, 1, S, S]
        x = torch.cat([dsap, seen], 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        x = self.conv2(self.conv1(x))
        x = merge_after(self.conv3, x, 24, "mirror")
        x = merge_after(self.conv4, x, 13, "front_back").contiguous()
        filled = nn.functional.adaptive_avg_pool2d(seen[:, :, 0].float(), x.shape[2])  # [B, 24, S/4, S/4]
        weight = torch.einsum("kp,bpyx->bkyx", self.members, filled) + 1e-4  # [B, 8, S/4, S/4]
        assert self.conv5_g is not None and self.conv5_l is not None
        local = self.conv5_l(x).unflatten(1, (8, -1))  # [B, 8, D / 8, S/4, S/4]
        return Features(
            _weighted(self.conv5_g(x), weight.sum(1, keepdim=True)), _weighted(local, weight[:, :, None])
        )


def _weighted(x: Tensor, weight: Tensor) -> Tensor:
    """The mean over the last two axes by weights."""
    return (x * weight.to(x.dtype)).sum((-2, -1)) / weight.sum((-2, -1)).to(x.dtype)


GUIDES = {
    "one-stem": OneStem,
    "twin-stems": TwinStems,
    "narrow": Narrow,
    "jittered": Jittered,
    "visible": Visible,
}


def use(name: str) -> None:
    """Let networks of this process have this guide."""
    reid.DSAGStream = GUIDES[name]  # type: ignore[misc]
