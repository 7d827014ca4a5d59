"""warp_simple.cu's kernels, compiled and launched by CuPy."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

THREADS = 256


def kernels(size: int) -> Callable[[str, int, Sequence[Tensor], Sequence[int]], None]:
    """A function that launches the kernel of a name for `count` threads on torch's stream."""
    import cupy

    source = Path(__file__).with_name("warp_simple.cu").read_text()
    module = cupy.RawModule(code=source, options=(f"-DSIZE={size}",))

    def launch(name: str, count: int, tensors: Sequence[Tensor], numbers: Sequence[int]) -> None:
        arguments = (*(x.data_ptr() for x in tensors), *(cupy.int32(x) for x in numbers), cupy.int32(count))
        stream = torch.cuda.current_stream().cuda_stream
        with cupy.cuda.ExternalStream(stream):
            module.get_function(name)(((count + THREADS - 1) // THREADS,), (THREADS,), arguments)

    return launch


def scatter_gather(size: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """atomicMax on the index of the pixel, then a gather."""
    launch = kernels(size)

    def warp(image: Tensor, iuv: Tensor, out: Tensor) -> Tensor:
        batch, pixels, cells = len(image), image[0, 0].numel(), len(image) * 24 * size * size
        winner = torch.full((cells,), -1, dtype=torch.int32, device=image.device)
        launch("scatter", batch * pixels, (iuv, winner), (pixels,))
        launch("gather", cells, (image, winner, out), (pixels,))
        return out

    return warp


def splat(size: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """atomicAdd of colours and of their number, then a division: a cell is the mean of what meets there."""
    launch = kernels(size)

    def warp(image: Tensor, iuv: Tensor, out: Tensor) -> Tensor:
        batch, pixels, cells = len(image), image[0, 0].numel(), len(image) * 24 * size * size
        weight = torch.zeros(cells, device=image.device)
        launch("splat", batch * pixels, (image, iuv, out.zero_(), weight), (pixels,))
        launch("average", cells, (out, weight), ())
        return out

    return warp
