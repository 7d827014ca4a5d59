"""The main full-image stream (MF-Stream), ResNet-50 shaped: the paper's section 3.3."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from dsareid.models.branch import Bottleneck
from dsareid.models.features import Features, pooled
from dsareid.models.table import Branches


class Trunk(nn.Module):
    """The base of an MFStream: any module from a normalised image (B, 3, H, W) to a feature map
    (B, channels, h, w), with h and w about H / 16 and W / 16."""

    channels: int


class ResNetTrunk(Trunk):
    """ResNet-50 conv1..conv4_x with torchvision's names, so that torchvision's weights load unchanged.

    Args:
        width: scales the channels; 1 is ResNet-50.
        depths: blocks in conv2_x .. conv4_x.
    """

    def __init__(self, width: float, depths: Sequence[int]):
        super().__init__()
        planes = [int(c * width) for c in (64, 128, 256)]
        self.conv1 = nn.Conv2d(3, planes[0], 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = stage(planes[0], planes[0], depths[0])
        self.layer2 = stage(4 * planes[0], planes[1], depths[1], stride=2)
        self.layer3 = stage(4 * planes[1], planes[2], depths[2], stride=2)
        self.channels = 4 * planes[2]

    def forward(self, image: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(image)), inplace=True))
        return self.layer3(self.layer2(self.layer1(x)))


def stage(inputs: int, planes: int, depth: int, stride: int = 1, branches: int = 1) -> nn.Sequential:
    """A stage of ResNet-50; with several branches, each reads the whole input."""
    blocks = [Bottleneck(branches, inputs, planes, stride, shared=branches > 1)]
    blocks += [Bottleneck(branches, 4 * planes, planes) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


class MFStream(nn.Module):
    """Image -> f_G and f_L: the stream that inference uses.

    Args:
        trunk: see Trunk.
        head_width: scales the heads' channels; 1 gives f_G in R^2048 and f_L in 8 x R^256.
        head_depth: blocks in conv5_x.
        branches: "global" or "local" leaves the other one out (Table 3).
    """

    def __init__(
        self, trunk: Trunk, head_width: float = 1.0, head_depth: int = 3, branches: Branches = "both"
    ):
        super().__init__()
        self.trunk = trunk
        self.head_g: nn.Module | None = None
        self.head_l: nn.Module | None = None
        # conv5_x without its stride; a local branch has 1/8 of the global one's channels.
        if branches != "local":
            self.head_g = stage(trunk.channels, int(512 * head_width), head_depth)
        if branches != "global":
            self.head_l = stage(trunk.channels, int(64 * head_width), head_depth, branches=8)

    def forward(self, image: Tensor) -> Features:
        """image: floating (B, 3, H, W), normalised. Returns f_G (B, D) and f_L (B, 8, D / 8)."""
        return self.features(self.trunk(image))

    def features(self, x: Tensor) -> Features:
        """The same from the trunk's output, (B, 1024, H/16, W/16)."""
        return pooled(x, self.head_g, self.head_l)
