"""The densely semantically aligned guiding stream (DSAG-Stream), the paper's section 3.2."""

import torch
from torch import Tensor, nn

from dsa_ext import merge_parts
from dsa_ext.parts import FLIP_U, TWIN
from dsareid.models.branch import BasicBlock, ConvBlock
from dsareid.models.features import Branches, Features, pooled

# Left hand, right foot, left head: the second of each pair whose charts run against each other.
_REVERSED = [i for i in range(24) if FLIP_U[i] and TWIN[i] < i + 1]


class DSAGStream(nn.Module):
    """24 part branches, merged to 13 and to 8; used while training only.

    Args:
        width: scales every channel count; 1 is the paper's.
        branches: "global" or "local" leaves the other one out (Table 3).
        parts: 24, or 8 for part images that were merged in the warp already; then there are eight branches
            from the start and nothing is merged (not in the paper).
        reversed_charts: turn the charts of left hand, right foot and left head round before they are merged
            with their twins', which run the other way (not in the paper).
        global_size, local_size: length of d_G and of each of the eight d_L; unless given, the paper's 2048
            and 256 scaled by width.

    Raises:
        ValueError: parts is neither, or width is less than 1/32.
    """

    def __init__(
        self,
        width: float = 1.0,
        branches: Branches = "both",
        parts: int = 24,
        reversed_charts: bool = False,
        global_size: int | None = None,
        local_size: int | None = None,
    ):
        super().__init__()
        if parts not in (24, 8):
            raise ValueError(f"parts must be 24 or 8, not {parts}")
        if not width >= 1 / 32:
            raise ValueError(f"width must be at least 1/32, which leaves conv1 one channel, not {width}")
        self.parts, self.reversed_charts = parts, reversed_charts and parts == 24
        half = 13 if parts == 24 else 8
        c32, c64, c128, c256, c2048 = (int(c * width) for c in (32, 64, 128, 256, 2048))
        c256, c2048 = local_size or c256, global_size or c2048
        self.conv1 = ConvBlock(parts, 3, c32, 5)
        self.conv2 = ConvBlock(parts, c32, c64, 3)
        self.conv3 = nn.Sequential(BasicBlock(parts, c64, c64, 2), BasicBlock(parts, c64, c64))
        self.conv4 = nn.Sequential(BasicBlock(half, c64, c128, 2), BasicBlock(half, c128, c128))
        self.conv5_g = self.conv5_l = None
        if branches != "local":
            self.conv5_g = nn.Sequential(BasicBlock(1, 8 * c128, c2048), BasicBlock(1, c2048, c2048))
        if branches != "global":
            self.conv5_l = nn.Sequential(BasicBlock(8, c128, c256), BasicBlock(8, c256, c256))

    def forward(self, dsap: Tensor) -> Features:
        """dsap: floating (B, parts, 3, S, S), normalised. Returns d_G and d_L."""
        if self.reversed_charts:
            turned = dsap[:, _REVERSED].flip(3)  # U runs down the rows
            dsap = dsap.index_copy(1, torch.tensor(_REVERSED, device=dsap.device), turned)
        # Measured on CPUs (benchmarks/dsag.py): with many narrow branches channels_last is the faster
        # layout, for the wide convolutions of conv5_x the contiguous one is.
        x = dsap.flatten(1, 2).contiguous(memory_format=torch.channels_last)  # [B, 24*3, S, S]
        x = self.conv2(self.conv1(x))  # [B, 24*64, S, S]
        if self.parts == 24:
            x = _merge_after(self.conv3, x, 24, "mirror")  # [B, 13*64, S/2, S/2]
            x = _merge_after(self.conv4, x, 13, "front_back")  # [B, 8*128, S/4, S/4]
        else:
            x = self.conv4(self.conv3(x))
        return pooled(x.contiguous(), self.conv5_g, self.conv5_l)


def _merge_after(blocks: nn.Sequential, x: Tensor, parts: int, level: str) -> Tensor:
    """Residual blocks and the merging behind them, in one pass from the last block's sum on."""
    for block in blocks[:-1]:
        x = block(x)
    features, shortcut = blocks[-1].open_end(x)
    batch, _, height, width = features.shape
    # Without a copy: in memory channels_last is [B, H, W, parts, C].
    features, shortcut = (
        y.permute(0, 2, 3, 1).reshape(batch * height * width, parts, -1) for y in (features, shortcut)
    )
    merged = merge_parts(features, level, residual=shortcut, relu=True)  # [B*H*W, G, C]
    return merged.view(batch, height, width, -1).permute(0, 3, 1, 2)
