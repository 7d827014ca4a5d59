"""The CUDA kernels as source text, to be compiled at run time (NVRTC, CuPy)."""

import re
from pathlib import Path

_PACKAGE = Path(__file__).parent
# The headers lie inside an installed package, or beside the package in a checkout.
_FOLDER = _PACKAGE / "csrc" if (_PACKAGE / "csrc").is_dir() else _PACKAGE.parent / "csrc"

KERNELS: tuple[str, ...] = tuple(sorted(path.stem for path in _FOLDER.glob("*.cuh")))
"""The operations that have CUDA kernels."""


def kernel_source(name: str) -> str:
    """The CUDA C++ source of an operation's kernels, complete in itself.

    It has no #include left that NVRTC would have to find, needs -std=c++20, and declares in namespace
    dsa the kernels (warp_kernel<In, Out>, merge_kernel<T, width, residual>, ...) and the plain struct
    that each takes as its only argument; comments in it state the struct's fields and the shared
    memory. examples/cupy_warp.py compiles and launches one.

    Args:
        name: one of KERNELS: "batch", "merge" (and its gradient), "rank" or "warp" (and its gradient).

    Raises:
        ValueError: another name.
    """
    if name not in KERNELS:
        raise ValueError(f"name must be one of {', '.join(map(repr, KERNELS))}, not {name!r}")
    return _with_includes(f"{name}.cuh", set())


def _with_includes(name: str, seen: set[str]) -> str:
    """A header with the project's own headers in place of their #include lines, each once."""
    if name in seen:
        return ""
    seen.add(name)
    text = (_FOLDER / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
    return re.sub(r'^#include "([^"]+)"\n', lambda found: _with_includes(found[1], seen), text, flags=re.M)
