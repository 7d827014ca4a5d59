"""The losses of section 3.3: ID losses and batch-hard triplet losses."""

import torch
import torch.nn.functional as F
from torch import Tensor

from dsareid.ground.distributed import current_group, gather_batch, gather_rows
from dsareid.models.heads import Output
from dsareid.models.options import LossConfig
from dsareid.models.part_pooling import PartScores
from dsareid.models.texture_head import PersonTargets


def batch_hard_triplet(
    features: Tensor, label: Tensor, margin: float, others: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Batch-hard triplet loss on unnormalised vectors: the farthest positive, the nearest negative.

    Args:
        features: (B, D) floating; computed in float32.
        label: int64 (B,).
        others: features (N, D) and labels (N,) to mine positives and negatives from; default: the batch.

    Returns:
        The mean over the batch of max(0, d_positive - d_negative + margin), a scalar.
    """
    features = features.float()
    other, other_label = (features, label) if others is None else (others[0].float(), others[1])
    square = features.square().sum(1)
    other_square = square if other is features else other.square().sum(1)
    distance = square[:, None] + other_square - 2 * features @ other.T  # [B, N]
    distance = distance.clamp(min=1e-12).sqrt()
    same = label[:, None] == other_label
    positive = distance.masked_fill(~same, -torch.inf).amax(1)  # [B]
    negative = distance.masked_fill(same, torch.inf).amin(1)  # [B]
    return F.relu(positive - negative + margin).mean()


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's softened scores from the teacher's, times temperature squared.

    Args:
        student, teacher: (B, N) logits; computed in float32. No gradient reaches the teacher.
    """
    soft = F.log_softmax(teacher.detach().float() / temperature, 1)
    ours = F.log_softmax(student.float() / temperature, 1)
    return F.kl_div(ours, soft, reduction="batchmean", log_target=True) * temperature**2


def losses(
    output: Output,
    label: Tensor,
    config: LossConfig,
    teaching: bool = False,
    targets: PersonTargets | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of the training loss, by name; their sum is what training minimises.

    Args:
        teaching: with guidance "distill", whether the guide teaches yet (after the warm-up).
        targets: with guidance "texture", what each identity looks like.

    Raises:
        ValueError: targets are needed but missing.
    """

    def identity(logits: Tensor) -> Tensor:
        """Of (B, N) scores, or the mean over the branches of (B, branches, N)."""
        labels = label if logits.dim() == 2 else label[:, None].expand(logits.shape[:2]).flatten()
        scores = logits.float().flatten(0, -2)
        return F.cross_entropy(scores, labels, label_smoothing=config.smoothing)

    def triplet(features: Tensor) -> Tensor:
        features = features.flatten(1)  # several processes mine triplets in the whole batch
        others = None if current_group().alone else (gather_batch(features), gather_rows(label))
        return config.triplet_z * batch_hard_triplet(features, label, config.margin, others)

    logits = output.logits
    terms: dict[str, Tensor] = {}
    if output.parts is not None:
        terms["id_parts"] = config.pool * _of_parts(output.parts, label, config.smoothing)
    if output.texture is not None:
        if targets is None:
            raise ValueError("targets are missing: this network predicts what each identity looks like")
        known = targets.known[label]
        off = F.smooth_l1_loss(output.texture.float(), targets.values[label], reduction="none")
        terms["texture"] = config.texture * (off * known).sum() / known.sum().clamp(min=1)
    for branch, f_scores, z_scores, d_scores, z, d in zip(
        ("global", "local"),
        (logits.f_global, logits.f_local),
        (logits.z_global, logits.z_local),
        (logits.d_global, logits.d_local),
        output.z,
        output.d or (None, None),
    ):
        if f_scores is None or z_scores is None:
            continue
        terms[f"id_f_{branch}"] = config.id_f * identity(f_scores)
        terms[f"id_z_{branch}"] = config.id_z * identity(z_scores)
        terms[f"triplet_z_{branch}"] = triplet(z)
        if d_scores is None:
            continue
        terms[f"id_d_{branch}"] = config.id_z * identity(d_scores)
        terms[f"triplet_d_{branch}"] = triplet(d)
        if teaching:
            taught = distillation(z_scores, d_scores, config.temperature)
            terms[f"distill_{branch}"] = config.distill * taught
    return terms


def _of_parts(parts: PartScores, label: Tensor, smoothing: float) -> Tensor:
    """The mean ID loss of the parts that are seen."""
    scores = parts.logits.float().flatten(0, 1)
    labels = label.repeat_interleave(parts.seen.shape[1])
    each = F.cross_entropy(scores, labels, label_smoothing=smoothing, reduction="none")
    return (each * parts.seen.flatten()).sum() / parts.seen.sum().clamp(min=1)
