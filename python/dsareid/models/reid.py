"""The network to train: DSA-reID, or one of its streams."""

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dsareid.models.branch import zero_last_scales
from dsareid.models.dsag import DSAGStream
from dsareid.models.features import Features
from dsareid.models.heads import Heads, Output
from dsareid.models.mf import MFStream
from dsareid.models.options import (
    PAPER_DEPTHS,
    RESNET,
    STREAM_GUIDANCE,
    ClassifierKind,
    Guidance,
    TrunkStage,
)
from dsareid.models.part_pooling import PartPooling
from dsareid.models.table import Branches, Streams
from dsareid.models.texture_head import TextureHead
from dsareid.models.trunks import TimmTrunk, build_trunk


class DSAReID(Heads):
    """The two-stream network (section 3), or one of its streams.

    In train mode it takes (image, dsap) and returns an Output; in eval mode it takes the image
    alone and returns the (B, 2 * D) embedding [f_G, f_L], each half L2-normalised, D = 2048 at the
    paper's widths. Nothing is downloaded; see dsareid.runs.network for ImageNet weights.

    Args:
        num_classes: identities in the training set.
        trunk, trunk_stage: see build_trunk.
        width, head_width, depths: see ResNetTrunk, MFStream; head_width also scales the DSAG-Stream, because
            z = f + d needs equal sizes. With a trunk of timm both are scaled to it, see TimmTrunk.head_width.
        classifier_kind: "two-layer" is the paper's; for "bnneck" see Heads.embedding.
        zero_init: start every residual block as its shortcut (not in the paper; small networks
            that start from random weights need it).
        streams: "both"; "mf": the MF-Stream alone, so the losses on z act on f; "dsag": the DSAG-Stream
            alone, whose features of the DSAP-images are then f.
        branches: "global" or "local" keeps only those branches (Table 3).
        guidance: "add": z = f + d (the paper's); "gate": the same for every other sample of a training batch,
            z = f for the rest (not in the paper); "concat": per branch, [f, d] through one fully connected
            layer (Table 5); "distill": z = f; the guide has its own losses, and its logits teach f (not in
            the paper). "pool", "texture": there is no DSAG-Stream, but a PartPooling of the trunk's features,
            or a TextureHead on f (not in the paper).
        texture_size: length of what the TextureHead predicts.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        trunk: str = RESNET,
        trunk_stage: TrunkStage = "sixteenth",
        width: float = 1.0,
        head_width: float = 1.0,
        depths: Sequence[int] = PAPER_DEPTHS,
        classifier_kind: ClassifierKind = "two-layer",
        zero_init: bool = False,
        streams: Streams = "both",
        branches: Branches = "both",
        guidance: Guidance = "add",
        texture_size: int = 0,
    ):
        super().__init__(num_classes, guidance if streams == "both" else None, classifier_kind)
        self.mf: MFStream | None = None
        self.dsag: DSAGStream | None = None
        # Without an MF-Stream its trunk still says how wide the DSAG-Stream is; nothing is allocated for it.
        with contextlib.nullcontext() if streams != "dsag" else torch.device("meta"):
            built = build_trunk(trunk, width, depths[:3], trunk_stage)
        if isinstance(built, TimmTrunk):
            head_width = built.head_width(head_width)
        if streams != "dsag":
            self.mf = MFStream(built, head_width, depths[3], branches)
        if streams == "dsag" or self.guidance in STREAM_GUIDANCE:
            self.dsag = DSAGStream(head_width, branches)
        size = 4 * int(512 * head_width)
        sizes = (size if branches != "local" else None), (size // 8 if branches != "global" else None)
        self.add_heads(*sizes)
        self.pooling: PartPooling | None = None
        self.texture: TextureHead | None = None
        if self.mf and self.guidance == "pool":
            self.pooling = PartPooling(self.mf.trunk.channels, num_classes)
        if self.guidance == "texture":
            self.texture = TextureHead((sizes[0] or 0) + 8 * (sizes[1] or 0), texture_size)
        if zero_init:
            zero_last_scales(self)

    def forward(self, image: Tensor | None, dsap: Tensor | None = None) -> Output | Tensor:
        """image (B, 3, H, W) and dsap (B, 24, 3, S, S), floating and normalised.

        In eval mode a network of the DSAG-Stream alone takes (None, dsap).

        Raises:
            ValueError: dsap is needed but missing.
        """
        if not self.training:
            return self.embedding("f", self._stream(self._first, image, dsap))
        if self.pooling is not None:
            return self._pooled(image, dsap)
        output = self.output(*self.streams(image, dsap))
        return output if self.texture is None else output._replace(texture=self.texture(output.f))

    def _pooled(self, image: Tensor | None, part: Tensor | None) -> Output:
        """The output with aligned pooling, whose input beside the image is its map."""
        if part is None:
            raise ValueError("dsap is missing: this model takes (image, the part of each pixel)")
        assert self.mf is not None and self.pooling is not None
        x = self.mf.trunk(image)
        return self.output(self.mf.features(x), None)._replace(parts=self.pooling(x, part))

    def streams(self, image: Tensor | None, dsap: Tensor | None) -> tuple[Features, Features | None]:
        """f and d; with a single stream, its features and None."""
        f = self._stream(self._first, image, dsap)
        return f, self._stream(self.dsag, image, dsap) if self.mf and self.dsag else None

    @property
    def _first(self) -> nn.Module:
        """The stream whose features are f."""
        first = self.mf or self.dsag
        assert first is not None  # by __init__
        return first

    def fused(self, image: Tensor, dsap: Tensor) -> Tensor:
        """The (B, 2 * D) embedding [z_G, z_L] of the fused streams; with guidance "pool", whose dsap is the
        part of each pixel, [f_G, f_L] and the parts.

        Raises:
            ValueError: the model has a single stream, or guidance "distill".
        """
        if self.pooling is not None and self.mf is not None:
            x = self.mf.trunk(image)
            return torch.cat([self.embedding("f", self.mf.features(x)), self.pooling.embedding(x, dsap)], 1)
        if self.guidance not in ("add", "gate", "concat"):
            raise ValueError("fused features need an MF-Stream and a DSAG-Stream that are fused")
        return self.embedding("z", self.fuse(*self.streams(image, dsap)))

    def guide(self, dsap: Tensor) -> Tensor:
        """The (B, 2 * D) embedding [d_G, d_L] of the DSAG-Stream.

        Raises:
            ValueError: the model has no DSAG-Stream.
        """
        if self.dsag is None:
            raise ValueError("the guide's features need the DSAG-Stream, which this model does not have")
        # A DSAG-Stream alone takes the MF-Stream's place: its features are the classifiers' f.
        return self.embedding("d" if self.mf else "f", self.dsag(dsap))

    def parts(self, image: Tensor, part: Tensor) -> Tensor:
        """The embedding of the parts that guidance "pool" pools, see PartPooling.embedding.

        Raises:
            ValueError: another guidance.
        """
        if self.pooling is None or self.mf is None:
            raise ValueError('parts are pooled with guidance "pool" alone')
        return self.pooling.embedding(self.mf.trunk(image), part)

    def _stream(self, stream: nn.Module, image: Tensor | None, dsap: Tensor | None) -> Features:
        if stream is self.mf:
            return stream(image)
        if dsap is None:
            raise ValueError("dsap is missing: this model takes (image, dsap)")
        return stream(dsap)
