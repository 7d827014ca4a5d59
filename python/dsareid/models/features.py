"""What a stream says about an image: one global vector and eight local ones."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Features(NamedTuple):
    """Pooled features of a batch: f of the MF-Stream, d of the DSAG-Stream, or their fusion z.

    A network without a global or without local branches has None in their place.
    """

    global_: Tensor | None  # (B, D), D = 2048 at the paper's widths
    local: Tensor | None = None  # (B, 8, L), here L = D / 8, in the order of dsa_ext.parts.BODY_NAMES

    def plus(self, other: "Features") -> "Features":
        """Fusion by addition: z = f + d (section 3.3)."""
        return Features(*(None if x is None or y is None else x + y for x, y in zip(self, other)))

    def vectors(self) -> list[Tensor]:
        """What there is of global and local, as (B, D) and (B, 8 * L)."""
        return [x.flatten(1) for x in self if x is not None]

    def embedding(self) -> Tensor:
        """(B, D + 8 * L) for matching: global and local, each L2-normalised, side by side."""
        return torch.cat([F.normalize(x.float(), dim=1) for x in self.vectors()], 1)


def pooled(x: Tensor, global_head: nn.Module | None, local_head: nn.Module | None) -> Features:
    """The last stage of a stream: what the heads that there are make of x, averaged over the pixels."""
    whole = local = None
    if global_head is not None:
        whole = global_head(x).mean((2, 3))  # [B, 2048]
    if local_head is not None:
        local = local_head(x).mean((2, 3)).unflatten(1, (8, -1))  # [B, 8, 256]
    return Features(whole, local)
