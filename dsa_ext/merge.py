"""Part merging (the paper's section 3.2): features of left and right, then front and back, added."""

import torch
from torch import Tensor

from dsa_ext import parts
from dsa_ext._arrays import Array, as_tensor, check_apart, check_no_gradient, mark_written
from dsa_ext._library import check_served, operation

LEVELS = {"mirror": parts.MIRROR_GROUP, "front_back": parts.FRONT_BACK_GROUP}
_FLOATING = (torch.float32, torch.float16, torch.bfloat16)


def merge_parts(
    features: Array,
    level: str,
    residual: Array | None = None,
    relu: bool = False,
    out: Array | None = None,
) -> Tensor:
    """Add the features of the parts of each group; optionally finish a residual block before that.

    One pass: each part becomes features + residual, then ReLU; the parts of a group are added after
    that. All in float32, rounded once. Tensors may be any DLPack arrays.

    Args:
        features: (B, P, ...) float32, float16 or bfloat16; P = 24 for "mirror", 13 for
            "front_back". A tensor that is not contiguous is copied first.
        level: "mirror" (left + right, 24 -> 13) or "front_back" (13 -> 8).
        residual: of the shape, dtype and device of features, or None.
        relu: whether to apply ReLU to each part.
        out: write into this contiguous (B, G, ...) tensor of features' dtype and device, which
            shares no memory with them. Not differentiable.

    Returns:
        (B, G, ...) of the same dtype, contiguous, G = 13 or 8 in the order of
        parts.MIRROR_NAMES or parts.BODY_NAMES. Differentiable in features and residual, any order.

    Raises:
        ValueError: unknown level, another number of parts, or a residual or out that is not as above.
        TypeError: features are not floating tensors of the dtypes above.
        RuntimeError: a CUDA tensor if the CUDA kernels are missing.
    """
    features = as_tensor("features", features)
    if not isinstance(level, str) or level not in LEVELS:
        raise ValueError(f"level must be 'mirror' or 'front_back', not {level!r}")
    expected = len(LEVELS[level])
    if features.dtype not in _FLOATING:
        raise TypeError(f"features must be float32, float16 or bfloat16, not {features.dtype}")
    if features.dim() < 2 or features.shape[1] != expected:
        raise ValueError(
            f"features must be (B, {expected}, ...) for level {level!r}, not {tuple(features.shape)}"
        )
    if residual is not None:
        residual = as_tensor("residual", residual)
        _check_like("residual", residual, features, features.shape)
    check_served(features)
    front_back = level == "front_back"
    if out is None:
        return torch.ops.dsa_ext.merge_parts(features, residual, front_back, relu)
    out = as_tensor("out", out)
    _check_out(out, features, residual, _counts(front_back)[1])
    residual = None if residual is None else residual.contiguous()
    torch.ops.dsa_ext.merge_parts_out(features.contiguous(), residual, out, front_back, relu)
    mark_written(out)
    return out


def _check_like(name: str, tensor: Tensor, features: Tensor, shape: tuple[int, ...]) -> None:
    expected = (tuple(shape), features.dtype, features.device)
    got = (tuple(tensor.shape), tensor.dtype, tensor.device)
    if got != expected:
        words = ("{} {} on {}".format(*x) for x in (expected, got))
        raise ValueError("{} must be {} to go with the features, not {}".format(name, *words))


def _check_out(out: Tensor, features: Tensor, residual: Tensor | None, groups: int) -> None:
    _check_like("out", out, features, (features.shape[0], groups, *features.shape[2:]))
    if not out.is_contiguous():
        raise ValueError("out must be contiguous")
    inputs = [("features", features)] + ([] if residual is None else [("residual", residual)])
    check_no_gradient(out, *(tensor for _, tensor in inputs))
    check_apart(out, *inputs)


def _merge_parts(features: Tensor, level: str, residual: Tensor | None = None, relu: bool = False) -> Tensor:
    group = torch.tensor(LEVELS[level], device=features.device)  # [P]
    shape = (features.shape[0], int(group.max()) + 1, *features.shape[2:])
    part = features.float()  # [B, P, ...]
    if residual is not None:
        part = part + residual.float()
    if relu:
        part = part.relu()
    merged = torch.zeros(shape, dtype=torch.float32, device=features.device)  # [B, G, ...]
    return merged.index_add(1, group, part).to(features.dtype)  # [B, G, ...]


# ---- the operations ----


@operation("merge_parts(Tensor features, Tensor? residual, bool front_back, bool relu) -> Tensor")
def _merge(features, residual, front_back, relu):
    return _merge_parts(features, _level(front_back), residual, relu)


@operation(
    "merge_parts_out(Tensor features, Tensor? residual, Tensor(a!) out, bool front_back, bool relu) -> ()"
)
def _merge_out(features, residual, out, front_back, relu):
    out.copy_(_merge_parts(features, _level(front_back), residual, relu))


# The gradient of merge_parts; features and residual only where ReLU was applied.
@operation("expand_parts(Tensor merged, Tensor? features, Tensor? residual, bool front_back) -> Tensor")
def _expand(merged, features, residual, front_back):
    group = torch.tensor(LEVELS[_level(front_back)], device=merged.device)  # [P]
    return _let_through(merged[:, group], features, residual)  # [B, P, ...]


def _let_through(grad: Tensor, features: Tensor | None, residual: Tensor | None) -> Tensor:
    """`grad` where ReLU(features + residual) let the value pass, 0 elsewhere; all of it without features."""
    if features is None:
        return grad
    sums = features if residual is None else features.float() + residual.float()
    return torch.where(sums <= 0, 0.0, grad)


def _level(front_back: bool) -> str:
    return "front_back" if front_back else "mirror"


def _counts(front_back: bool) -> tuple[int, int]:
    group = LEVELS[_level(front_back)]
    return len(group), max(group) + 1


def _with_parts(tensor: Tensor, parts: int) -> Tensor:
    return tensor.new_empty((tensor.shape[0], parts, *tensor.shape[2:]))


@torch.library.register_fake("dsa_ext::merge_parts")
def _(features, residual, front_back, relu):
    return _with_parts(features, _counts(front_back)[1])


@torch.library.register_fake("dsa_ext::merge_parts_out")
def _(features, residual, out, front_back, relu):
    return None


@torch.library.register_fake("dsa_ext::expand_parts")
def _(merged, features, residual, front_back):
    return _with_parts(merged, _counts(front_back)[0])


# merge_parts and expand_parts are each other's gradient: a sum spreads its gradient over its members,
# unless ReLU held them back, and a spread value gathers the sum of its members' gradients.


def _setup_merge(ctx, inputs, output):
    features, residual, ctx.front_back, ctx.relu = inputs
    ctx.has_residual = residual is not None
    ctx.save_for_backward(*(() if not ctx.relu else (features, residual)))


def _merge_backward(ctx, grad):
    features, residual = ctx.saved_tensors if ctx.relu else (None, None)
    grad = torch.ops.dsa_ext.expand_parts(grad, features, residual, ctx.front_back)
    return grad, grad if ctx.has_residual else None, None, None


def _setup_expand(ctx, inputs, output):
    _, features, residual, ctx.front_back = inputs
    ctx.save_for_backward(features, residual)


def _expand_backward(ctx, grad):
    grad = _let_through(grad, *ctx.saved_tensors)
    return torch.ops.dsa_ext.merge_parts(grad, None, ctx.front_back, False), None, None, None


torch.library.register_autograd("dsa_ext::merge_parts", _merge_backward, setup_context=_setup_merge)
torch.library.register_autograd("dsa_ext::expand_parts", _expand_backward, setup_context=_setup_expand)
