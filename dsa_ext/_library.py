"""Loads the compiled libraries; importing them registers their operations with torch."""

import importlib.util

import torch
from torch import Tensor

from dsa_ext import _C  # noqa: F401 (the schemas and the CPU backend)

CUDA_ERROR: str | None = None
"""Why CUDA tensors are not served, or None if they are."""

if torch.version.cuda is None:
    CUDA_ERROR = "this torch was built without CUDA"
else:
    try:
        from dsa_ext import _C_cuda  # noqa: F401
    except ImportError as error:
        built = importlib.util.find_spec("dsa_ext._C_cuda") is not None
        state = "its CUDA kernels do not load" if built else "it was built without CUDA kernels"
        CUDA_ERROR = f"dsa_ext cannot serve CUDA tensors: {state} ({error})"


def check_served(tensor: Tensor) -> None:
    """Raise RuntimeError for a CUDA tensor where there are no CUDA kernels."""
    if tensor.is_cuda and CUDA_ERROR:
        raise RuntimeError(f"{CUDA_ERROR}; move the tensors to the CPU, or rebuild with DSA_CUDA=1")
