"""Layers that exist once per branch: 24 parts, 13 or 8 groups, each with weights of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BranchConv2d(nn.Module):
    """One convolution per branch, no bias: (B, branches * in, H, W) -> (B, branches * out, H', W').

    The weight is stored as a grouped convolution stores it, (branches * out, in, k, k), whatever
    way the product is computed. Which way is fast depends on device and width;
    benchmarks/bench_dsag.py measures them and explains the choice made in `form_for`.
    """

    def __init__(self, branches: int, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.branches, self.stride, self.padding = branches, stride, kernel // 2
        self.weight = nn.Parameter(torch.empty(branches * outputs, inputs, kernel, kernel))
        self.form: str | None = None  # None: choose; else "grouped", "loop" or "batched"
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        with torch.no_grad():  # fan_out counted the outputs of all branches together
            self.weight.mul_(branches**0.5)

    def forward(self, x: Tensor) -> Tensor:
        form = self.form or form_for(x, self.weight, self.branches)
        return FORMS[form](x, self.weight, self.branches, self.stride, self.padding)

    def extra_repr(self) -> str:
        outputs, inputs, kernel, _ = self.weight.shape
        return (
            f"{self.branches} branches, {inputs}, {outputs // self.branches}, "
            f"kernel_size={kernel}, stride={self.stride}"
        )


def grouped(x: Tensor, weight: Tensor, branches: int, stride: int, padding: int) -> Tensor:
    """One grouped convolution."""
    return F.conv2d(x, weight, stride=stride, padding=padding, groups=branches)


def loop(x: Tensor, weight: Tensor, branches: int, stride: int, padding: int) -> Tensor:
    """One ordinary convolution per branch."""
    pairs = zip(x.chunk(branches, 1), weight.chunk(branches, 0))
    return torch.cat([F.conv2d(a, w, stride=stride, padding=padding) for a, w in pairs], 1)


def batched(x: Tensor, weight: Tensor, branches: int, stride: int, padding: int) -> Tensor:
    """One batched matrix product over the branches, on unfolded patches."""
    batch, _, height, width = x.shape
    outputs, _, kernel, _ = weight.shape
    height, width = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
    if kernel == 1:
        columns = x[:, :, ::stride, ::stride].reshape(batch, branches, -1, height * width)
    else:
        columns = F.unfold(x, kernel, padding=padding, stride=stride)
        columns = columns.view(batch, branches, -1, height * width)  # [B, N, in*k*k, H'*W']
    product = weight.view(branches, outputs // branches, -1) @ columns  # [B, N, out, H'*W']
    return product.reshape(batch, outputs, height, width)


FORMS = {"grouped": grouped, "loop": loop, "batched": batched}


def form_for(x: Tensor, weight: Tensor, branches: int) -> str:
    """The fast form for this input: see the table in benchmarks/bench_dsag.py."""
    return "grouped"


def conv(branches: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """A convolution without bias for one branch or several."""
    if branches > 1:
        return BranchConv2d(branches, inputs, outputs, kernel, stride)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class ConvBlock(nn.Sequential):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, branches: int, inputs: int, outputs: int, kernel: int):
        super().__init__(
            conv(branches, inputs, outputs, kernel),
            nn.BatchNorm2d(branches * outputs),
            nn.ReLU(inplace=True),
        )


class BasicBlock(nn.Module):
    """ResNet-18's block, once per branch; the shortcut is a 1x1 convolution where sizes change."""

    def __init__(self, branches: int, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv(branches, inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(branches * outputs)
        self.conv2 = conv(branches, outputs, outputs, 3)
        self.bn2 = nn.BatchNorm2d(branches * outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                conv(branches, inputs, outputs, 1, stride), nn.BatchNorm2d(branches * outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class Bottleneck(nn.Module):
    """ResNet-50's block (stride in the 3x3, names as in torchvision), once per branch.

    With shared=True every branch reads the whole input, which makes its first 1x1 convolutions one
    ordinary convolution.
    """

    def __init__(
        self, branches: int, inputs: int, planes: int, stride: int = 1, shared: bool = False
    ):
        super().__init__()
        outputs, width = 4 * planes, branches * planes
        first = 1 if shared else branches
        self.conv1 = conv(first, inputs, width // first, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(branches, planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(branches, planes, outputs, 1)
        self.bn3 = nn.BatchNorm2d(branches * outputs)
        self.downsample = None
        if stride != 1 or shared or inputs != outputs:
            self.downsample = nn.Sequential(
                conv(first, inputs, branches * outputs // first, 1, stride),
                nn.BatchNorm2d(branches * outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return F.relu(self.bn3(self.conv3(x)) + shortcut, inplace=True)


def zero_last_scales(module: nn.Module) -> None:
    """Start every residual block as its shortcut: the scale of its last BatchNorm becomes 0."""
    for block in module.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            nn.init.zeros_((block.bn3 if isinstance(block, Bottleneck) else block.bn2).weight)
