"""Compiled operations: warp images into part images, merge part features, rank a gallery.

    iuv_to_dsap       image + IUV map -> 24 (or 13, or 8) part images, differentiable in the image
    assemble_batch    stored images and maps -> resized, augmented, normalised images and part images
    draw_augmentation seed, epoch and images -> how each sample of a batch is augmented
    merge_parts       features of 24 parts -> 13 -> 8
    count_ranks       distances of queries to a gallery -> the ranks of their matches, without a sort
    parts             the tables: names, mirror twins, groups
    kernel_source     the CUDA kernels as text, to be compiled at run time

Any DLPack arrays (NumPy, CuPy) are accepted; results are torch tensors. Each operation has a twin in plain
torch, with an underscore before its name, which gives the same bits and is easier to read. CUDA kernels serve
CUDA tensors if they were built and torch has CUDA; if not, CUDA_ERROR says why, else it is None. Without any
compiled code the twins serve CPU tensors; CPU_ERROR then says why, else it is None.
`python -m dsa_ext.selftest` checks all of it on this machine.
"""

from dsa_ext import parts
from dsa_ext._library import CPU_ERROR, CUDA_ERROR
from dsa_ext.augment import _draw_augmentation, draw_augmentation  # noqa: F401
from dsa_ext.batch import _assemble_batch, assemble_batch  # noqa: F401
from dsa_ext.kernels import kernel_source
from dsa_ext.merge import _merge_parts, merge_parts  # noqa: F401
from dsa_ext.rank import _count_ranks, count_ranks  # noqa: F401
from dsa_ext.warp import _iuv_to_dsap, iuv_to_dsap  # noqa: F401

__all__ = [
    "CPU_ERROR",
    "CUDA_ERROR",
    "assemble_batch",
    "count_ranks",
    "draw_augmentation",
    "iuv_to_dsap",
    "kernel_source",
    "merge_parts",
    "parts",
]
