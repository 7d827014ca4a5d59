"""The warp against torch operators and a CuPy kernel."""

from collections.abc import Callable, Iterator

import torch
from contests.contest import SETS, SIZE, Contest, Work, compiled, peers, same_colours
from torch import Tensor

from dsa_ext import iuv_to_dsap
from dsa_ext.selftest.measure import person_batch
from dsa_ext.selftest.operations.warp import warp_bytes


def cells_of(iuv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """I, row and column of every pixel, int64 [B, H, W]."""
    part, u, v = iuv.long().unbind(1)
    row, column = ((x * SIZE // 255).clamp(max=SIZE - 1) for x in (u, v))
    return part, row, column


def to_type(image: Tensor, dtype: torch.dtype) -> Tensor:
    return image if dtype == torch.uint8 else (image.float() / 255).to(dtype)


def scatter_reduce(image: Tensor, iuv: Tensor, dtype: torch.dtype) -> Tensor:
    """Deterministic: the highest pixel index of each cell, then a gather."""
    batch, channels = image.shape[:2]
    part, row, column = (x.flatten(1) for x in cells_of(iuv))  # [B, H*W]
    cells = 24 * SIZE * SIZE
    cell = torch.where(part == 0, cells, (part - 1) * SIZE * SIZE + row * SIZE + column)
    pixel = torch.arange(cell.shape[1], device=image.device).expand_as(cell)
    source = torch.full((batch, cells + 1), -1, device=image.device)
    source = source.scatter_reduce(1, cell, pixel, "amax")[:, :cells]
    index = source.clamp(min=0)[:, None].expand(-1, channels, -1)
    value = to_type(image.flatten(2).gather(2, index), dtype)  # [B, C, 24*S*S]
    value = value.masked_fill(source[:, None] < 0, 0)
    return value.unflatten(2, (24, SIZE, SIZE)).transpose(1, 2).contiguous()


def index_put(image: Tensor, iuv: Tensor, dtype: torch.dtype) -> Tensor:
    """Racing stores: which of the pixels that meet in a cell wins is left to chance on a GPU."""
    batch, channels = image.shape[:2]
    part, row, column = cells_of(iuv)
    # Part 0 takes the background and is cut off.
    out = torch.zeros((batch, 25, channels, SIZE, SIZE), dtype=dtype, device=image.device)
    first = torch.arange(batch, device=image.device)[:, None, None].expand_as(part)
    out[first, part, :, row, column] = to_type(image, dtype).permute(0, 2, 3, 1)
    return out[:, 1:]


CUPY_SOURCE = r"""
extern "C" __global__ void scatter(const unsigned char* iuv, int* winner, int pixels, int count) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const int image = at / pixels, pixel = at % pixels;
  const unsigned char* from = iuv + 3LL * image * pixels + pixel;
  const int part = from[0];
  if (part == 0 || part > 24) return;
  const int row = min(from[pixels] * SIZE / 255, SIZE - 1);
  const int column = min(from[2 * pixels] * SIZE / 255, SIZE - 1);
  atomicMax(&winner[((image * 24 + part - 1) * SIZE + row) * SIZE + column], pixel);
}

extern "C" __global__ void gather(const unsigned char* images, const int* winner, float* out, int pixels,
                                  int count) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  const int cell = at % (SIZE * SIZE), map = at / (SIZE * SIZE);
  const int pixel = winner[at];
  const unsigned char* from = images + 3LL * (map / 24) * pixels + (pixel < 0 ? 0 : pixel);
  for (int c = 0; c < 3; ++c) {
    out[(3LL * map + c) * (SIZE * SIZE) + cell] = pixel < 0 ? 0.f : from[1LL * c * pixels] / 255.f;
  }
}
"""


def cupy_kernel() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Twenty lines of CUDA through CuPy: atomicMax on the pixel index, then a gather."""
    import cupy

    options = (f"-DSIZE={SIZE}",)
    scatter = cupy.RawKernel(CUPY_SOURCE, "scatter", options=options)
    gather = cupy.RawKernel(CUPY_SOURCE, "gather", options=options)

    def run(image: Tensor, iuv: Tensor, out: Tensor) -> Tensor:
        batch, _, height, width = image.shape
        pixels, cells = height * width, batch * 24 * SIZE * SIZE
        winner = torch.full((cells,), -1, dtype=torch.int32, device=image.device)
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            for kernel, count, pointers in (
                (scatter, batch * pixels, (iuv, winner)),
                (gather, cells, (image, winner, out)),
            ):
                numbers = (cupy.int32(pixels), cupy.int32(count))
                arguments = (*(x.data_ptr() for x in pointers), *numbers)
                kernel(((count + 255) // 256,), (256,), arguments)
        return out

    return run


def winners_only(image: Tensor, iuv: Tensor) -> Tensor:
    """The IUV map with every pixel that wins no cell made background: nothing collides."""
    _, source = iuv_to_dsap(image, iuv, size=SIZE, return_source=True)
    wins = torch.zeros((len(iuv), image[0, 0].numel() + 1), dtype=torch.bool, device=iuv.device)
    wins.scatter_(1, (source.flatten(1) + 1).long(), True)  # -1, the empty cells, goes to column 0
    kept = iuv.clone()
    kept[:, 0] *= wins[:, 1:].view_as(kept[:, 0])
    return kept


def contests(batch: int, device: str) -> Iterator[Contest]:
    sets = [tuple(x.to(device) for x in person_batch(batch, seed=seed)) for seed in range(SETS)]
    for dtype in (torch.float32, torch.float16, torch.uint8):
        outs = [torch.empty((batch, 24, 3, SIZE, SIZE), dtype=dtype, device=device) for _ in sets]
        build = {
            "torch scatter_reduce, gather": lambda: scatter_reduce,
            "the same, torch.compile": lambda dtype=dtype: compiled(scatter_reduce, *sets[0], dtype),
            "torch index_put_ (racing)": lambda: index_put,
        }
        if dtype == torch.float32:
            build["CuPy, atomicMax and gather"] = lambda outs=outs: tried_cupy(*sets[0], outs[0])
        made, missing = peers(build)
        work: dict[str, Work] = {
            "dsa_ext": lambda turn, outs=outs: iuv_to_dsap(
                *sets[turn % SETS], size=SIZE, out=outs[turn % SETS]
            )
        }
        for name, function in made.items():
            if name.startswith("CuPy"):
                work[name] = lambda turn, f=function, o=outs: f(*sets[turn % SETS], o[turn % SETS])
            else:
                work[name] = lambda turn, f=function, dtype=dtype: f(*sets[turn % SETS], dtype)
        if "torch index_put_ (racing)" in made:
            image, kept = sets[0][0], winners_only(*sets[0])
            same_colours(index_put(image, kept, dtype), iuv_to_dsap(image, kept, size=SIZE, dtype=dtype))
        moved = warp_bytes(
            batch,
            3,
            256,
            128,
            SIZE,
            out_bytes=dtype.itemsize,
            foreground=(sets[0][1][:, 0] > 0).float().mean().item(),
        )
        name = str(dtype).removeprefix("torch.")
        title = f"warp, {batch} images 256x128, S=32, {name} out"
        yield Contest(title, moved, work, same_colours, missing)


def tried_cupy(image: Tensor, iuv: Tensor, out: Tensor) -> Callable:
    run = cupy_kernel()
    run(image, iuv, out)  # compiles
    return run
