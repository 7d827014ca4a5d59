"""Batch assembly: from stored pixels to the network's input, in one pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dsa_ext import parts as body
from dsa_ext._arrays import Array, as_tensor, check_apart, check_no_gradient, mark_written
from dsa_ext._library import check_served, operation
from dsa_ext._resize import resize, resize_table
from dsa_ext.augment import COLUMNS
from dsa_ext.warp import _is_whole, _iuv_to_dsap, _per_channel, check_part_images, check_std

_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_MOST = 1 << 15  # rows or columns of an image


def assemble_batch(
    images: Array,
    iuv: Array | None,
    index: Array,
    params: Array | None = None,
    *,
    height: int | None = None,
    width: int | None = None,
    size: int = 32,
    parts: int = 24,
    mirror: bool = False,
    augmented_dsap: bool = True,
    fill: float | Sequence[float] = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format = torch.contiguous_format,
    out: tuple[Tensor, Tensor | None] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gather, resize, augment and normalise images, and warp their part images, in one pass.

    The image is resized as Pillow's `Image.resize(BILINEAR)` does, bit for bit (along x first, then
    along y; fixed point with 22 fractional bits, rounded to uint8 after each, halves up), then
    shifted, flipped and erased as `params` says; what lies outside or is erased holds `fill`. The
    part images are warped from the stored pixels, not from the resized ones, by the rules of
    `iuv_to_dsap`, in the same view: pixels outside of it and erased ones are background, and a flip
    swaps left and right by the closed form of DensePose's UV_symmetry_transforms. The same bits on
    every device.

    Args:
        images: uint8 (N, h, w, 3), the store, such as a NumPy memory map; each image contiguous.
        iuv: uint8 (N, h, w, 3) = I, U, V, likewise; None: no part images.
        index: int64 (B,), which image each sample is.
        params: int32 (B, 8) of `draw_augmentation`; None: nothing is augmented.
            index and params may be on the CPU or on images' device. On the CPU they are checked; on a
            CUDA device they are not, and a sample whose index is outside of the store is all `fill`.
            A CUDA graph needs them on the device, and a call with the same sizes before its capture.
        height, width: of the resized image; default: those of the store.
        size, parts, mirror: of the part images, as for `iuv_to_dsap`.
        augmented_dsap: False warps them from the stored image as it is, without shift, flip and
            erased box (dropped parts stay dropped).
        fill: a number or one per channel, in units of the output.
        mean, std: per channel, given together: values become ((x / 255) - mean) / std as by
            ToTensor and Normalize, otherwise x / 255.
        dtype: of both outputs, float32, float16 or bfloat16; default: that of `out`, else float32.
        memory_format: torch.channels_last lays both out with their channels innermost.
        out: (image, dsap) to write into, any strides that do not overlap; dsap None without iuv.
            Reusing memory is faster than allocating it.

    Returns:
        image (B, 3, height, width) and dsap (B, parts, 3, size, size), or None without iuv.

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: a shape, size, device or combination of arguments that is not as above.
        RuntimeError: an index outside of the store or params out of range (on the CPU); a CUDA
            tensor if the CUDA kernels are missing.
    """
    images, index = as_tensor("images", images), as_tensor("index", index)
    iuv = iuv if iuv is None else as_tensor("iuv", iuv)
    params = params if params is None else as_tensor("params", params)
    _check_store(images, iuv)
    _check_samples(images, index, params)
    height, width = _check_size(images, height, width)
    check_part_images(size, parts, mirror)
    fill = _per_channel("fill", fill, 3)
    if (mean is None) != (std is None):
        raise ValueError("mean and std must be given together")
    mean = _per_channel("mean", mean, 3) if mean is not None else []
    std = check_std(_per_channel("std", std, 3)) if std is not None else []
    check_served(images)
    shapes = (len(index), 3, height, width), (len(index), parts, 3, size, size)
    image: Tensor
    dsap: Tensor | None
    if out is None:
        image = _empty(shapes[0], images, dtype, memory_format)
        dsap = None if iuv is None else _empty(shapes[1], images, dtype, memory_format)
    else:
        image, dsap = _check_out(out, shapes, images, iuv, dtype)
    # torch.compile cannot look into a cached function.
    table = torch.ops.dsa_ext.resize_table if torch.compiler.is_compiling() else resize_table
    rows = table(images.shape[1], height, images.device)
    columns = table(images.shape[2], width, images.device)
    params = params if params is None else params.contiguous()
    torch.ops.dsa_ext.assemble_batch_out(
        images,
        iuv,
        index.contiguous(),
        params,
        rows,
        columns,
        image,
        dsap,
        augmented_dsap,
        mirror,
        fill,
        mean,
        std,
    )
    if out is not None:
        for tensor in (image, dsap):
            if tensor is not None:
                mark_written(tensor)
    return image, dsap


def _check_store(images: Tensor, iuv: Tensor | None) -> None:
    for name, value in (("images", images), ("iuv", iuv)):
        if value is None:
            continue
        if value.dtype != torch.uint8:
            raise TypeError(f"{name} must be uint8, not {value.dtype}")
        if value.dim() != 4 or value.shape[3] != 3 or 0 in value.shape[1:3]:
            raise ValueError(f"{name} must be (N, h, w, 3) with h and w at least 1, not {tuple(value.shape)}")
        if max(value.shape[1:3]) > _MOST:
            raise ValueError(f"{name} must be at most {_MOST} pixels high and wide, not {tuple(value.shape)}")
        if len(value) and not value[0].is_contiguous():
            raise ValueError(f"{name} must be contiguous within each image, not of strides {value.stride()}")
        if value.device != images.device:
            raise ValueError(f"{name} is on {value.device}, but images is on {images.device}")
        if value.shape != images.shape:
            raise ValueError(f"{name} must be {tuple(images.shape)} like images, not {tuple(value.shape)}")


def _check_samples(images: Tensor, index: Tensor, params: Tensor | None) -> None:
    if index.dtype != torch.int64:
        raise TypeError(f"index must be int64, not {index.dtype}")
    if index.dim() != 1:
        raise ValueError(f"index must be (B,), not {tuple(index.shape)}")
    if params is not None and params.dtype != torch.int32:
        raise TypeError(f"params must be int32, as draw_augmentation returns it, not {params.dtype}")
    if params is not None and tuple(params.shape) != (len(index), len(COLUMNS)):
        raise ValueError(f"params must be {(len(index), len(COLUMNS))}, not {tuple(params.shape)}")
    for name, value in (("index", index), ("params", params)):
        if value is not None and value.device != images.device and value.device.type != "cpu":
            raise ValueError(f"{name} must be on the CPU or on {images.device}, not on {value.device}")


def _check_size(images: Tensor, height: int | None, width: int | None) -> tuple[int, int]:
    sizes = []
    for name, value, stored in (("height", height, images.shape[1]), ("width", width, images.shape[2])):
        value = stored if value is None else value
        if not _is_whole(value) or not 1 <= value <= _MOST:
            raise ValueError(f"{name} must be 1..{_MOST}, not {value!r}")
        sizes.append(value)
    return sizes[0], sizes[1]


def _empty(shape: tuple[int, ...], images: Tensor, dtype: torch.dtype | None, memory_format) -> Tensor:
    dtype = dtype or torch.float32
    if dtype not in _DTYPES:
        raise TypeError(f"dtype must be float32, float16 or bfloat16, not {dtype}")
    if memory_format == torch.contiguous_format:
        return torch.empty(shape, dtype=dtype, device=images.device)
    if memory_format != torch.channels_last:
        raise ValueError(f"memory_format must be contiguous_format or channels_last, not {memory_format}")
    return torch.empty((*shape[:-3], *shape[-2:], 3), dtype=dtype, device=images.device).movedim(-1, -3)


def _check_out(out, shapes, images: Tensor, iuv: Tensor | None, dtype: torch.dtype | None):
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise TypeError("out must be a pair (image, dsap)")
    if out[0] is None or (out[1] is None) != (iuv is None):
        raise ValueError("out must hold an image, and a dsap exactly where iuv is given")
    tensors = [x if x is None else as_tensor("out", x) for x in out]
    given = [x for x in tensors if x is not None]
    for tensor, shape in zip(given, shapes):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"out must hold {shape}, not {tuple(tensor.shape)}")
        if tensor.dtype not in _DTYPES or tensor.dtype != (dtype or given[0].dtype):
            wanted = dtype or given[0].dtype
            raise TypeError(f"out must be of one floating dtype, {wanted}, not {tensor.dtype}")
        if tensor.device != images.device:
            raise ValueError(f"out is on {tensor.device}, but images is on {images.device}")
        stored = [(name, x) for name, x in (("images", images), ("iuv", iuv)) if x is not None]
        check_apart(tensor, *stored)
    check_no_gradient(*given)
    if len(given) == 2:
        check_apart(given[0], ("its other half", given[1]))
    return tensors


# ---- the twin ----


def _assemble_batch(
    images,
    iuv,
    index,
    params=None,
    *,
    height=None,
    width=None,
    size=32,
    parts=24,
    mirror=False,
    augmented_dsap=True,
    fill=0.0,
    mean=None,
    std=None,
    dtype=torch.float32,
) -> tuple[Tensor, Tensor | None]:
    height, width = height or images.shape[1], width or images.shape[2]
    params = _params_or_identity(params, index).to(images.device)
    fills = torch.tensor(_per_channel("", fill, 3), device=images.device)
    stored = images[index]  # [B, h, w, 3]
    resized = resize(resize(stored, width, 2), height, 1)  # [B, H, W, 3]
    value = resized.float() / 255
    if mean is not None:
        value = (value - torch.tensor(mean, device=value.device)) / torch.tensor(std, device=value.device)
    rows, columns = torch.arange(height), torch.arange(width)
    y, x, shown = _view(params, rows.to(value.device), columns.to(value.device), height, width)
    sample = torch.arange(len(index), device=value.device)[:, None, None]
    value = value[sample, y.clamp(0, height - 1)[:, :, None], x.clamp(0, width - 1)[:, None]]
    image = torch.where(shown[..., None], value, fills).to(dtype).permute(0, 3, 1, 2).contiguous()
    if iuv is None:
        return image, None
    pixels, charts = seen_pixels(stored, iuv[index], params, height, width, augmented=augmented_dsap)
    dsap, _ = _iuv_to_dsap(
        pixels.permute(0, 3, 1, 2),
        charts.permute(0, 3, 1, 2),
        size=size,
        fill=fill,
        parts=parts,
        mirror=mirror,
        dtype=dtype,
        mean=mean,
        std=std,
    )
    return image, dsap


def _view(params: Tensor, rows: Tensor, columns: Tensor, height: int, width: int):
    """For each pixel (rows, columns) of the view: row [B, H] and column [B, W] of the resized image, and
    whether it is shown, bool [B, H, W]."""
    shift_y, shift_x, flip, top, left, bottom, right, _ = params[:, :, None].unbind(1)  # [B, 1] each
    y = rows + shift_y
    x = torch.where(flip != 0, width - 1 - columns, columns) + shift_x
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    erased = ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None]
    return y, x, inside & ~erased


def seen_pixels(
    pixels: Tensor, iuv: Tensor, params: Tensor | None, height: int, width: int, *, augmented: bool = True
) -> tuple[Tensor, Tensor]:
    """Stored pixels and their IUV as a view shows them: what assemble_batch warps, in plain torch.

    Args:
        pixels, iuv: uint8 (B, h, w, 3).
        params: int32 (B, 8) of `draw_augmentation`, or None.
        height, width: of the resized image that params refer to.
        augmented: False drops parts alone, without shift, flip and erased box.

    Returns:
        Both, uint8 (B, h, w, 3), mirrored if the view is flipped. Pixels that it does not show and
        dropped parts are background in the map.
    """
    params = _params_or_identity(params, pixels).to(iuv.device)
    if not augmented:
        params = params * (torch.arange(8, device=iuv.device) == 7)
    stored_height, stored_width = iuv.shape[1:3]
    device = iuv.device
    shift_y, shift_x, flip, top, left, bottom, right, keep = params[:, :, None].unbind(1)  # [B, 1]
    # The pixel of the view that the centre of each stored pixel falls into.
    y = (2 * torch.arange(stored_height, device=device) + 1) * height // (2 * stored_height) - shift_y
    x = (2 * torch.arange(stored_width, device=device) + 1) * width // (2 * stored_width) - shift_x
    x = torch.where(flip != 0, width - 1 - x, x)
    shown = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    shown &= ~(((y >= top) & (y < bottom))[:, :, None] & ((x >= left) & (x < right))[:, None])
    part = torch.where(iuv[..., 0] > 24, 0, iuv[..., 0].long())  # [B, h, w]
    shown &= (keep[:, :, None] >> part) & 1 != 0
    charts = torch.where(shown[..., None], iuv, 0)
    flipped = flip[:, :, None, None] != 0
    return (
        torch.where(flipped, pixels.flip(2), pixels),
        torch.where(flipped, _swap_sides(charts).flip(2), charts),
    )


def view_parts(parts: Tensor, params: Tensor | None, height: int, width: int) -> Tensor:
    """Which part the view of height x width pixels shows where: of each pixel the nearest stored one.

    It lies on the images of assemble_batch, pixel by pixel. Plain torch.

    Args:
        parts: uint8 (B, h, w), I of each stored pixel.
        params: int32 (B, 8) of `draw_augmentation`, or None.
        height, width: of the view.

    Returns:
        uint8 (B, height, width), 1..24, those of the mirrored person if the view is flipped. Padding, the
        erased box and dropped parts are background, 0.
    """
    device, (stored_height, stored_width) = parts.device, parts.shape[1:]
    params = _params_or_identity(params, parts).to(device)
    y, x, shown = _view(
        params, torch.arange(height, device=device), torch.arange(width, device=device), height, width
    )
    y = ((2 * y + 1) * stored_height // (2 * height)).clamp(0, stored_height - 1)
    x = ((2 * x + 1) * stored_width // (2 * width)).clamp(0, stored_width - 1)
    found = parts[torch.arange(len(parts), device=device)[:, None, None], y[:, :, None], x[:, None]]
    # What each value becomes in each sample: kept or dropped, the twin's if it is flipped.
    index = torch.arange(25, device=device)
    twin = torch.tensor((0, *body.TWIN), dtype=torch.uint8, device=device)
    turned = torch.where(params[:, 2:3] != 0, twin, index.to(torch.uint8))  # [B, 25]
    becomes = torch.zeros(len(parts), 256, dtype=torch.uint8, device=device)
    becomes[:, :25] = torch.where((params[:, 7:] >> index) & 1 != 0, turned, 0)
    becomes[:, 0] = 0
    return becomes.gather(1, found.flatten(1).long()).view_as(found) * shown


def _params_or_identity(params: Tensor | None, samples: Tensor) -> Tensor:
    """`params`; if None, params that change nothing."""
    if params is not None:
        return params
    return torch.tensor([[0] * 7 + [-1]], dtype=torch.int32).expand(len(samples), -1)


def _swap_sides(iuv: Tensor) -> Tensor:
    """The IUV values of the mirrored person, pixel by pixel: the closed form of UV_symmetry_transforms."""
    device = iuv.device
    i = torch.where(iuv[..., 0] > 24, 0, iuv[..., 0].long())
    u, v = iuv[..., 1], iuv[..., 2]
    twin = torch.tensor((0, *body.TWIN), dtype=torch.uint8, device=device)
    turn_u, turn_v = (torch.tensor((False, *x), device=device) for x in (body.FLIP_U, body.FLIP_V))
    return torch.stack([twin[i], torch.where(turn_u[i], 255 - u, u), torch.where(turn_v[i], 255 - v, v)], -1)


# ---- the operation ----


# drawn: int32 [B, 8], what draw_augmentation returned; rows and columns: of resize_table.
@operation(
    "assemble_batch_out(Tensor images, Tensor? iuv, Tensor index, Tensor? drawn, Tensor rows, "
    "Tensor columns, Tensor(a!) image, Tensor(b!)? dsap, bool augmented_dsap, bool mirror, float[] fill, "
    "float[] mean, float[] std) -> ()"
)
def _assemble(
    images, iuv, index, drawn, rows, columns, image, dsap, augmented_dsap, mirror, fill, mean, std
) -> None:
    height, width = image.shape[2:]
    _check_ranges(index, drawn, len(images), height, width)
    part_images = (
        {"size": 1, "parts": 24} if dsap is None else {"size": dsap.shape[4], "parts": dsap.shape[1]}
    )
    values = {"fill": fill, "mean": mean or None, "std": std or None, "dtype": image.dtype}
    result = _assemble_batch(
        images,
        iuv,
        index,
        drawn,
        height=height,
        width=width,
        **part_images,
        mirror=mirror,
        augmented_dsap=augmented_dsap,
        **values,
    )
    for target, made in zip((image, dsap), result):
        if target is not None:
            target.copy_(made)


def _check_ranges(index: Tensor, params: Tensor | None, stored: int, height: int, width: int) -> None:
    """Raise RuntimeError for an index or params out of range, as the compiled operation does."""
    for sample, image in enumerate(index.tolist()):
        if not 0 <= image < stored:
            raise RuntimeError(f"index must be 0..{stored - 1}, but sample {sample} has {image}")
    far = 1 << 20
    for sample, drawn in enumerate([] if params is None else params.tolist()):
        shift_y, shift_x, _, top, left, bottom, right, _ = drawn
        if not (-far <= shift_y <= far and -far <= shift_x <= far):
            raise RuntimeError(f"params: the shift of sample {sample} is beyond 2^20: {shift_y}, {shift_x}")
        if not (0 <= top <= bottom <= height and 0 <= left <= right <= width):
            raise RuntimeError(
                f"params: the erased box of sample {sample} must lie in the {height}x{width} image, but is "
                f"rows {top}..{bottom}, columns {left}..{right}"
            )


@torch.library.register_fake("dsa_ext::assemble_batch_out")
def _(images, iuv, index, drawn, rows, columns, image, dsap, augmented_dsap, mirror, fill, mean, std):
    return None
