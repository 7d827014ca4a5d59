"""Layers that exist once per branch: 24 parts, 13 or 8 groups, each with weights of its own."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsareid.models.branch_forms import FORMS, grouped, in_training


class BranchConv2d(nn.Module):
    """One convolution per branch, no bias: (B, branches * in, H, W) -> (B, branches * out, H', W').

    Its weight is that of a grouped convolution, (branches * out, in, k, k), whatever form computes it.

    Attributes:
        form: how it is computed in training, a name of branch_forms.FORMS; None: as branch_forms.in_training.
            Otherwise, and so in exports, it is a grouped convolution.
    """

    form: str | None = None

    def __init__(self, branches: int, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.branches, self.stride = branches, stride
        self.weight = nn.Parameter(torch.empty(branches * outputs, inputs, kernel, kernel))
        # As kaiming_normal_ with fan_out in ResNet, but with the fan of one branch.
        nn.init.normal_(self.weight, std=(2 / (outputs * kernel * kernel)) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        compute = FORMS[self.form] if self.form else in_training
        return (compute if self.training else grouped)(x, self.weight, self.branches, self.stride)

    def extra_repr(self) -> str:
        outputs, inputs, kernel, _ = self.weight.shape
        return (
            f"{self.branches} branches, {inputs}, {outputs // self.branches}, "
            f"kernel_size={kernel}, stride={self.stride}"
        )


class BranchLinear(nn.Module):
    """One fully connected layer per branch, one batched product: (B, branches * in) -> (B, branches * out).

    Its weight is (branches, out, in), its bias (branches, out) or None; both start as nn.Linear's do.
    """

    def __init__(self, branches: int, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(branches, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(branches, outputs)) if bias else None
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        branches = len(self.weight)
        x = x.unflatten(1, (branches, -1)).transpose(0, 1)  # [branches, B, in]
        x = x @ self.weight.transpose(1, 2)
        if self.bias is not None:
            x = x + self.bias[:, None]
        return x.transpose(0, 1).flatten(1)

    def extra_repr(self) -> str:
        branches, outputs, inputs = self.weight.shape
        return f"{branches} branches, {inputs}, {outputs}, bias={self.bias is not None}"


def linear(branches: int, inputs: int, outputs: int, bias: bool = True) -> nn.Linear | BranchLinear:
    """A fully connected layer for one branch or several."""
    if branches == 1:
        return nn.Linear(inputs, outputs, bias)
    return BranchLinear(branches, inputs, outputs, bias)


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
    """ResNet-18's block, once per branch; the shortcut is a 1x1 convolution if sizes change."""

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
        features, shortcut = self.open_end(x)
        return F.relu(features + shortcut, inplace=True)

    def open_end(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two tensors whose sum, after ReLU, is the block's output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x)), shortcut


class Bottleneck(nn.Module):
    """ResNet-50's block (stride in the 3x3, names as in torchvision), once per branch.

    With shared=True every branch reads the whole input, so the first 1x1 convolutions of all branches
    become one ordinary convolution.
    """

    def __init__(self, branches: int, inputs: int, planes: int, stride: int = 1, shared: bool = False):
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
