"""Types of the compiled module; csrc/core/module.cpp has its docstrings, and help() prints them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Memory = tuple[int, int]  # address and bytes
_Colours = Sequence[float]  # three

def rasterize(
    points: NDArray[np.float32], faces: NDArray[np.int32], height: int, width: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...
def sample_epoch(
    label: NDArray[np.int64], identity_count: int, *, identities: int, images: int, seed: int, epoch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...

class SampleError(RuntimeError):
    position: int
    index: int

class Prefetcher:
    def __init__(
        self,
        *,
        images: NDArray[np.uint8],
        iuv: NDArray[np.uint8] | None,
        files: Sequence[tuple[int, int, int]],
        slots: Sequence[tuple[_Memory, _Memory | None]],
        type: str,
        batch: int,
        height: int,
        width: int,
        image_stride: Sequence[int],
        size: int,
        parts: int,
        dsap_stride: Sequence[int],
        mirror: bool,
        augmented_dsap: bool,
        fill: _Colours,
        mean: _Colours | None,
        std: _Colours | None,
        pad: int,
        flip: float,
        erase: float,
        drop_person: float,
        drop_part: float,
        seed: int,
        threads: int,
        owners: object,
    ) -> None: ...
    def submit(self, slot: int, epoch: int, index: NDArray[np.int64], repeat: NDArray[np.int64]) -> None: ...
    def wait(self, slot: int) -> None: ...
    def close(self) -> None: ...
