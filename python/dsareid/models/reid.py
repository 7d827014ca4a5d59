"""The networks to train: DSA-reID, its MF-Stream alone, and the ResNet-50 baseline."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from dsareid.models.branch import zero_last_scales
from dsareid.models.dsag import DSAGStream
from dsareid.models.features import Features
from dsareid.models.mf import MFStream

ClassifierKind = Literal["two-layer", "batchnorm"]


class Logits(NamedTuple):
    """Scores over the identities, by the features they come from."""

    f_global: Tensor  # (B, N)
    f_local: list[Tensor]  # eight (B, N); empty for the baseline
    z_global: Tensor  # (B, N)
    z_local: Tensor | None  # (B, N)


class Output(NamedTuple):
    """What training sees of a batch."""

    f: Features
    d: Features | None  # None without a DSAG-Stream; then z is f
    z: Features
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
    """The two-stream network (section 3), or with guided=False its MF-Stream alone.

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
        guided: with the DSAG-Stream. Without it the losses on z act on f.
        local: with the eight local branches.
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
        guided: bool = True,
        local: bool = True,
    ):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        self.mf = MFStream(width, head_width, depths, local)
        self.dsag = DSAGStream(head_width) if guided else None
        size = 4 * int(512 * head_width)

        def new(inputs: int) -> nn.Sequential:
            return classifier(classifier_kind, inputs, num_classes)

        self.classify_f_global = new(size)
        self.classify_f_local = nn.ModuleList([new(size // 8) for _ in range(8 if local else 0)])
        self.classify_z_global = new(size)
        self.classify_z_local = new(size) if local else None
        if zero_init:
            zero_last_scales(self)

    def forward(self, image: Tensor, dsap: Tensor | None = None) -> Output | Tensor:
        """image (B, 3, H, W) and dsap (B, 24, 3, S, S), floating and normalised.

        Raises:
            ValueError: train mode with a DSAG-Stream and no dsap.
        """
        if not self.training:
            return self.mf(image).embedding()
        f = self.mf(image)
        d = None
        if self.dsag is not None:
            if dsap is None:
                raise ValueError("dsap is missing: in train mode DSAReID takes (image, dsap)")
            d = self.dsag(dsap)
        z = f if d is None else f + d
        return Output(f, d, z, self._classify(f, z))

    def fused(self, image: Tensor, dsap: Tensor) -> Tensor:
        """The (B, 2 * D) embedding [z_G, z_L] of the fused streams, z = f + d.

        Raises:
            ValueError: the model has no DSAG-Stream.
        """
        if self.dsag is None:
            raise ValueError("fused features need the DSAG-Stream, which this model does not have")
        return (self.mf(image) + self.dsag(dsap)).embedding()

    def _classify(self, f: Features, z: Features) -> Logits:
        local, z_local = [], None
        if f.local is not None:
            local = [head(x) for head, x in zip(self.classify_f_local, f.local.unbind(1))]
            z_local = self.classify_z_local(z.local.flatten(1))
        return Logits(
            self.classify_f_global(f.global_), local, self.classify_z_global(z.global_), z_local
        )


class TwoBranch(DSAReID):
    """The MF-Stream alone (Table 3, "Two branches"): DSAReID with d = 0."""

    def __init__(self, num_classes: int, **options):
        super().__init__(num_classes, guided=False, **options)


class Baseline(DSAReID):
    """ResNet-50 without its last stride, global feature only (Table 3, "Baseline")."""

    def __init__(self, num_classes: int, **options):
        super().__init__(num_classes, guided=False, local=False, **options)
