"""What the operations ask of the arrays they are given, and of `out`."""

import warnings

import torch
from torch import Tensor


def as_tensor(name: str, value: object) -> Tensor:
    """`value` itself, or a tensor on the memory of any array that speaks DLPack (CuPy, NumPy, JAX).

    Raises:
        TypeError: neither of the two, or an array that torch cannot take without a copy.
    """
    if isinstance(value, Tensor):
        return value
    if not hasattr(value, "__dlpack__"):
        raise TypeError(f"{name} must be a torch.Tensor or a DLPack array, not {type(value).__name__}")
    read_only = getattr(getattr(value, "flags", None), "writeable", True) is False
    if read_only and name == "out":
        raise TypeError("out must be writeable, but it is a read-only array")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of read-only memory, which is only read
            # Older NumPy exports no read-only memory (a memory-mapped file, say) by DLPack.
            return torch.from_numpy(value) if read_only else torch.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{name} cannot be shared with torch without a copy: {error}") from error


def check_no_gradient(out: Tensor, *inputs: Tensor) -> None:
    """Raise ValueError where autograd would have to record a write into `out`."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (out, *inputs)):
        raise ValueError("out= has no gradient: leave it out, or use torch.no_grad()")


def check_apart(out: Tensor, *inputs: tuple[str, Tensor]) -> None:
    """Raise ValueError where `out` overlaps itself or one of the named inputs."""
    if torch.compiler.is_compiling():
        return  # tensors without memory: there is nothing to compare
    if any(stride == 0 and length > 1 for stride, length in zip(out.stride(), out.shape)):
        raise ValueError("out must not overlap itself, but it is an expanded tensor")
    for name, tensor in inputs:
        if _share_memory(out, tensor):
            raise ValueError(f"out must not share memory with {name}")


def mark_written(out: Tensor) -> None:
    """Tell autograd that `out` was overwritten."""
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(out)


def _share_memory(a: Tensor, b: Tensor) -> bool:
    if a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr() or not a.numel():
        return False
    ends = []
    for x in (a, b):
        last = sum((length - 1) * stride for length, stride in zip(x.shape, x.stride()))
        ends.append((x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()))
    return ends[0][0] < ends[1][1] and ends[1][0] < ends[0][1]
