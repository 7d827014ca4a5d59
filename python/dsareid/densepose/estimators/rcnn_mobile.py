"""The trunk and the pyramid of the light DensePose models (zetyquickly/DensePoseFnL, arXiv:2006.15190).

The trunk is spnasnet_100 (Single-Path NAS, arXiv:1904.02877), by timm's names; its levels are the widest
features of a stage's last block. BiFPN (arXiv:1911.09070) mixes them, down and up again.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64  # channels of a level
EXPANDED = 72, 120, 288, 1152  # channels of what the trunk gives, at strides 4 to 32
_STAGES = (  # of the blocks: widths inside, kernels; stride of the first; channels that come out, if they do
    ((48, 72, 72), (3, 3, 3), 2, 24),
    ((144, 120, 120, 120), (5, 3, 3, 3), 2, 40),
    ((240, 240, 240, 240), (5, 3, 3, 3), 2, 80),
    ((480, 288, 288, 288), (5, 5, 5, 5), 1, 96),
    ((576, 1152, 1152, 1152), (5, 5, 5, 5), 2, 192),
    ((1152,), (3,), 1, None),
)
_GIVING = 0, 1, 3, 5  # the stages whose last block gives a level


class MobileTrunk(nn.Module):
    """spnasnet_100 up to the inside of its last block."""

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn1 = _conv(3, 32, 3, stride=2), nn.BatchNorm2d(32)
        stages = [nn.ModuleList([_Separable(32, 16)])]
        before = 16
        for widths, kernels, stride, after in _STAGES:
            blocks = []
            for k, (width, kernel) in enumerate(zip(widths, kernels)):
                blocks.append(_Inverted(before, width, after, kernel, stride if k == 0 else 1))
                before = after
            stages.append(nn.ModuleList(blocks))
        self.blocks = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures (B, 3, H, W) -> features of EXPANDED channels."""
        x = self.blocks[0][0](self.bn1(self.conv_stem(x)).relu())
        found = []
        for number, stage in enumerate(self.blocks[1:]):
            for block in stage:
                wide = block.expand(x)
                x = block.project(x, wide)
            if number in _GIVING:
                found.append(wide)
        return found


class BiFPN(nn.Module):
    """One layer of the pyramid: from the coarsest level to the finest, and back."""

    def __init__(self):
        super().__init__()
        self.l2, self.l3, self.l4, self.l5 = (nn.Conv2d(width, WIDTH, 1) for width in EXPANDED)
        self.p4_tr, self.p3_tr, self.p2_out, self.p3_out, self.p4_out, self.p5_out = (
            _Mix() for _ in range(6)
        )
        self.down_p2, self.down_p3, self.down_p4 = (_Mix(stride=2) for _ in range(3))
        self.fuse_p4_tr, self.fuse_p3_tr, self.fuse_p2_out, self.fuse_p5_out = (_Sum(2) for _ in range(4))
        self.fuse_p3_out, self.fuse_p4_out = _Sum(3), _Sum(3)

    def forward(self, levels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """p2 to p5 of the trunk -> the same of WIDTH channels."""
        p2, p3, p4, p5 = (conv(x) for conv, x in zip((self.l2, self.l3, self.l4, self.l5), levels.values()))
        p4_tr = self.p4_tr(self.fuse_p4_tr([p4, _twice_as_large(p5)]))
        p3_tr = self.p3_tr(self.fuse_p3_tr([p3, _twice_as_large(p4_tr)]))
        p2 = self.p2_out(self.fuse_p2_out([p2, _twice_as_large(p3_tr)]))
        p3 = self.p3_out(self.fuse_p3_out([p3, p3_tr, self.down_p2(p2)]))
        p4 = self.p4_out(self.fuse_p4_out([p4, p4_tr, self.down_p3(p3)]))
        p5 = self.p5_out(self.fuse_p5_out([p5, self.down_p4(p4)]))
        return {"p2": p2, "p3": p3, "p4": p4, "p5": p5}


class _Separable(nn.Module):
    """A convolution of each channel, and one of all channels in each pixel."""

    def __init__(self, width: int, out: int):
        super().__init__()
        self.conv_dw, self.bn1 = _conv(width, width, 3, groups=width), nn.BatchNorm2d(width)
        self.conv_pw, self.bn2 = _conv(width, out, 1), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(self.bn1(self.conv_dw(x)).relu()))


class _Inverted(nn.Module):
    """A block that is wider inside (MobileNetV2, arXiv:1801.04381); without `out` it ends there."""

    def __init__(self, width: int, inside: int, out: int | None, kernel: int, stride: int):
        super().__init__()
        self.conv_pw, self.bn1 = _conv(width, inside, 1), nn.BatchNorm2d(inside)
        self.conv_dw = _conv(inside, inside, kernel, stride, groups=inside)
        self.bn2 = nn.BatchNorm2d(inside)
        if out is not None:
            self.conv_pwl, self.bn3 = _conv(inside, out, 1), nn.BatchNorm2d(out)
        self.ends, self.adds = out is None, stride == 1 and width == out

    def expand(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv_dw(self.bn1(self.conv_pw(x)).relu())).relu()

    def project(self, x: Tensor, wide: Tensor) -> Tensor:
        """What comes out, from what comes in and what expand made of it."""
        if self.ends:
            return wide
        narrow = self.bn3(self.conv_pwl(wide))
        return narrow + x if self.adds else narrow


class _Mix(nn.Sequential):
    def __init__(self, stride: int = 1):
        depthwise, pointwise = _conv(WIDTH, WIDTH, 3, stride, groups=WIDTH), _conv(WIDTH, WIDTH, 1)
        super().__init__(nn.Sequential(depthwise, pointwise), nn.BatchNorm2d(WIDTH), nn.ReLU())


class _Sum(nn.Module):
    """The mean of levels by weights that are learnt."""

    def __init__(self, count: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count))
        self.eps: Tensor
        self.register_buffer("eps", torch.tensor(1e-4))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        weight = self.weight.relu()
        total = sum(x * w for x, w in zip(levels, weight))
        return total / (weight.sum() + self.eps)


def _conv(width: int, out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width, out, kernel, stride, kernel // 2, groups=groups, bias=False)


def _twice_as_large(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="nearest")
