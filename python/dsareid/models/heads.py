"""Fusion and ID classifiers, the layers that follow the streams (section 3.3 of the paper)."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from dsareid.models.branch import linear
from dsareid.models.features import Features
from dsareid.models.options import ClassifierKind, Guidance
from dsareid.models.part_pooling import PartScores


class Logits(NamedTuple):
    """Scores over the identities, for each kind of feature; None without that feature."""

    f_global: Tensor | None  # (B, N)
    f_local: Tensor | None  # (B, 8, N): each part has a classifier of its own
    z_global: Tensor | None  # (B, N)
    z_local: Tensor | None  # (B, N)
    d_global: Tensor | None = None  # (B, N), with guidance "distill" only
    d_local: Tensor | None = None  # (B, N)


class Output(NamedTuple):
    """A batch's features and logits, from which losses() computes the training loss."""

    f: Features
    d: Features | None  # None with a single stream
    z: Features  # f itself with a single stream or guidance "distill"
    logits: Logits
    parts: PartScores | None = None  # with guidance "pool" only
    texture: Tensor | None = None  # (B, D), with guidance "texture" only


def classifier(kind: ClassifierKind, inputs: int, identities: int, branches: int = 1) -> nn.Sequential:
    """An ID classifier: two fully connected layers, or BatchNorm before a single one.

    "bnneck" is "batchnorm" with the BatchNorm's bias fixed at 0, and images are matched by its output (Luo
    et al., Bag of Tricks and a Strong Baseline for Deep Person Re-identification, 2019; not in the paper).

    With several branches there is one for each, side by side: (B, branches * inputs) -> (B, branches *
    identities).
    """
    if kind == "two-layer":
        hidden = linear(branches, inputs, 512), nn.BatchNorm1d(branches * 512), nn.ReLU(inplace=True)
        return nn.Sequential(*hidden, linear(branches, 512, identities))
    norm, last = nn.BatchNorm1d(branches * inputs), linear(branches, inputs, identities, bias=False)
    norm.bias.requires_grad_(kind != "bnneck")
    nn.init.normal_(last.weight, std=0.001)
    return nn.Sequential(norm, last)


class Heads(nn.Module):
    """Fusion and ID classifiers; the streams belong to a subclass or to the caller.

    Args:
        num_classes: identities in the training set.
        guidance: how d guides f; None for a single stream.
        classifier_kind: see classifier().

    Raises:
        ValueError: num_classes is less than 1, or there is no such guidance or kind.
    """

    def __init__(self, num_classes: int, guidance: Guidance | None, classifier_kind: ClassifierKind):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if guidance is not None and guidance not in get_args(Guidance):
            raise ValueError(f"guidance must be one of {', '.join(get_args(Guidance))}, not {guidance!r}")
        if classifier_kind not in get_args(ClassifierKind):
            kinds = ", ".join(get_args(ClassifierKind))
            raise ValueError(f"classifier_kind must be one of {kinds}, not {classifier_kind!r}")
        self.num_classes, self.guidance, self.classifier_kind = num_classes, guidance, classifier_kind

    def add_heads(self, global_size: int | None, local_size: int | None) -> None:
        """Add classifiers and fusion for features of these sizes; None for a feature that does not exist.

        A subclass calls this after making its streams: the order of the modules decides which weights a
        seed draws, and where a checkpoint keeps each parameter's moments.
        """

        def new(inputs: int | None, wanted: bool = True, branches: int = 1) -> nn.Sequential | None:
            kind, count = self.classifier_kind, self.num_classes
            return classifier(kind, inputs, count, branches) if inputs and wanted else None

        teaches, eight = self.guidance == "distill", local_size and 8 * local_size
        self.classify_f_global = new(global_size)
        self.classify_f_local = new(local_size, branches=8)
        self.classify_z_global = new(global_size)
        self.classify_z_local = new(eight)
        self.classify_d_global = new(global_size, teaches)
        self.classify_d_local = new(eight, teaches)
        self.fusion = ConcatFusion(global_size, local_size) if self.guidance == "concat" else None

    def fuse(self, f: Features, d: Features | None) -> Features:
        """z: f and d fused as `guidance` says, or f itself."""
        if d is None or self.guidance == "distill":
            return f
        if self.guidance == "gate" and self.training:
            d = d.every_other()
        return f.plus(d) if self.fusion is None else self.fusion(f, d)

    def embedding(self, vector: Literal["f", "z", "d"], features: Features) -> Tensor:
        """The vector that images are matched by, see Features.embedding; with "bnneck", behind the necks.

        Only guidance "distill" gives d classifiers, and so necks; otherwise d is used as it is.
        """
        whole, local = features
        if self.classifier_kind != "bnneck":
            return features.embedding()
        if (head := getattr(self, f"classify_{vector}_global")) is not None:
            whole = head[0](whole)
        if local is not None and (head := getattr(self, f"classify_{vector}_local")) is not None:
            local = head[0](local.flatten(1)).unflatten(1, (8, -1))
        return Features(whole, local).embedding()

    def output(self, f: Features, d: Features | None) -> Output:
        """Fuse and classify: the output in training."""
        z = self.fuse(f, d)
        return Output(f, d, z, self._classify(f, d, z))

    def _classify(self, f: Features, d: Features | None, z: Features) -> Logits:
        def scores(head: nn.Module | None, features: Tensor | None) -> Tensor | None:
            return None if head is None or features is None else head(features.flatten(1))

        parts = scores(self.classify_f_local, f.local)
        d = d or Features(None)
        return Logits(
            scores(self.classify_f_global, f.global_),
            None if parts is None else parts.unflatten(1, (8, -1)),
            scores(self.classify_z_global, z.global_),
            scores(self.classify_z_local, z.local),
            scores(self.classify_d_global, d.global_),
            scores(self.classify_d_local, d.local),
        )


class ConcatFusion(nn.Module):
    """Fusion by concatenation (Table 5): per branch, [f, d] through one fully connected layer.

    4096 -> 2048 for the global features, 512 -> 256 for each of the eight local ones, at the paper's widths.

    Args:
        global_size, local_size: lengths of both f and d; None without that branch.
    """

    def __init__(self, global_size: int | None, local_size: int | None):
        super().__init__()
        self.global_ = nn.Linear(2 * global_size, global_size) if global_size else None
        self.local = linear(8, 2 * local_size, local_size) if local_size else None

    def forward(self, f: Features, d: Features) -> Features:
        whole = local = None
        if self.global_ is not None and f.global_ is not None and d.global_ is not None:
            whole = self.global_(torch.cat([f.global_, d.global_], 1))  # [B, D]
        if self.local is not None and f.local is not None and d.local is not None:
            pairs = torch.cat([f.local, d.local], 2)  # [B, 8, 2 * D / 8]
            local = self.local(pairs.flatten(1)).unflatten(1, (8, -1))
        return Features(whole, local)
