"""Part merging (the paper's section 3.2): features of left and right, then front and back, added."""

import torch
from torch import Tensor

from dsa_ext import parts
from dsa_ext._library import check_served

LEVELS = {"mirror": parts.MIRROR_GROUP, "front_back": parts.FRONT_BACK_GROUP}
_FLOATING = (torch.float32, torch.float16, torch.bfloat16)


def merge_parts(features: Tensor, level: str) -> Tensor:
    """Add the features of the parts that form a group.

    Args:
        features: (B, P, ...) float32, float16 or bfloat16; P = 24 for "mirror", 13 for
            "front_back". A tensor that is not contiguous is copied first.
        level: "mirror" (left + right, 24 -> 13) or "front_back" (13 -> 8).

    Returns:
        (B, G, ...) of the same dtype, contiguous, G = 13 or 8 in the order of
        parts.MIRROR_NAMES or parts.BODY_NAMES. Sums are taken in float32 and rounded once.

    Raises:
        ValueError: unknown level, or another number of parts.
        TypeError: features are not floating tensors of the dtypes above.
        RuntimeError: a CUDA tensor where the CUDA kernels are missing.
    """
    if not isinstance(features, Tensor):
        raise TypeError(f"features must be a torch.Tensor, not {type(features).__name__}")
    if not isinstance(level, str) or level not in LEVELS:
        raise ValueError(f"level must be 'mirror' or 'front_back', not {level!r}")
    expected = len(LEVELS[level])
    if features.dtype not in _FLOATING:
        raise TypeError(
            f"features must be float32, float16 or bfloat16, not {features.dtype}"
        )
    if features.dim() < 2 or features.shape[1] != expected:
        raise ValueError(
            f"features must be (B, {expected}, ...) for level {level!r}, not {tuple(features.shape)}"
        )
    check_served(features)
    return torch.ops.dsa_ext.merge_parts(features, level == "front_back")


def _merge_parts(features: Tensor, level: str) -> Tensor:
    group = torch.tensor(LEVELS[level], device=features.device)  # [P]
    shape = (features.shape[0], int(group.max()) + 1, *features.shape[2:])
    merged = torch.zeros(shape, dtype=torch.float32, device=features.device)  # [B, G, ...]
    return merged.index_add(1, group, features.float()).to(features.dtype)  # [B, G, ...]


def _counts(front_back: bool) -> tuple[int, int]:
    group = LEVELS["front_back" if front_back else "mirror"]
    return len(group), max(group) + 1


@torch.library.register_fake("dsa_ext::merge_parts")
def _(features, front_back):
    return features.new_empty((features.shape[0], _counts(front_back)[1], *features.shape[2:]))


@torch.library.register_fake("dsa_ext::expand_parts")
def _(merged, front_back):
    return merged.new_empty((merged.shape[0], _counts(front_back)[0], *merged.shape[2:]))


def _remember_level(ctx, inputs, output):
    ctx.front_back = inputs[1]


# Each is the other's gradient: a sum spreads its gradient, a spread value gathers the sum of them.
torch.library.register_autograd(
    "dsa_ext::merge_parts",
    lambda ctx, grad: (torch.ops.dsa_ext.expand_parts(grad, ctx.front_back), None),
    setup_context=_remember_level,
)
torch.library.register_autograd(
    "dsa_ext::expand_parts",
    lambda ctx, grad: (torch.ops.dsa_ext.merge_parts(grad, ctx.front_back), None),
    setup_context=_remember_level,
)
