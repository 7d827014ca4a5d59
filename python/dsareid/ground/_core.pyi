"""Types of the compiled module; its docstrings are in csrc/core/module.cpp."""

from typing import Any

import numpy as np

class SampleError(RuntimeError):
    position: int
    index: int

class Prefetcher:
    def __init__(self, **settings: Any) -> None: ...
    def submit(self, slot: int, epoch: int, index: np.ndarray, repeat: np.ndarray) -> None: ...
    def wait(self, slot: int) -> None: ...
    def close(self) -> None: ...

def rasterize(
    points: np.ndarray, faces: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]: ...
def sample_epoch(
    label: np.ndarray, identity_count: int, *, identities: int, images: int, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]: ...
