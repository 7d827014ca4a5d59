"""The networks to train: DSA-reID, its MF-Stream alone, and the ResNet-50 baseline."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dsareid.models.branch import zero_last_scales
from dsareid.models.dsag import DSAGStream
from dsareid.models.features import Branches, Features
from dsareid.models.mf import MFStream

ClassifierKind = Literal["two-layer", "batchnorm"]
Streams = Literal["both", "mf", "dsag"]
Guidance = Literal["add", "concat", "distill"]


class Logits(NamedTuple):
    """Scores over the identities, by the features they come from; None or empty where there are none."""

    f_global: Tensor | None  # (B, N)
    f_local: list[Tensor]  # eight (B, N)
    z_global: Tensor | None  # (B, N)
    z_local: Tensor | None  # (B, N)
    d_global: Tensor | None = None  # (B, N), of a guide that teaches
    d_local: Tensor | None = None  # (B, N)


class Output(NamedTuple):
    """What training sees of a batch."""

    f: Features
    d: Features | None  # None of a single stream
    z: Features  # f itself, of a single stream and where the guide teaches
    logits: Logits


def classifier(kind: ClassifierKind, inputs: int, identities: int) -> nn.Sequential:
    """An ID classifier: two fully connected layers, or BatchNorm before a single one."""
    if kind == "two-layer":
        hidden = (nn.Linear(inputs, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True))
        return nn.Sequential(*hidden, nn.Linear(512, identities))
    last = nn.Linear(inputs, identities, bias=False)
    nn.init.normal_(last.weight, std=0.001)
    return nn.Sequential(nn.BatchNorm1d(inputs), last)


class DSAReID(nn.Module):
    """The two-stream network (section 3), or one of its streams.

    In train mode it takes (image, dsap) and returns an Output; in eval mode it takes the image
    alone and returns the (B, 2 * D) embedding [f_G, f_L], each half L2-normalised, D = 2048 at the
    paper's widths. Nothing is downloaded; see dsareid.models.weights for ImageNet weights.

    Args:
        num_classes: identities in the training set.
        width, head_width, depths: see MFStream; head_width also scales the DSAG-Stream, because
            z = f + d needs equal sizes.
        classifier_kind: "two-layer" is the paper's.
        zero_init: start every residual block as its shortcut (not in the paper; small networks
            that start from random weights need it).
        streams: "both"; "mf": without the DSAG-Stream the losses on z act on f; "dsag": that stream alone,
            which takes the place of the other: f is what it makes of the DSAP-images.
        branches: "global" or "local" leaves the other branches out (Table 3).
        guidance: "add": z = f + d (the paper's); "concat": per branch, [f, d] through one fully connected
            layer (Table 5); "distill": z = f, and the guide, trained by losses of its own, teaches f by its
            logits (not in the paper).
        parts, reversed_charts: see DSAGStream.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        width: float = 1.0,
        head_width: float = 1.0,
        depths: Sequence[int] = (3, 4, 6, 3),
        classifier_kind: ClassifierKind = "two-layer",
        zero_init: bool = False,
        streams: Streams = "both",
        branches: Branches = "both",
        guidance: Guidance = "add",
        parts: int = 24,
        reversed_charts: bool = False,
    ):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        self.num_classes = num_classes
        self.mf = self.dsag = None
        if streams != "dsag":
            self.mf = MFStream(width, head_width, depths, branches)
        if streams != "mf":
            self.dsag = DSAGStream(head_width, branches, parts, reversed_charts)
        self.guidance = guidance if streams == "both" else None
        size = 4 * int(512 * head_width)
        has_global, has_local = branches != "local", branches != "global"

        def new(inputs: int, wanted: bool = True) -> nn.Sequential | None:
            return classifier(classifier_kind, inputs, num_classes) if wanted else None

        self.classify_f_global = new(size, has_global)
        self.classify_f_local = nn.ModuleList([new(size // 8) for _ in range(8 if has_local else 0)])
        self.classify_z_global = new(size, has_global)
        self.classify_z_local = new(size, has_local)
        self.classify_d_global = new(size, has_global and self.guidance == "distill")
        self.classify_d_local = new(size, has_local and self.guidance == "distill")
        self.fusion = ConcatFusion(size, has_global, has_local) if self.guidance == "concat" else None
        if zero_init:
            zero_last_scales(self)

    def forward(self, image: Tensor | None, dsap: Tensor | None = None) -> Output | Tensor:
        """image (B, 3, H, W) and dsap (B, parts, 3, S, S), floating and normalised.

        In eval mode a network of the DSAG-Stream alone takes (None, dsap).

        Raises:
            ValueError: dsap is missing and needed.
        """
        if self.training:
            f, d = self.streams(image, dsap)
            z = self.fuse(f, d)
            return Output(f, d, z, self._classify(f, d, z))
        return self._stream(self.mf or self.dsag, image, dsap).embedding()

    def streams(self, image: Tensor | None, dsap: Tensor | None) -> tuple[Features, Features | None]:
        """f and d; of a network with one stream that stream's features and None."""
        f = self._stream(self.mf or self.dsag, image, dsap)
        return f, self._stream(self.dsag, image, dsap) if self.mf and self.dsag else None

    def fuse(self, f: Features, d: Features | None) -> Features:
        """z, as the guidance says."""
        if d is None or self.guidance == "distill":
            return f
        return f + d if self.fusion is None else self.fusion(f, d)

    def fused(self, image: Tensor, dsap: Tensor) -> Tensor:
        """The (B, 2 * D) embedding [z_G, z_L] of the fused streams.

        Raises:
            ValueError: the model has a single stream, or one that teaches the other instead.
        """
        if self.guidance not in ("add", "concat"):
            raise ValueError("fused features need an MF-Stream and a DSAG-Stream that are fused")
        return self.fuse(*self.streams(image, dsap)).embedding()

    def guide(self, dsap: Tensor) -> Tensor:
        """The (B, 2 * D) embedding [d_G, d_L] of the DSAG-Stream.

        Raises:
            ValueError: the model has no DSAG-Stream.
        """
        if self.dsag is None:
            raise ValueError("the guide's features need the DSAG-Stream, which this model does not have")
        return self.dsag(dsap).embedding()

    def _stream(self, stream: nn.Module, image: Tensor | None, dsap: Tensor | None) -> Features:
        if stream is self.mf:
            return stream(image)
        if dsap is None:
            raise ValueError("dsap is missing: this model takes (image, dsap)")
        return stream(dsap)

    def _classify(self, f: Features, d: Features | None, z: Features) -> Logits:
        def scores(head: nn.Module | None, features: Tensor | None) -> Tensor | None:
            return None if head is None else head(features.flatten(1))

        local = []
        if f.local is not None:
            local = [head(x) for head, x in zip(self.classify_f_local, f.local.unbind(1))]
        d = d or Features(None)
        return Logits(
            scores(self.classify_f_global, f.global_), local, scores(self.classify_z_global, z.global_),
            scores(self.classify_z_local, z.local), scores(self.classify_d_global, d.global_),
            scores(self.classify_d_local, d.local),
        )  # fmt: skip


class ConcatFusion(nn.Module):
    """Fusion by concatenation (Table 5): per branch, [f, d] through one fully connected layer.

    4096 -> 2048 for the global features, 512 -> 256 for each of the eight local ones, at the paper's widths.
    """

    def __init__(self, size: int, has_global: bool, has_local: bool):
        super().__init__()
        part = size // 8
        self.global_ = nn.Linear(2 * size, size) if has_global else None
        self.local = nn.ModuleList([nn.Linear(2 * part, part) for _ in range(8 if has_local else 0)])

    def forward(self, f: Features, d: Features) -> Features:
        whole = local = None
        if self.global_ is not None:
            whole = self.global_(torch.cat([f.global_, d.global_], 1))  # [B, D]
        if self.local:
            pairs = torch.cat([f.local, d.local], 2).unbind(1)  # eight [B, 2 * D / 8]
            local = torch.stack([layer(pair) for layer, pair in zip(self.local, pairs)], 1)
        return Features(whole, local)


class TwoBranch(DSAReID):
    """The MF-Stream alone (Table 3, "Two branches"): DSAReID with d = 0."""

    def __init__(self, num_classes: int, **options):
        super().__init__(num_classes, streams="mf", **options)


class Baseline(DSAReID):
    """ResNet-50 without its last stride, global feature only (Table 3, "Baseline")."""

    def __init__(self, num_classes: int, **options):
        super().__init__(num_classes, streams="mf", branches="global", **options)
