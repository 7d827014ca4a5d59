"""Checks of the arrays that operations take, and of `out`."""

import sys
import warnings
from typing import Any, Protocol

import torch
from torch import Tensor


class DLPackArray(Protocol):
    """Any DLPack array: of NumPy, CuPy or JAX, for example."""

    def __dlpack__(self, *arguments: Any, **options: Any) -> Any: ...


Array = Tensor | DLPackArray


def as_tensor(name: str, value: object) -> Tensor:
    """`value` itself if it is a tensor, else a tensor that shares the memory of a DLPack array.

    Raises:
        TypeError: neither of the two, an array that torch cannot share without a copy, or a read-only
            array as `out`.
    """
    if isinstance(value, Tensor):
        return value
    if not hasattr(value, "__dlpack__"):
        raise TypeError(f"{name} must be a torch.Tensor or a DLPack array, not {type(value).__name__}")
    numpy = sys.modules.get("numpy")  # loaded if `value` is an array of it; no need to import it
    read_only = False
    if numpy is not None and isinstance(value, numpy.ndarray):
        read_only = not value.flags.writeable
        if any(stride < 0 for stride in value.strides):
            raise TypeError(
                f"{name} cannot be shared with torch without a copy: it has reversed strides "
                f"{value.strides}, as after [::-1]; pass a copy of it"
            )
    if read_only and name == "out":
        raise TypeError("out must be writeable, but it is a read-only array")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about read-only memory: inputs are only read
            # Older NumPy exports no read-only memory (a memory-mapped file, say) by DLPack.
            return torch.from_numpy(value) if read_only else torch.from_dlpack(value)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be shared with torch without a copy: {error}") from error


def check_no_gradient(out: Tensor, *inputs: Tensor) -> None:
    """Raise ValueError if autograd would have to record a write into `out`."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (out, *inputs)):
        raise ValueError("out= has no gradient: leave it out, or use torch.no_grad()")


def check_apart(out: Tensor, *inputs: tuple[str, Tensor]) -> None:
    """Raise ValueError if `out` overlaps itself or one of the named inputs."""
    if torch.compiler.is_compiling() or out.device.type == "meta" or not out.numel():
        return  # there is no memory to compare
    if not out.is_contiguous() and _overlaps_itself(out):
        raise ValueError(f"out must not overlap itself, but its strides are {out.stride()}")
    for name, tensor in inputs:
        if _share_memory(out, tensor):
            raise ValueError(f"out must not share memory with {name}")


def mark_written(out: Tensor) -> None:
    """Tell autograd that `out` was overwritten."""
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(out)


def _overlaps_itself(x: Tensor) -> bool:
    """Whether a stride is shorter than what the dimensions inside of it span."""
    span = 1
    for stride, length in sorted((s, n) for s, n in zip(x.stride(), x.shape) if n > 1):
        if stride < span:
            return True
        span += (length - 1) * stride
    return False


def _share_memory(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors overlap, by address: arrays of other libraries have a storage for every view."""
    if a.device != b.device or not a.numel() or not b.numel():
        return False
    (a_first, a_end), (b_first, b_end) = _addresses(a), _addresses(b)
    return a_first < b_end and b_first < a_end


def _addresses(x: Tensor) -> tuple[int, int]:
    first = x.data_ptr()
    if x.is_contiguous():
        return first, first + x.nbytes
    last = sum((length - 1) * stride for length, stride in zip(x.shape, x.stride()))
    return first, first + (last + 1) * x.element_size()
