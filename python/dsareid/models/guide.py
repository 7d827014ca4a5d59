"""DSA guidance for your own backbone: the guide helps to train it and is dropped afterwards::

    guide = Guide(dataset.identities, global_size=512, local_size=64, width=1 / 8)
    for batch in loader:                            # over dsareid.data.torch_dataset.DSAPDataset, for example
        output = guide(*backbone(batch.image), batch.dsap)
        loss = sum(losses(output, batch.label, LossConfig()).values())
        ...                                         # the optimizer updates backbone and guide

The trained backbone works alone. examples/guide_*.py are complete loops, with torchvision's and timm's.
"""

from torch import Tensor

from dsareid.models.dsag import DSAGStream
from dsareid.models.features import Features
from dsareid.models.heads import Heads, Logits, Output
from dsareid.models.losses import losses
from dsareid.models.options import STREAM_GUIDANCE, ClassifierKind, Guidance, LossConfig
from dsareid.models.table import Branches

_Shape = tuple[int | str, ...]

__all__ = ["Features", "Guide", "Logits", "LossConfig", "Output", "losses"]


class Guide(Heads):
    """The DSAG-Stream (section 3.2), fusion and ID classifiers (3.3), around the features of any backbone.

    In train mode it takes (f_global, f_local, dsap) and returns an Output, for losses().

    In eval mode it takes (f_global, f_local) and returns the (B, global_size + 8 * local_size) embedding,
    each half L2-normalised. Only "bnneck" needs the guide for that: otherwise
    Features(f_global, f_local).embedding() gives the same.

    Args:
        num_classes: identities in the training set.
        global_size: length of the backbone's global feature; None if it has none.
        local_size: length of each of its eight part features, in the order of dsa_ext.parts.BODY_NAMES; None
            if it has none.
        guidance: "add": z = f + d (the paper's); "gate": the same for every other sample of a training batch,
            z = f for the rest (not in the paper); "concat": per branch, [f, d] through one fully connected
            layer (Table 5); "distill": the guide has its own losses, and its logits teach f when losses()
            gets teaching=True (not in the paper).
        width: scales the DSAG-Stream's inner channels, at least 1/32; 1 is the paper's.
        classifier_kind: "two-layer" is the paper's. "batchnorm": BatchNorm and a single layer. "bnneck": the
            same, and images are matched by f after that BatchNorm (Luo et al., 2019).

    Raises:
        ValueError: one of these is out of range, or there is neither a global nor a local feature.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        global_size: int | None,
        local_size: int | None = None,
        guidance: Guidance = "add",
        width: float = 1.0,
        classifier_kind: ClassifierKind = "two-layer",
    ):
        if guidance not in STREAM_GUIDANCE:
            raise ValueError(f"guidance must be one of {', '.join(STREAM_GUIDANCE)}, not {guidance!r}")
        super().__init__(num_classes, guidance, classifier_kind)
        for name, size in (("global_size", global_size), ("local_size", local_size)):
            if size is not None and size < 1:
                raise ValueError(f"{name} must be at least 1, or None, not {size}")
        if global_size is None and local_size is None:
            raise ValueError("global_size or local_size must be given: there is nothing to guide")
        self.global_size, self.local_size = global_size, local_size
        branches: Branches = "local" if global_size is None else "global" if local_size is None else "both"
        self.dsag = DSAGStream(width, branches, global_size, local_size)
        self.add_heads(global_size, local_size)

    def forward(
        self, f_global: Tensor | None, f_local: Tensor | None = None, dsap: Tensor | None = None
    ) -> Output | Tensor:
        """A batch's features, and in train mode its DSAP-images.

        Args:
            f_global: floating (B, global_size), not normalised.
            f_local: floating (B, 8, local_size), likewise. Each must be None if its size is.
            dsap: floating (B, 24, 3, S, S), normalised, empty cells 0.

        Raises:
            ValueError: a tensor is missing, must be None, or has a wrong shape or type.
        """
        given = {"f_global": f_global, "f_local": f_local}
        shapes: dict[str, _Shape | None] = {
            "f_global": ("B", self.global_size) if self.global_size else None,
            "f_local": ("B", 8, self.local_size) if self.local_size else None,
        }
        if self.training:
            given["dsap"], shapes["dsap"] = dsap, ("B", 24, 3, "S", "S")
        _check(given, shapes)
        f = Features(f_global, f_local)
        return self.output(f, self.dsag(given["dsap"])) if self.training else self.embedding("f", f)


def _check(given: dict[str, Tensor | None], shapes: dict[str, _Shape | None]) -> None:
    """Raise ValueError if a tensor has another shape; a letter is the same number in all shapes."""
    letters: dict[int | str, int] = {}
    for name, shape in shapes.items():
        x = given[name]
        if shape is None:
            if x is not None:
                raise ValueError(f"{name} must be None, as {name[2:]}_size is, not {list(x.shape)}")
            continue
        expected = "floating ({})".format(", ".join(str(letters.get(size, size)) for size in shape))
        if x is None:
            raise ValueError(f"{name} is missing: it must be {expected}")
        # A letter takes the first number that it meets.
        numbers = [letters.setdefault(a, b) if isinstance(a, str) else a for a, b in zip(shape, x.shape)]
        if not x.is_floating_point() or list(x.shape) != numbers or len(numbers) != len(shape):
            raise ValueError(f"{name} must be {expected}, not {str(x.dtype)[6:]} {list(x.shape)}")
