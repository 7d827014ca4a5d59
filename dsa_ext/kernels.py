"""The CUDA kernels as source text, for those who compile them at run time (NVRTC, CuPy)."""

import functools
import re
from pathlib import Path

KERNELS = ("warp", "batch", "merge", "rank")

_PACKAGE = Path(__file__).parent


def kernel_source(name: str) -> str:
    """The CUDA C++ source of an operation's kernels, complete in itself.

    It has no #include left that NVRTC would have to find, needs -std=c++20, and declares in namespace
    dsa the kernels (warp_kernel<In, Out>, merge_kernel<T, width, residual>, ...) and the plain struct
    that each takes as its only argument; comments in it state the struct's fields and the shared
    memory. examples/cupy_warp.py compiles and launches one.

    Args:
        name: "warp" (and its gradient), "batch", "merge" (and its gradient) or "rank".

    Raises:
        ValueError: another name.
    """
    if name not in KERNELS:
        raise ValueError(f"name must be one of {', '.join(map(repr, KERNELS))}, not {name!r}")
    return _with_includes(f"{name}.cuh", set())


@functools.cache
def _folder() -> Path:
    """Where the headers lie: inside an installed package, beside a checkout's."""
    installed = _PACKAGE / "csrc"
    return installed if installed.is_dir() else _PACKAGE.parent / "csrc"


def _with_includes(name: str, seen: set[str]) -> str:
    """A header with the project's own headers in place of their #include lines, each once."""
    if name in seen:
        return ""
    seen.add(name)
    text = (_folder() / name).read_text(encoding="utf-8").replace("#pragma once\n", "")
    return re.sub(r'^#include "([^"]+)"\n', lambda found: _with_includes(found[1], seen), text, flags=re.M)
