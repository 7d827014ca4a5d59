"""The densely semantically aligned guiding stream (DSAG-Stream), the paper's section 3.2."""

import torch
from torch import Tensor, nn

from dsa_ext import merge_parts
from dsareid.models.branch import BasicBlock, ConvBlock
from dsareid.models.features import Features, pooled
from dsareid.models.table import Branches


class DSAGStream(nn.Module):
    """24 part branches, merged to 13, then to 8; used in training only.

    Args:
        width: scales every channel count; 1 is the paper's.
        branches: "global" or "local" leaves the other one out (Table 3).
        global_size, local_size: length of d_G and of each of the eight d_L; default: the paper's 2048 and
            256 scaled by width.

    Raises:
        ValueError: width is less than 1/32.
    """

    def __init__(
        self,
        width: float = 1.0,
        branches: Branches = "both",
        global_size: int | None = None,
        local_size: int | None = None,
    ):
        super().__init__()
        if not width >= 1 / 32:
            raise ValueError(f"width must be at least 1/32 (one channel in conv1), not {width}")
        c32, c64, c128, c256, c2048 = (int(c * width) for c in (32, 64, 128, 256, 2048))
        c256, c2048 = local_size or c256, global_size or c2048
        self.conv1 = ConvBlock(24, 3, c32, 5)
        self.conv2 = ConvBlock(24, c32, c64, 3)
        self.conv3 = nn.Sequential(BasicBlock(24, c64, c64, 2), BasicBlock(24, c64, c64))
        self.conv4 = nn.Sequential(BasicBlock(13, c64, c128, 2), BasicBlock(13, c128, c128))
        self.conv5_g: nn.Module | None = None
        self.conv5_l: nn.Module | None = None
        if branches != "local":
            self.conv5_g = nn.Sequential(BasicBlock(1, 8 * c128, c2048), BasicBlock(1, c2048, c2048))
        if branches != "global":
            self.conv5_l = nn.Sequential(BasicBlock(8, c128, c256), BasicBlock(8, c256, c256))

    def forward(self, dsap: Tensor) -> Features:
        """dsap: floating (B, 24, 3, S, S), normalised. Returns d_G and d_L."""
        # Measured on CPUs (benchmarks/dsag.py): channels_last is faster for many narrow branches,
        # contiguous for the wide convolutions of conv5_x.
        x = dsap.flatten(1, 2).contiguous(memory_format=torch.channels_last)  # [B, 24*3, S, S]
        x = self.conv2(self.conv1(x))  # [B, 24*64, S, S]
        x = merge_after(self.conv3, x, 24, "mirror")  # [B, 13*64, S/2, S/2]
        x = merge_after(self.conv4, x, 13, "front_back")  # [B, 8*128, S/4, S/4]
        return pooled(x.contiguous(), self.conv5_g, self.conv5_l)


def merge_after(blocks: nn.Sequential, x: Tensor, parts: int, level: str) -> Tensor:
    """Residual blocks, then a merge; the last block's sum and ReLU and the merge are one pass."""
    *first, last = blocks
    for block in first:
        x = block(x)
    assert isinstance(last, BasicBlock)
    features, shortcut = last.open_end(x)
    batch, _, height, width = features.shape
    # No copy: channels_last already lies in memory as [B, H, W, parts, C].
    features, shortcut = (
        y.permute(0, 2, 3, 1).reshape(batch * height * width, parts, -1) for y in (features, shortcut)
    )
    merged = merge_parts(features, level, residual=shortcut, relu=True)  # [B*H*W, G, C]
    return merged.view(batch, height, width, -1).permute(0, 3, 1, 2)
