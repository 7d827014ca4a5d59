"""A stream's features of an image: one global vector and eight local ones."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Features(NamedTuple):
    """Pooled features of a batch: f of the MF-Stream, d of the DSAG-Stream, or their fusion z.

    A field is None if the network does not have that branch.
    """

    global_: Tensor | None  # (B, D), D = 2048 at the paper's widths
    local: Tensor | None = None  # (B, 8, L), L = 256 likewise, in the order of dsa_ext.parts.BODY_NAMES

    def plus(self, other: "Features") -> "Features":
        """Fusion by addition: z = f + d (section 3.3)."""
        return Features(*(None if x is None or y is None else x + y for x, y in zip(self, other)))

    def every_other(self) -> "Features":
        """The same, but 0 for the first sample of the batch, the third, the fifth, and so on."""

        def gated(x: Tensor) -> Tensor:
            return x * (torch.arange(len(x), device=x.device) % 2).view(-1, *[1] * (x.dim() - 1))

        return Features(*(None if x is None else gated(x) for x in self))

    def vectors(self) -> list[Tensor]:
        """The global and local features that exist, as (B, D) and (B, 8 * L)."""
        return [x.flatten(1) for x in self if x is not None]

    def embedding(self) -> Tensor:
        """(B, D + 8 * L) for matching: global and local, each L2-normalised, side by side."""
        return torch.cat([F.normalize(x.float(), dim=1) for x in self.vectors()], 1)


def pooled(x: Tensor, global_head: nn.Module | None, local_head: nn.Module | None) -> Features:
    """The last stage of a stream: each head's output, averaged over the pixels; None without the head."""
    whole = local = None
    if global_head is not None:
        whole = global_head(x).mean((2, 3))  # [B, 2048]
    if local_head is not None:
        local = local_head(x).mean((2, 3)).unflatten(1, (8, -1))  # [B, 8, 256]
    return Features(whole, local)
