"""What the channels of BodyPix 2.0 mean in DensePose's terms, and how that was found.

Its 24 parts are DensePose's in another order. The head `float_part_offsets`, which BodyPix's own code never
reads, has 48 channels: 2k and 2k + 1 are U and V of part k. This is not documented; it was found by
comparing them with DensePose's maps of the same photographs. Correlations: torso .95 to .98, head .92 to .94,
thighs and shins .7 to .8. It agrees with this that they are clamped to 0..1, with biases near one half.
"""

import torch
from torch import Tensor

from dsa_ext.parts import FLIP_U, FLIP_V, TWIN

# DensePose's I of BodyPix's part k = 0..23.
PARTS = (24, 23, 17, 15, 18, 16, 21, 19, 22, 20, 4, 3, 2, 1, 10, 8, 9, 7, 14, 12, 13, 11, 5, 6)

# Part k of the image is part _TWINS[k] of its mirror image; there the U or V of some runs the other way.
_TWINS = [PARTS.index(TWIN[part - 1]) for part in PARTS]
_FLIPS = torch.tensor([[flips[part - 1] for part in PARTS] for flips in (FLIP_U, FLIP_V)])  # bool [2, 24]


def mirror_heads(heads: Tensor) -> Tensor:
    """What the heads of the mirrored image say of the image itself.

    Args:
        heads: (73, H, W): a person or not, then the scores, the U and the V of 24 parts each.
    """
    segments, parts, u, v = heads.flip(2).split([1, 24, 24, 24])
    parts, u, v = (head[_TWINS] for head in (parts, u, v))
    flip_u, flip_v = _FLIPS.to(heads.device)[:, :, None, None]
    return torch.cat([segments, parts, torch.where(flip_u, 1 - u, u), torch.where(flip_v, 1 - v, v)])
