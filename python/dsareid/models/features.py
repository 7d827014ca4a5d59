"""What a stream says about an image: one global vector and eight local ones."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Features(NamedTuple):
    """Pooled features of a batch: f of the MF-Stream, d of the DSAG-Stream, or their fusion z."""

    global_: Tensor  # (B, D), D = 2048 at the paper's widths
    local: Tensor | None = None  # (B, 8, D / 8) in the order of dsa_ext.parts.BODY_NAMES

    def __add__(self, other: "Features") -> "Features":
        """Fusion by addition: z = f + d (section 3.3)."""
        local = None if self.local is None else self.local + other.local
        return Features(self.global_ + other.global_, local)

    def embedding(self) -> Tensor:
        """(B, 2 * D) for matching: global and local, each L2-normalised, side by side."""
        whole = F.normalize(self.global_.float(), dim=1)
        if self.local is None:
            return whole
        return torch.cat([whole, F.normalize(self.local.float().flatten(1), dim=1)], 1)
