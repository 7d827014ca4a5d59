"""The losses of section 3.3: ID losses and batch-hard triplet losses."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dsareid.models import Output


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses."""

    id_f: float = 0.5
    """ID loss on f_G, and on f_L (the mean over its eight parts)."""
    id_z: float = 1.0
    """ID loss on z_G, and on z_L."""
    triplet_z: float = 1.5
    """Batch-hard triplet loss on z_G, and on z_L."""
    margin: float = 0.3
    """Margin of the triplet loss."""
    smoothing: float = 0.1
    """Label smoothing of every ID loss."""


def batch_hard_triplet(features: Tensor, label: Tensor, margin: float) -> Tensor:
    """Batch-hard triplet loss on unnormalised vectors: the farthest positive, the nearest negative.

    Args:
        features: (B, D) floating; computed in float32.
        label: int64 (B,).

    Returns:
        The mean over the batch of max(0, d_positive - d_negative + margin), a scalar.
    """
    features = features.float()
    square = features.square().sum(1)
    distance = square[:, None] + square - 2 * features @ features.T  # [B, B]
    distance = distance.clamp(min=1e-12).sqrt()
    same = label[:, None] == label
    positive = distance.masked_fill(~same, -torch.inf).amax(1)  # [B]
    negative = distance.masked_fill(same, torch.inf).amin(1)  # [B]
    return F.relu(positive - negative + margin).mean()


def losses(output: Output, label: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """The weighted terms of the training loss, by name; their sum is what training minimises."""

    def identity(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), label, label_smoothing=config.smoothing)

    def triplet(features: Tensor) -> Tensor:
        return config.triplet_z * batch_hard_triplet(features, label, config.margin)

    logits, z = output.logits, output.z
    terms = {
        "id_f_global": config.id_f * identity(logits.f_global),
        "id_z_global": config.id_z * identity(logits.z_global),
        "triplet_z_global": triplet(z.global_),
    }
    if z.local is not None:
        parts = torch.stack([identity(part) for part in logits.f_local])
        terms["id_f_local"] = config.id_f * parts.mean()
        terms["id_z_local"] = config.id_z * identity(logits.z_local)
        terms["triplet_z_local"] = triplet(z.local.flatten(1))
    return terms
