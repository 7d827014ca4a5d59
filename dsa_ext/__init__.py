"""Compiled operations on DensePose's parts: warp images into part images, merge part features.

    iuv_to_dsap   image + IUV map -> 24 (or 13, or 8) part images, differentiable in the image
    merge_parts   features of 24 parts -> 13 -> 8
    parts         the tables: names, mirror twins, groups

Beside each operation stands a plain torch twin of the same name with an underscore, which computes
the same and explains it. CUDA kernels serve CUDA tensors where they were built and torch has CUDA.
"""

import torch

from dsa_ext import _C  # noqa: F401 (registers the operations and their CPU backend)

CUDA_ERROR: str | None = None
"""Why CUDA tensors are not served, or None if they are."""

if torch.version.cuda is None:
    CUDA_ERROR = "this torch was built without CUDA"
else:
    try:
        from dsa_ext import _C_cuda  # noqa: F401
    except ImportError as error:
        CUDA_ERROR = f"dsa_ext was built without CUDA kernels ({error})"

from dsa_ext import parts  # noqa: E402
from dsa_ext.merge import _merge_parts, merge_parts  # noqa: E402, F401
from dsa_ext.warp import _iuv_to_dsap, iuv_to_dsap  # noqa: E402, F401

__all__ = ["CUDA_ERROR", "iuv_to_dsap", "merge_parts", "parts"]
