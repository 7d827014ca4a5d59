"""The CUDA kernels against what one could use instead, on the GPU of this machine.

    python benchmarks/kernels.py [--rounds 50] [--batch 64] [--json FILE]

The warp, the assembly of a batch, the merging of parts (forward, and forward with backward) and the
counting of ranks, each at its typical size, against torch operators, torch.compile of them, and for the
warp a CuPy kernel. A peer that cannot run here (no Triton, no CuPy) is named with the reason. Every
peer's result is compared with ours before anything is timed (of the one that races, on a map without
collisions; resized images within a step of 1/255, as torch does not round between the passes).

Medians of paired runs, timed by events; the L2 cache is filled with other data before each, and
buffers rotate. Beside each time stand its ratio to ours, and how often it holds the time of moving
what must move at the speed of a measured copy (x floor).
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dsa_ext import assemble_batch, count_ranks, iuv_to_dsap, merge_parts
from dsa_ext import parts as body
from dsa_ext.merge import LEVELS
from dsa_ext.rank import columns
from dsa_ext.selftest import measure

SIZE = 32
SETS = 3  # of buffers, in turn

Work = Callable[[int], object]


@dataclass
class Contest:
    """Ours and its peers at one size.

    Attributes:
        bytes: what must move.
        work: each is called with the number of the round and returns its result.
        agree: compares a peer's result with ours; raises if they differ.
        missing: peers that cannot run here, with the reason.
    """

    title: str
    bytes: int
    work: dict[str, Work]
    agree: Callable[[object, object], None]
    missing: dict[str, str]


def equal(got: Tensor | tuple, expected: Tensor | tuple) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def close(got: Tensor | tuple, expected: Tensor | tuple) -> None:
    """float16: the peers round after each step, we round once."""
    torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-3)


def same_colours(got: Tensor, expected: Tensor) -> None:
    """uint8 exactly. Of floats the last place may differ: on CUDA torch divides by 255 by multiplying
    with its reciprocal. Another winner of a cell would be another random colour."""
    rtol = {torch.uint8: 0, torch.float32: 1e-6, torch.float16: 2e-3}[expected.dtype]
    torch.testing.assert_close(got, expected, rtol=rtol, atol=0)


# ------------------------------------------------------------------------------------------- warp


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


def peers(make: dict[str, Callable[[], object]]) -> tuple[dict, dict[str, str]]:
    """Make each peer; those that cannot be made or run here are returned with the reason."""
    made, missing = {}, {}
    for name, build in make.items():
        try:
            made[name] = build()
        except Exception as error:  # a compiler or a library that is not there, or not for this GPU
            missing[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return made, missing


def compiled(function: Callable, *arguments) -> Callable:
    """torch.compile, and one run, in which it compiles."""
    result = torch.compile(function, dynamic=False)
    result(*arguments)
    return result


def warp_contests(batch: int, device: str) -> Iterator[Contest]:
    sets = [tuple(x.to(device) for x in measure.person_batch(batch, seed=seed)) for seed in range(SETS)]
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
        moved = measure.warp_bytes(
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


# ------------------------------------------------------------------------------------------ batch

VIEW = (256, 128)  # of images that are stored half as high and wide


def close_images(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """The peers do not round to uint8 after each pass of the resizing, as Pillow and we do: that is half a
    step of 1/255 twice. Part images are not resized."""
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=1.01 / 255)
    same_colours(got[1], expected[1])


@functools.cache
def sides(device: torch.device) -> tuple[Tensor, Tensor]:
    """By I: the part of the mirrored person, and 255 where U or V are counted from the other end."""
    twin = torch.tensor((0, *body.TWIN), dtype=torch.uint8, device=device)  # [25]
    turn = torch.tensor([(0, *body.FLIP_U), (0, *body.FLIP_V)], dtype=torch.uint8, device=device) * 255
    return twin, turn.T.contiguous()  # [25, 2]


def shown(params: Tensor, y: Tensor, x: Tensor, view_y: Tensor, view_x: Tensor) -> Tensor:
    """bool [B, R, C]: (y, x) [B, R] and [B, C] lies in a picture of VIEW, and what the view has there, at
    (view_y, view_x), is not erased."""
    top, left, bottom, right = params[:, 3:7, None].unbind(1)  # [B, 1]
    inside = ((y >= 0) & (y < VIEW[0]))[:, :, None] & ((x >= 0) & (x < VIEW[1]))[:, None]
    rows, columns = (view_y >= top) & (view_y < bottom), (view_x >= left) & (view_x < right)
    return inside & ~(rows[:, :, None] & columns[:, None])


def torch_batch(images: Tensor, iuv: Tensor, index: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
    """Gathers, F.interpolate, index arithmetic for the views, and `scatter_reduce` for the part images."""
    device = images.device
    shift_y, shift_x, flip = params[:, :3, None].unbind(1)  # [B, 1]
    flip = flip != 0
    pixels, maps = images[index], iuv[index]  # [B, h, w, 3]

    resized = F.interpolate(pixels.permute(0, 3, 1, 2).float(), VIEW, mode="bilinear", antialias=True)
    rows, columns = (torch.arange(n, device=device) for n in VIEW)
    y, x = rows + shift_y, torch.where(flip, VIEW[1] - 1 - columns, columns) + shift_x
    sample = torch.arange(len(index), device=device)[:, None, None]
    seen = resized[sample, :, y.clamp(0, VIEW[0] - 1)[:, :, None], x.clamp(0, VIEW[1] - 1)[:, None]] / 255
    image = (seen * shown(params, y, x, rows, columns)[..., None]).permute(0, 3, 1, 2).contiguous()

    # Where the centres of stored pixels, half as many, lie in the view.
    y, x = 2 * rows[: VIEW[0] // 2] + 1 - shift_y, 2 * columns[: VIEW[1] // 2] + 1 - shift_x
    x = torch.where(flip, VIEW[1] - 1 - x, x)
    part = maps[..., 0] * shown(params, y, x, y, x)  # [B, h, w]
    twin, turn = sides(device)
    mirrored = torch.cat([twin[part.int()][..., None], maps[..., 1:] ^ turn[part.int()]], 3).flip(2)
    flip = flip[:, :, None, None]
    seen_maps = torch.where(flip, mirrored, torch.cat([part[..., None], maps[..., 1:]], 3))
    seen_pixels = torch.where(flip, pixels.flip(2), pixels)
    dsap = scatter_reduce(seen_pixels.permute(0, 3, 1, 2), seen_maps.permute(0, 3, 1, 2), torch.float32)
    return image, dsap


def batch_contest(batch: int, device: str) -> Contest:
    sets = [tuple(x.to(device) for x in measure.stored_batch(batch, seed)) for seed in range(SETS)]
    outs = [
        tuple(torch.empty(shape, device=device) for shape in ((batch, 3, *VIEW), (batch, 24, 3, SIZE, SIZE)))
        for _ in sets
    ]
    size = {"height": VIEW[0], "width": VIEW[1], "size": SIZE}
    made, missing = peers(
        {
            "torch operators": lambda: torch_batch,
            "the same, torch.compile": lambda: compiled(torch_batch, *sets[0]),
        }
    )
    work: dict[str, Work] = {
        "dsa_ext": lambda turn: assemble_batch(*sets[turn % SETS], **size, out=outs[turn % SETS])
    }
    for name, function in made.items():
        work[name] = lambda turn, f=function: f(*sets[turn % SETS])
    moved = measure.batch_bytes(batch, (VIEW[0] // 2, VIEW[1] // 2), VIEW, SIZE)
    title = f"assemble_batch, {batch} samples of half the size to {VIEW[0]}x{VIEW[1]}, S={SIZE}, float32"
    return Contest(title, moved, work, close_images, missing)


# ------------------------------------------------------------------------------------------ merge


@functools.cache
def group_of(level: str, device: torch.device) -> Tensor:
    """Made once: copying it to the GPU in every call would wait for the GPU in every call."""
    return torch.tensor(LEVELS[level], device=device)


def merge_index_add(features: Tensor, level: str, residual: Tensor | None) -> Tensor:
    if residual is not None:
        features = (features + residual).relu()
    group = group_of(level, features.device)
    merged = features.new_zeros((features.shape[0], max(LEVELS[level]) + 1, *features.shape[2:]))
    return merged.index_add(1, group, features)


def merge_slices(features: Tensor, level: str, residual: Tensor | None) -> Tensor:
    """No index: members are slices, added and stacked; what torch.compile can fuse."""
    if residual is not None:
        features = (features + residual).relu()
    members: dict[int, Tensor] = {}
    for part, group in enumerate(LEVELS[level]):
        slice_ = features[:, part]
        members[group] = members[group] + slice_ if group in members else slice_
    return torch.stack([members[group] for group in sorted(members)], 1)


def ours(features: Tensor, level: str, residual: Tensor | None) -> Tensor:
    return merge_parts(features, level, residual, relu=residual is not None)


def with_gradient(function: Callable, inputs: list[Tensor], level: str, grad: Tensor) -> tuple[Tensor, ...]:
    merged = function(inputs[0], level, inputs[1] if len(inputs) > 1 else None)
    return merged.detach(), *torch.autograd.grad(merged, inputs, grad)


def merge_contest(
    level: str,
    shape: tuple[int, int, int],
    groups: int,
    dtype: torch.dtype,
    fused: bool,
    backward: bool,
    device: str,
) -> Contest:
    batch, parts, inner = shape

    def draw(*size):
        return torch.randn(size, device=device, dtype=dtype)

    sets = [[draw(*shape) for _ in range(1 + fused)] for _ in range(SETS)]
    grad = draw(batch, groups, inner)
    for inputs in sets if backward else ():
        for x in inputs:
            x.requires_grad_()

    def call(function: Callable) -> Work:
        if backward:
            return lambda turn: with_gradient(function, sets[turn % SETS], level, grad)
        return lambda turn: function(sets[turn % SETS][0], level, sets[turn % SETS][1] if fused else None)

    def compile_slices() -> Callable:
        torch.compiler.reset()
        function = torch.compile(merge_slices, dynamic=False)
        call(function)(0)
        return function

    made, missing = peers(
        {
            "torch index_add": lambda: merge_index_add,
            "torch slices, stack": lambda: merge_slices,
            "the same, torch.compile": compile_slices,
        }
    )
    work = {name: call(function) for name, function in ({"dsa_ext": ours} | made).items()}
    size = dtype.itemsize
    moved = measure.merge_bytes(batch, parts, groups, inner, element_bytes=size, residual=fused)
    if backward:
        moved += measure.merge_gradient_bytes(batch, parts, groups, inner, element_bytes=size, relu=fused)
    title = f"merge {level}, {list(shape)} {str(dtype).removeprefix('torch.')}"
    title += ", residual + ReLU" if fused else ""
    title += ", forward + backward" if backward else ", forward"
    return Contest(title, moved, work, equal if dtype == torch.float32 else close, missing)


def merge_contests(batch: int, device: str) -> Iterator[Contest]:
    for level, parts, groups, pixels, channels in measure.MERGES:
        for dtype in (torch.float32, torch.float16):
            for fused in (False, True):
                for backward in (False, True):
                    shape = (batch * pixels, parts, channels)
                    yield merge_contest(level, shape, groups, dtype, fused, backward, device)


# ------------------------------------------------------------------------------------------ ranks


def sort_ranks(distances, members, first, count, query_cams, gallery_cams) -> tuple[Tensor, Tensor]:
    """What most evaluations do: sort the whole gallery for every query, drop junk, find the hits."""
    queries, gallery = distances.shape
    most = columns(count)
    step = torch.arange(most, device=distances.device)
    mine = step < count[:, None]  # [T, M]
    candidates = members[(first[:, None] + step).clamp(max=gallery - 1)]  # [T, M]
    same_cam = gallery_cams[candidates] == query_cams[:, None]
    kind = torch.zeros((queries, gallery), dtype=torch.int32, device=distances.device)
    label = torch.where(same_cam, 2, 1).int() * mine  # 1 a positive, 2 junk
    kind.scatter_reduce_(1, candidates.where(mine, 0), label, "amax")
    order = distances.sort(dim=1, stable=True).indices  # [T, G]
    kind = kind.gather(1, order)
    place = (kind != 2).cumsum(1) - 1  # [T, G] among the images that are kept
    found = (kind == 1).sum(1)
    ranks = place.where(kind == 1, gallery).sort(dim=1).values[:, :most]
    return ranks, found


def rank_contests(queries: int, gallery: int, device: str) -> Iterator[Contest]:
    cases = [measure.ranking(queries, gallery, measure.IDENTITIES, seed=seed) for seed in range(SETS)]
    sets = [tuple(x.to(device) for x in case) for case in cases]
    work: dict[str, Work] = {
        "dsa_ext": lambda turn: count_ranks(*sets[turn % SETS]),
        "torch, a sort per query": lambda turn: sort_ranks(*sets[turn % SETS]),
    }
    moved = measure.rank_bytes(queries, gallery, columns(cases[0][3]))
    yield Contest(f"count_ranks, {queries} x {gallery}, float32", moved, work, equal, {})


# ---------------------------------------------------------------------------------------- command


def verify(contest: Contest) -> None:
    for turn in range(SETS):
        expected = contest.work["dsa_ext"](turn)
        expected = expected.clone() if isinstance(expected, Tensor) else expected  # it may be reused
        for name, function in contest.work.items():
            if name == "torch index_put_ (racing)":
                continue  # was compared on a map without collisions
            try:
                contest.agree(function(turn), expected)
            except AssertionError as error:
                raise SystemExit(f"{contest.title}: {name} does not agree with dsa_ext: {error}") from error


def show(contest: Contest, seconds: dict[str, float], copy: float) -> dict:
    floor = contest.bytes / copy
    print(f"\n{contest.title}: {contest.bytes / 1e6:.1f} MB must move, floor {floor * 1e6:.1f} us")
    print(f"  {'':32s} {'us':>9s} {'against dsa_ext':>16s} {'x floor':>8s}")
    for name, time in sorted(seconds.items(), key=lambda item: -item[1]):
        print(
            f"  {name:32s} {time * 1e6:9.1f} {time / seconds['dsa_ext']:14.2f} x {time / floor:8.2f}",
            flush=True,
        )
    for name, reason in contest.missing.items():
        print(f"  {name:32s} not run: {reason}")
    return {
        "title": contest.title,
        "bytes": contest.bytes,
        "floor_seconds": floor,
        "seconds": seconds,
        "not_run": contest.missing,
    }


def contests(batch: int, device: str, queries: int = measure.QUERIES, gallery: int = measure.GALLERY):
    yield from warp_contests(batch, device)
    yield batch_contest(batch, device)
    yield from merge_contests(batch, device)
    yield from rank_contests(queries, gallery, device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="timed runs of each candidate")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", metavar="FILE", help="write the results to FILE as well")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("kernels.py needs a CUDA device: torch.cuda.is_available() is False", file=sys.stderr)
        return 2
    properties = torch.cuda.get_device_properties(0)
    print(f"{properties.name}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    copy = measure.copy_bandwidth()
    print(f"a copy of 1 GiB moves {copy / 1e9:,.0f} GB/s, read and written bytes counted")
    results = []
    for contest in contests(options.batch, "cuda"):
        verify(contest)
        results.append(show(contest, measure.cuda_medians(contest.work, options.rounds), copy))
    if options.json:
        document = {"device": properties.name, "torch": torch.__version__, "copy": copy, "results": results}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
