"""The warp: images and IUV maps to part images (DSAP-images, the paper's section 3.1)."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dsa_ext import parts as body
from dsa_ext._arrays import Array, as_tensor, check_apart, check_no_gradient, mark_written
from dsa_ext._library import check_served, operation

_DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32)

OVERSHOOT = 1 / 64
"""How far u and v of a floating map may lie outside of [0, 1]: kOvershoot of csrc/iuv.h."""


def iuv_to_dsap(
    image: Array,
    iuv: Array,
    *,
    size: int = 32,
    fill: float | Sequence[float] = 0.0,
    parts: int = 24,
    mirror: bool = False,
    dtype: torch.dtype | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    return_source: bool = False,
    out: Array | None = None,
    check_iuv: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Warp images into one small image per body part.

    A pixel of part I at (u, v) goes to part image I - 1, row floor(u * size), column
    floor(v * size). If several pixels meet in one cell, the last in raster order wins, on every
    device. I = 0 and I > 24 are background. Differentiable in `image` (reverse mode, any order): a
    cell's gradient flows to the pixel that won it. image, iuv and out may be any DLPack arrays
    (NumPy, CuPy): their memory is shared.

    Args:
        image: (B, C, H, W) uint8, float16, bfloat16 or float32, any C >= 1, any strides (an
            array [B, H, W, C] is passed as `.permute(0, 3, 1, 2)` without a copy).
        iuv: (B, 3, H, W) = I, U, V on image's device, any strides. uint8 with U, V = 255 * u; or
            floating with I whole and u, v in [0, 1]: up to 1/64 outside is clamped, a NaN in any
            of the three is background, and u and v of the background may be anything.
        size: side S of a part image in cells, 1..256.
        fill: what empty cells hold, a number or one per channel, in units of the output.
        parts: 24; or 13 (left and right share an image); or 8 (front and back as well).
        mirror: with 13 or 8 parts, reverse U (U -> 1 - U) of the second of two hands, feet and head
            halves, so that it is aligned with the first.
        dtype: of the output; default: that of `out`, else of the image. uint8 needs a uint8 image.
        mean, std: per channel, given together, for a floating output: a uint8 image becomes
            ((x / 255) - mean) / std as by ToTensor and Normalize, a floating one
            (x - mean) / std, in float32, rounded to the output's dtype at the end. Without them
            a uint8 image becomes x / 255.
        return_source: also return the map of winners.
        out: write into this (B, parts, C, S, S) tensor of the output's dtype and device, any
            strides that do not overlap, not image's or iuv's memory. Reusing memory is faster than
            allocating it. Not differentiable. With the strides of (B, parts, S, S, C) the part
            images are channels_last.
        check_iuv: look for impossible values in a floating map before anything is written, on any
            device. On the CPU the warp itself finds them, at no cost. CUDA does not look unless
            asked to, because the check waits for the device: it clamps u and v and cuts I to a whole
            number, so a map that was not divided by 255 gives nearly empty part images.

    Returns:
        The part images, (B, parts, C, S, S). With return_source also the map of winners, int32
        (B, parts, S, S), the raster index y * W + x of the pixel each cell came from, -1 where it is
        empty.

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: a shape, size, device or combination of arguments that is not as above; on the
            CPU, or with check_iuv, a floating map with an I that is not whole, or with u or v more
            than 1/64 outside of [0, 1] in the foreground (`out` is then worthless).
        RuntimeError: a CUDA tensor if the CUDA kernels are missing; inside torch.compile also such a
            floating map (a ValueError with check_iuv, which breaks the graph).
    """
    image, iuv = as_tensor("image", image), as_tensor("iuv", iuv)
    out = out if out is None else as_tensor("out", out)
    _check_inputs(image, iuv, size, parts, mirror)
    dtype = _output_dtype(image, dtype, out, mean, std)
    channels = image.shape[1]
    fill = _per_channel("fill", fill, channels)
    if dtype == torch.uint8 and any(not 0 <= x <= 255 or x != int(x) for x in fill):
        raise ValueError(f"fill must be whole and 0..255 for uint8 output, not {fill}")
    mean = _per_channel("mean", mean, channels) if mean is not None else []
    std = _per_channel("std", std, channels) if std is not None else []
    check_std(std)
    if iuv.dtype != torch.uint8:
        iuv = iuv.float()
        if check_iuv:
            _check_values(iuv)
    check_served(image)
    if out is None:
        needs_source = return_source or (image.requires_grad and torch.is_grad_enabled())
        options = (size, parts, mirror, dtype, needs_source, fill, mean, std)
        dsap, source = _explained(torch.ops.dsa_ext.iuv_to_dsap, image, iuv, *options)
        return (dsap, source) if return_source else dsap
    _check_out(out, (image.shape[0], parts, channels, size, size), image, iuv)
    source = None
    if return_source:
        shape = (image.shape[0], parts, size, size)
        source = torch.empty(shape, dtype=torch.int32, device=image.device)
    try:
        _explained(torch.ops.dsa_ext.iuv_to_dsap_out, image, iuv, out, source, mirror, fill, mean, std)
    finally:
        mark_written(out)  # even if the map was refused
    return (out, source) if return_source else out


def _check_inputs(image: Tensor, iuv: Tensor, size: int, parts: int, mirror: bool) -> None:
    if image.dtype not in _DTYPES:
        raise TypeError(f"image must be uint8, float16, bfloat16 or float32, not {image.dtype}")
    if iuv.dtype != torch.uint8 and not iuv.dtype.is_floating_point:
        raise TypeError(f"iuv must be uint8 or floating, not {iuv.dtype}")
    if image.dim() != 4 or image.shape[1] < 1 or 0 in image.shape[2:]:
        raise ValueError(f"image must be (B, C, H, W) with C, H and W at least 1, not {tuple(image.shape)}")
    batch, _, height, width = image.shape
    if tuple(iuv.shape) != (batch, 3, height, width):
        raise ValueError(
            f"iuv must be {(batch, 3, height, width)} to go with the image, not {tuple(iuv.shape)}"
        )
    if iuv.device != image.device:
        raise ValueError(f"iuv is on {iuv.device}, but image is on {image.device}")
    check_part_images(size, parts, mirror)


def check_part_images(size: int, parts: int, mirror: bool) -> None:
    """Raise ValueError for an impossible size or number of parts, or a mirror without effect."""
    if not _is_whole(size) or not 1 <= size <= 256:
        raise ValueError(f"size must be 1..256, not {size!r}")
    if not _is_whole(parts) or parts not in body.GROUPS:
        raise ValueError(f"parts must be 24, 13 or 8, not {parts!r}")
    if mirror and parts == 24:
        raise ValueError("mirror=True needs parts=13 or parts=8: with 24 nothing is merged")


def check_std(std: list[float]) -> list[float]:
    """Return `std`; raise ValueError if it cannot be divided by."""
    if any(x == 0 or not math.isfinite(x) for x in std):
        raise ValueError(f"std must be finite and not 0, got {std}")
    return std


def _is_whole(x: object) -> bool:
    """Whether x is an integer of Python or NumPy, or one that torch.compile traces."""
    return hasattr(x, "__index__") and not isinstance(x, (bool, Tensor))


def _explained(operation: Callable, image: Tensor, iuv: Tensor, *others: object):
    """The operation's result. If it refuses the map, raise ValueError with an impossible value of it."""
    try:
        return operation(image, iuv, *others)
    except RuntimeError:
        words = _impossible_value(iuv) if iuv.is_cpu and iuv.dtype == torch.float32 else None
        if words is None:
            raise
        raise ValueError(words) from None


def _check_values(iuv: Tensor) -> None:
    """Raise ValueError for a float32 map [B, 3, H, W] with values that no map has."""
    words = _impossible_value(iuv)
    if words is not None:
        raise ValueError(words)


def _impossible_value(iuv: Tensor) -> str | None:
    """A message on what is wrong with a float32 map [B, 3, H, W], with an example; None if nothing is."""
    iuv = iuv.detach()
    i, uv = iuv[:, 0], iuv[:, 1:]
    known = ~iuv.isnan().any(1)  # [B, H, W]
    broken = known & ((i != i.trunc()) | i.isinf())  # [B, H, W]
    foreground = known & (i >= 1) & (i < 25)  # [B, H, W]
    outside = foreground[:, None] & ((uv < -OVERSHOOT) | (uv > 1 + OVERSHOOT))  # [B, 2, H, W]
    if not (broken.any() | outside.any()):
        return None
    rule, as_bytes = "iuv must hold whole I and u, v in 0..1", "or pass the map as uint8"
    if broken.any():
        found = i[broken][0].item()
        return f"{rule}; found I = {found:.4g}: divide U and V by 255, not I, {as_bytes}"
    # The farthest value tells best whether the scale is wrong or a network's raw output went in.
    farthest = torch.where(outside, (uv - 0.5).abs(), -1).argmax()
    sample, plane, y, x = (int(at) for at in torch.unravel_index(farthest, uv.shape))
    found, part = uv[sample, plane, y, x].item(), int(i[sample, y, x])
    remedy = "clamp u and v to 0..1" if -1 <= found <= 2 else f"divide U and V by 255, {as_bytes}"
    return f"{rule}; found {'uv'[plane]} = {found:.4g} at part {part}: {remedy}"


def _output_dtype(image, dtype, out, mean, std) -> torch.dtype:
    if dtype is None:
        dtype = image.dtype if out is None else out.dtype
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be uint8, float16, bfloat16 or float32, not {dtype}")
    if out is not None and out.dtype != dtype:
        raise TypeError(f"out must be {dtype}, not {out.dtype}")
    if dtype == torch.uint8 and image.dtype != torch.uint8:
        raise ValueError(f"uint8 output needs a uint8 image, not {image.dtype}")
    if (mean is None) != (std is None):
        raise ValueError("mean and std must be given together")
    if mean is not None and dtype == torch.uint8:
        raise ValueError("mean and std need a floating output: give dtype=torch.float32")
    return dtype


def _check_out(out: Tensor, shape: tuple[int, ...], image: Tensor, iuv: Tensor) -> None:
    if tuple(out.shape) != shape:
        raise ValueError(f"out must be {shape}, not {tuple(out.shape)}")
    if out.device != image.device:
        raise ValueError(f"out is on {out.device}, but image is on {image.device}")
    check_no_gradient(out, image)
    check_apart(out, ("image", image), ("iuv", iuv))


def _per_channel(name: str, values: float | Sequence[float], channels: int) -> list[float]:
    if hasattr(values, "tolist"):
        values = values.tolist()  # a tensor or an array
    if isinstance(values, str) or not isinstance(values, (int, float, Sequence)):
        raise ValueError(f"{name} must be a number or one per channel ({channels}), not {values!r}")
    values = [float(x) for x in values] if isinstance(values, Sequence) else [float(values)]
    if len(values) not in (1, channels):
        raise ValueError(f"{name} must be a number or one per channel ({channels}), not {values}")
    return values * channels if len(values) == 1 else values


def _iuv_to_dsap(
    image, iuv, *, size=32, fill=0.0, parts=24, mirror=False, dtype=None, mean=None, std=None
) -> tuple[Tensor, Tensor]:
    """iuv_to_dsap in plain torch operations, always with the map of winners."""
    batch, channels, height, width = image.shape
    device, dtype = image.device, dtype or image.dtype
    if iuv.dtype != torch.uint8:
        iuv = iuv.float()
        _check_values(iuv)
    i, u, v = iuv.unbind(1)  # [B, H, W]
    if iuv.dtype == torch.uint8:
        part, cells = i.long(), torch.arange(256, device=device) * size // 255
        cells = cells.clamp(max=size - 1)  # [256]
        row, column = cells[u.long()], cells[v.long()]
        row_reversed = cells[255 - u.long()]  # [B, H, W]
    else:
        known = (i >= 1) & (i < 25) & ~u.isnan() & ~v.isnan()
        part = torch.where(known, i, 0).long()  # [B, H, W]
        u, v = (x.nan_to_num(0).clamp(0, 1) for x in (u, v))
        row, column, row_reversed = ((x * size).long().clamp(max=size - 1) for x in (u, v, 1 - u))
    part = torch.where(part > 24, 0, part)  # [B, H, W], 0 is background
    group = torch.tensor((parts, *body.GROUPS[parts]), device=device)[part]  # [B, H, W]
    if mirror:
        second = [flip and twin <= k for k, (flip, twin) in enumerate(zip(body.FLIP_U, body.TWIN))]
        row = torch.where(torch.tensor([False, *second], device=device)[part], row_reversed, row)

    # One extra part image collects the background and is dropped again.
    cell = ((group * size + row) * size + column).flatten(1)  # [B, H*W]
    pixel = torch.arange(height * width, device=device).expand(batch, -1)  # [B, H*W]
    source = torch.full((batch, (parts + 1) * size * size), -1, device=device)
    source = source.scatter_reduce(1, cell, pixel, "amax")[:, : parts * size * size]  # [B, P*S*S]

    value = image.flatten(2)  # [B, C, H*W]
    if dtype != torch.uint8:
        value = value.float() / 255 if image.dtype == torch.uint8 else value.float()
    if mean is not None:
        mean, std = (torch.tensor(_per_channel("", x, channels), device=device)[:, None] for x in (mean, std))
        value = (value - mean) / std  # [B, C, H*W]
    index = source.clamp(min=0)[:, None].expand(-1, channels, -1)  # [B, C, P*S*S]
    fill = torch.tensor(_per_channel("", fill, channels), device=device)[:, None]
    dsap = torch.where(source[:, None] < 0, fill, value.gather(2, index)).to(dtype)
    dsap = dsap.unflatten(2, (parts, size, size)).transpose(1, 2)  # [B, P, C, S, S]
    return dsap.contiguous(), source.unflatten(1, (parts, size, size)).int()


# ---- the operations ----


# source has shape [0] unless return_source; mean and std are empty or have one value a channel.
@operation(
    "iuv_to_dsap(Tensor image, Tensor iuv, int size, int parts, bool mirror, ScalarType dtype, "
    "bool return_source, float[] fill, float[] mean, float[] std) -> (Tensor, Tensor)"
)
def _warp(image, iuv, size, parts, mirror, dtype, return_source, fill, mean, std):
    options = {"size": size, "parts": parts, "mirror": mirror, "dtype": dtype, "fill": fill}
    dsap, source = _iuv_to_dsap(image, iuv, **options, mean=mean or None, std=std or None)
    return dsap, source if return_source else source.new_empty(0)


@operation(
    "iuv_to_dsap_out(Tensor image, Tensor iuv, Tensor(a!) out, Tensor(b!)? source, bool mirror, "
    "float[] fill, float[] mean, float[] std) -> ()"
)
def _warp_out(image, iuv, out, source, mirror, fill, mean, std):
    options = {"size": out.shape[4], "parts": out.shape[1], "mirror": mirror, "dtype": out.dtype}
    dsap, winners = _iuv_to_dsap(image, iuv, **options, fill=fill, mean=mean or None, std=std or None)
    out.copy_(dsap)
    if source is not None:
        source.copy_(winners)


@operation(
    "iuv_to_dsap_backward(Tensor grad, Tensor source, int height, int width, ScalarType dtype, "
    "float[] std) -> Tensor"
)
def _warp_gradient(grad, source, height, width, dtype, std):
    batch, _, channels = grad.shape[:3]
    pixel = source.flatten(1).long()  # [B, P*S*S]
    won = (pixel >= 0) & (pixel < height * width)
    value = grad.transpose(1, 2).flatten(2).float()  # [B, C, P*S*S]
    if std:
        value = value / value.new_tensor(std)[:, None]
    # One extra pixel collects what flows into empty cells and is dropped again.
    pixel = torch.where(won, pixel, height * width)[:, None].expand(-1, channels, -1)
    image = value.new_zeros((batch, channels, height * width + 1)).scatter(2, pixel, value)
    return image[:, :, :-1].unflatten(2, (height, width)).to(dtype).contiguous()


@torch.library.register_fake("dsa_ext::iuv_to_dsap")
def _(image, iuv, size, parts, mirror, dtype, return_source, fill, mean, std):
    batch, channels = image.shape[:2]
    out = image.new_empty((batch, parts, channels, size, size), dtype=dtype)
    shape = (batch, parts, size, size) if return_source else (0,)
    return out, image.new_empty(shape, dtype=torch.int32)


@torch.library.register_fake("dsa_ext::iuv_to_dsap_out")
def _(image, iuv, out, source, mirror, fill, mean, std):
    return None


@torch.library.register_fake("dsa_ext::iuv_to_dsap_backward")
def _(grad, source, height, width, dtype, std):
    return grad.new_empty((grad.shape[0], grad.shape[2], height, width), dtype=dtype)


def _setup_warp(ctx, inputs, output):
    image, std = inputs[0], inputs[-1]
    _, source = output
    ctx.mark_non_differentiable(source)
    ctx.save_for_backward(source)
    ctx.image = (image.shape[2], image.shape[3], image.dtype)
    ctx.std = std


def _warp_backward(ctx, grad, _):
    if not ctx.needs_input_grad[0]:
        return (None,) * 10
    (source,) = ctx.saved_tensors
    if source.dim() != 4:
        raise RuntimeError("the gradient of iuv_to_dsap needs return_source=True")
    image = torch.ops.dsa_ext.iuv_to_dsap_backward(grad, source, *ctx.image, ctx.std)
    return (image,) + (None,) * 9


def _setup_backward(ctx, inputs, output):
    grad, source, *_, std = inputs
    ctx.save_for_backward(source)
    ctx.dtype, ctx.std = grad.dtype, std


def _backward_backward(ctx, grad_image):
    """The gradient of the gradient: each cell takes what its winning pixel got, divided by std."""
    (source,) = ctx.saved_tensors  # [B, P, S, S]
    channels = grad_image.shape[1]
    index = source.flatten(1).long().clamp(min=0)[:, None].expand(-1, channels, -1)
    value = grad_image.flatten(2).float().gather(2, index)  # [B, C, P*S*S]
    if ctx.std:
        value = value / value.new_tensor(ctx.std)[:, None]
    value = torch.where(source.flatten(1)[:, None] < 0, 0.0, value).to(ctx.dtype)
    grad = value.unflatten(2, source.shape[1:]).transpose(1, 2)  # [B, P, C, S, S]
    return (grad,) + (None,) * 5


torch.library.register_autograd("dsa_ext::iuv_to_dsap", _warp_backward, setup_context=_setup_warp)
torch.library.register_autograd(
    "dsa_ext::iuv_to_dsap_backward", _backward_backward, setup_context=_setup_backward
)
