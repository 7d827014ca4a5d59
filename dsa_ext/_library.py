"""Loads the compiled libraries and declares every operation to torch: the one place that knows what is built.

A library registers its implementations with torch when it is loaded. If the CPU library is missing, because
there was no compiler, plain torch serves the operations in its place: the same checks, results and gradients,
slower. The schemas, fake kernels and gradients are the same either way.
"""

import importlib
import logging
from collections.abc import Callable
from typing import TypeVar

import torch  # its libraries must be loaded before ours
from torch import Tensor

Function = TypeVar("Function", bound=Callable)

_OPERATIONS = torch.library.Library("dsa_ext", "FRAGMENT")


def _load(name: str) -> str | None:
    """Import a compiled library. Returns why that failed, or None."""
    try:
        importlib.import_module(f"dsa_ext.{name}")
    except ModuleNotFoundError:
        return f"dsa_ext.{name} is not built"
    except ImportError as error:
        return f"dsa_ext.{name} does not load ({error})"
    return None


CPU_ERROR: str | None = _load("_C")
"""Why CPU tensors are served by plain torch, or None if compiled code serves them."""

CUDA_ERROR: str | None = None
"""Why CUDA tensors are not served, or None if they are."""

if torch.version.cuda is None:
    CUDA_ERROR = "this torch was built without CUDA"
elif reason := _load("_C_cuda"):
    CUDA_ERROR = f"dsa_ext cannot serve CUDA tensors: {reason}"

if CPU_ERROR:
    logging.getLogger("dsareid").warning("%s: plain torch computes the same, slower", CPU_ERROR)


def operation(schema: str) -> Callable[[Function], Function]:
    """Declare an operation; the decorated function serves CPU tensors if there is no compiled library."""
    _OPERATIONS.define(schema)

    def register(plain: Function) -> Function:
        if CPU_ERROR:
            _OPERATIONS.impl(schema.partition("(")[0], plain, "CPU")
        return plain

    return register


def check_served(tensor: Tensor) -> None:
    """Raise RuntimeError for a CUDA tensor if there are no CUDA kernels."""
    if tensor.is_cuda and CUDA_ERROR:
        raise RuntimeError(f"{CUDA_ERROR}; move the tensors to the CPU, or rebuild with DSA_CUDA=1")
