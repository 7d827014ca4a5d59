// The warp's CUDA kernels; warp.cu launches them. They need nothing but these headers, so NVRTC
// compiles them at run time as well.
//
// Both have the same two phases. A block owns a tile of the result and keeps one 32-bit number for
// each of the tile's cells in shared memory. Its threads go over the input and scatter into the
// tile; after a barrier they write the tile out, each element once, in the order of memory.
//
// warp_kernel: 512 threads; the tile is a run of rows of the part images of one image.
//   Bytes: out once, 16 at a time; each I once for every tile of its image, the first time from
//   DRAM and then from L2; U, V and the image only where a pixel lies in the tile.
//   Shared memory: 4 bytes a cell, 128 of the parts' targets, 4 KiB of runs that wait and, for uint8
//   images, 264 converted values a channel. 64 images to 24 x 3 x 32 x 32 float32: 4 tiles of 6 part
//   images, 31 KiB each.
//   Registers: at most 64, so that two blocks (1,024 threads) share a multiprocessor.
//
// gradient_kernel: 512 threads; the tile is a run of pixels of one image.
//   Bytes: the image's gradient once, 16 at a time, zeros included; the map of winners once for
//   every tile of its image; the gradient of cells that a pixel won.
//   Shared memory: 4 bytes a pixel of the tile. Registers: at most 64.
//
// The ladder of versions of warp_kernel, for 64 images of 256x128 to 24 x 3 x 32 x 32; the counts are
// those of tests/simt (its README.md has all of them, and what was rejected):
//   1. a block per part image, a pixel a thread: I is read 24 times, 107 MB again from L2;
//   2. 16 pixels a thread: requests of 14 sectors in place of 1, and U and V only where needed: 51 MB;
//   3. tiles of as many rows as keep the multiprocessors evenly busy: I is read 4 times, 8 MB;
//   4. 16-byte stores: a quarter of the requests, and several image loads of a thread under way;
//   5. values from a table: two IEEE divisions a value less, for 3 KiB of shared memory;
//   6. 16 pixels that may show a part of the tile wait until a warp has such a run for each lane, as
//      only a few do: with shorter arithmetic for each pixel, half of the instructions.
//
// budget warp_kernel: 64 registers (sm_75: 64), 7 wide loads, 3 wide stores, 32 KiB
// budget gradient_kernel: 64 registers (sm_75: 64), 1 wide loads, 1 wide stores, 32 KiB
#pragma once

#include "iuv.h"
#include "number.h"
#include "tile_write.h"
#include "waiting.h"
#include "warp_tile.h"

namespace dsa {

__device__ __forceinline__ int quads_of(const Tile& tile) { return (tile.rows * tile.size + 3) / 4; }

// The tile of this block, its winners cleared. The caller fills its targets.
__device__ __forceinline__ Tile make_tile(const WarpArguments& a, unsigned char* shared) {
  Tile tile;
  tile.size = a.size;
  tile.first_row = blockIdx.x % a.tiles * a.tile_rows;
  tile.rows = min(a.tile_rows, a.rows - tile.first_row);
  tile.target = reinterpret_cast<int*>(shared);
  tile.waiting = tile.target + kTargets;
  tile.winner = tile.waiting + kWarpWaiting;
  for (int quad = threadIdx.x; quad < quads_of(tile); quad += kWarpThreads) {
    reinterpret_cast<int4*>(tile.winner)[quad] = {-1, -1, -1, -1};
  }
  return tile;
}

// The values that bytes are converted to, and the fill; `table` is of [channels, kTableRow].
template <class Out>
__device__ __forceinline__ void make_table(const WarpArguments& a, Out* table) {
  static_assert(kTableRow <= kWarpThreads);
  const int x = threadIdx.x;
  if (x >= kTableRow) return;
  for (int c = 0; c < a.channels; ++c) {
    table[c * kTableRow + x] = x < kEmpty
                                   ? Convert<Out, uint8_t>::value(static_cast<uint8_t>(x), a.normalise[c])
                                   : from_float<Out>(a.fill[c]);
  }
}

template <class Coordinate>
__device__ __forceinline__ void offer(const Tile& tile, int target, Coordinate u, Coordinate v, int pixel) {
  const int row = (target >> 16) + cell_of(turned(u, target), tile.size);
  if (static_cast<uint32_t>(row) >= static_cast<uint32_t>(tile.rows)) return;
  atomicMax(&tile.winner[row * tile.size + cell_of(turned(v, target >> 8), tile.size)], pixel);
}

// Byte k of 16; k is known when the code is compiled.
__device__ __forceinline__ uint8_t byte_of(const uint4& x, int k) {
  const uint32_t word = k < 4 ? x.x : k < 8 ? x.y : k < 12 ? x.z : x.w;
  return static_cast<uint8_t>(word >> k % 4 * 8);
}

// I of which those above 31, which are no parts, are 0: kTargets has no place for them.
__device__ __forceinline__ uint32_t known(uint32_t four) {
  const uint32_t high = four & 0xe0e0e0e0u;
  const uint32_t unknown = (high | high << 1 | high << 2) >> 7 & 0x01010101u;
  return four & ~(unknown * 255);
}
__device__ __forceinline__ uint4 known(const uint4& i) {
  if (((i.x | i.y | i.z | i.w) & 0xe0e0e0e0u) == 0) return i;
  return {known(i.x), known(i.y), known(i.z), known(i.w)};
}

__device__ __forceinline__ bool contains(uint32_t parts, uint8_t part) {
  return part < 32 && parts >> part & 1u;
}

// Whether one of several I, a byte each, may be a part of the tile: for parts first..last, and for some I
// that are none. Four at a time: x + (128 - first) has its highest bit set from `first` on, x + (127 - last)
// after `last`.
struct PartRange {
  uint32_t from_first, after_last;

  __device__ __forceinline__ explicit PartRange(uint32_t parts) {
    const uint32_t first = __ffs(static_cast<int>(parts)) - 1, last = 31 - __clz(static_cast<int>(parts));
    from_first = (128 - first) * 0x01010101u, after_last = (127 - last) * 0x01010101u;
  }
  // The highest bit of each byte; the others are worthless.
  __device__ __forceinline__ uint32_t in(uint32_t four) const {
    const uint32_t x = four & 0x7f7f7f7fu;
    return (x + from_first) ^ (x + after_last);
  }
  __device__ __forceinline__ bool meets(const uint4& i) const {
    return (in(i.x) | in(i.y) | in(i.z) | in(i.w)) & 0x80808080u;
  }
};

// A run of 16 pixels of [3, H, W] planes and of [H, W, 3]. Bit k of `shown`: whether pixel k is looked at.
struct PlaneRuns {
  const uint4* i_plane;
  int64_t stride;  // from plane to plane, in runs

  __device__ __forceinline__ uint32_t shown(int) const { return 0xffff; }
  __device__ __forceinline__ uint4 i(int run) const { return __ldg(i_plane + run); }
  __device__ __forceinline__ uint4 u(int run) const { return __ldg(i_plane + stride + run); }
  __device__ __forceinline__ uint4 v(int run) const { return __ldg(i_plane + 2 * stride + run); }
};
struct InterleavedRuns {
  const uint4* pixels;

  __device__ __forceinline__ uint32_t shown(int) const { return 0xffff; }
  // Every third byte of 48: the first four are those of numbers `a` and then `b`.
  __device__ __forceinline__ uint4 every_third(int run, uint32_t a, uint32_t b) const {
    const uint4 x = __ldg(pixels + 3 * run), y = __ldg(pixels + 3 * run + 1), z = __ldg(pixels + 3 * run + 2);
    const auto four = [a, b](uint32_t first, uint32_t second, uint32_t third) {
      return __byte_perm(__byte_perm(first, second, a), third, b);
    };
    return {four(x.x, x.y, x.z), four(x.w, y.x, y.y), four(y.z, y.w, z.x), four(z.y, z.z, z.w)};
  }
  __device__ __forceinline__ uint4 i(int run) const { return every_third(run, 0x0630, 0x5210); }
  __device__ __forceinline__ uint4 u(int run) const { return every_third(run, 0x0741, 0x6210); }
  __device__ __forceinline__ uint4 v(int run) const { return every_third(run, 0x0052, 0x7410); }
};

// The runs [first, end). One that may show a part of this tile waits until a warp has one for each lane: few
// do, and the warp takes as long for one as for 32. The next load is issued before the last is used, and U
// and V are read only for those that waited. `offer_run` offers the pixels of one.
template <class Runs, class OfferRun>
__device__ __forceinline__ void scan_runs(const Tile& tile, uint32_t parts, const Runs& runs, int first,
                                          int end, OfferRun offer_run) {
  const PartRange range(parts);
  Waiting waiting(tile.waiting);
  int run = first + threadIdx.x;
  const int warp_end = end + threadIdx.x % 32;  // so that all lanes leave together
  uint4 next = {};
  if (run < end && runs.shown(run)) next = runs.i(run);
  for (bool more = true; more; run += kWarpThreads) {
    more = run < warp_end;
    const uint4 i = next;
    next = {};
    const int after = run + kWarpThreads;
    if (after < end && runs.shown(after)) next = runs.i(after);
    const bool mine = range.meets(i);
    waiting.put(__ballot_sync(0xffffffffu, mine), mine, run);
    if (more && !waiting.is_full()) continue;
    const int own = waiting.take();
    if (own >= 0) offer_run(own);
  }
}

// Offers a run's pixels, `i` being their I: pixel k as number first + k * step.
template <class Runs>
__device__ __forceinline__ void offer_pixels(const Tile& tile, const Runs& runs, int run, const uint4& i,
                                             int first, int step) {
  const uint4 u = runs.u(run), v = runs.v(run);
#pragma unroll
  for (int k = 0; k < 16; ++k) {
    offer(tile, tile.target[byte_of(i, k)], byte_of(u, k), byte_of(v, k), first + k * step);
  }
}

template <class Runs>
__device__ __forceinline__ void scan_image(const WarpArguments& a, const Tile& tile, uint32_t parts,
                                           const Runs& runs) {
  scan_runs(tile, parts, runs, 0, a.height * a.width / 16,
            [&](int run) { offer_pixels(tile, runs, run, known(runs.i(run)), run * 16, 1); });
}

// Pixels from `first` on, one a thread, at any strides.
template <class Coordinate>
__device__ __forceinline__ void scan_strided(const WarpArguments& a, const Tile& tile, const Coordinate* iuv,
                                             int first) {
  const int pixels = a.height * a.width;
  for (int pixel = first + threadIdx.x; pixel < pixels; pixel += kWarpThreads) {
    const Coordinate* at = iuv + pixel / a.width * a.iuv_stride[2] + pixel % a.width * a.iuv_stride[3];
    const Coordinate i = at[0];
    if (i == Coordinate(0)) continue;
    const Coordinate u = at[a.iuv_stride[1]], v = at[2 * a.iuv_stride[1]];
    offer(tile, tile.target[part_of(i, u, v)], u, v, pixel);
  }
}

__device__ __forceinline__ void scan(const WarpArguments& a, const Tile& tile, int image) {
  const uint8_t* bytes = static_cast<const uint8_t*>(a.iuv) + image * a.iuv_stride[0];
  // One bit for each part with a row in this tile, the same in every thread.
  const uint32_t parts = __ballot_sync(0xffffffffu, tile.target[threadIdx.x % kTargets] != kElsewhere);
  switch (a.scan) {
    case Scan::planes:
      scan_image(a, tile, parts, PlaneRuns{reinterpret_cast<const uint4*>(bytes), a.iuv_stride[1] / 16});
      break;
    case Scan::interleaved:
      scan_image(a, tile, parts, InterleavedRuns{reinterpret_cast<const uint4*>(bytes)});
      break;
    case Scan::strided: return scan_strided(a, tile, bytes, 0);
    case Scan::strided_float:
      return scan_strided(a, tile, static_cast<const float*>(a.iuv) + image * a.iuv_stride[0], 0);
  }
  scan_strided(a, tile, bytes, a.height * a.width / 16 * 16);  // what 16 at a time leave over
}

template <class In, class Out>
__global__ void __launch_bounds__(kWarpThreads, 2) warp_kernel(const __grid_constant__ WarpArguments a) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  const int image = blockIdx.x / a.tiles;
  const Tile tile = make_tile(a, shared_bytes);
  Out* table = reinterpret_cast<Out*>(tile.winner + 4 * quads_of(tile));
  if (threadIdx.x < kTargets) {
    const int part = threadIdx.x;
    const bool known = part >= 1 && part <= kParts;
    const int row = known ? a.part_image[part] * a.size - tile.first_row : 0;
    const bool here = known && row < tile.rows && row + a.size > 0;
    tile.target[part] = here ? target_of(row, a.reverse[part], false) : kElsewhere;
  }
  if constexpr (kHasTable<In, Out>) make_table(a, table);
  __syncthreads();

  scan(a, tile, image);
  __syncthreads();

  const Values<In, Out> values{a, static_cast<const In*>(a.image) + image * a.image_stride[0], table};
  Out* out = static_cast<Out*>(a.out) + image * a.out_stride[0];
  switch (a.write) {
    case Write::planes: write_planes(tile, values, out); break;
    case Write::channels_last: write_channels_last(tile, values, out); break;
    case Write::strided: write_strided(tile, values, out); break;
  }
  if (a.source) write_source(a, tile, image);
}

struct GradientArguments {
  int channels, pixels, size, parts;
  int tile_pixels;  // pixels a block owns
  int tiles;        // blocks an image; block index = image * tiles + tile
  bool vectors;     // grad_image can be written 16 bytes at a time
  const void* grad;
  int64_t grad_stride[5];
  const int32_t* source;
  void* grad_image;
  int64_t image_stride;  // from image to image; the channels' planes are contiguous
  float std[kChannelsALaunch];
};

// Where the gradient of a cell lies in a channel, in elements; -1 for the cell of a pixel that won none.
__device__ __forceinline__ int64_t gradient_place(const GradientArguments& a, int cell) {
  if (cell < 0) return -1;
  const int row = cell / a.size;
  return row / a.size * a.grad_stride[1] + row % a.size * a.grad_stride[3] + cell % a.size * a.grad_stride[4];
}
// What the pixel receives: that gradient, divided by std; `grad` is where the channel begins.
template <class Grad, class Image>
__device__ __forceinline__ Image gradient_of(const Grad* grad, int64_t place, float std) {
  return from_float<Image>(place < 0 ? 0.f : to_float(load(grad + place)) / std);
}

// Notes the cell that each pixel of the tile won, if it won one.
__device__ __forceinline__ void find_cells(const GradientArguments& a, int image, int first, int pixels,
                                           int* cell_of_pixel) {
  const int cells = a.parts * a.size * a.size;
  const int32_t* source = a.source + int64_t{image} * cells;
  int cell = threadIdx.x;
  if (reinterpret_cast<uint64_t>(source) % 16 == 0) {
    for (int four = threadIdx.x; four < cells / 4; four += kWarpThreads) {
      const int4 x = __ldg(reinterpret_cast<const int4*>(source) + four);
      const int pixel[4] = {x.x - first, x.y - first, x.z - first, x.w - first};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (pixel[k] >= 0 && pixel[k] < pixels) cell_of_pixel[pixel[k]] = four * 4 + k;
      }
    }
    cell += cells / 4 * 4;
  }
  for (; cell < cells; cell += kWarpThreads) {
    const int pixel = source[cell] - first;
    if (pixel >= 0 && pixel < pixels) cell_of_pixel[pixel] = cell;
  }
}

template <class Grad, class Image>
__global__ void __launch_bounds__(kWarpThreads, 2)
    gradient_kernel(const __grid_constant__ GradientArguments a) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  int* const cell_of_pixel = reinterpret_cast<int*>(shared_bytes);
  const int image = blockIdx.x / a.tiles;
  const int first = blockIdx.x % a.tiles * a.tile_pixels;
  const int pixels = min(a.tile_pixels, a.pixels - first);
  for (int pixel = threadIdx.x; pixel < pixels; pixel += kWarpThreads) cell_of_pixel[pixel] = -1;
  __syncthreads();

  find_cells(a, image, first, pixels, cell_of_pixel);
  __syncthreads();

  constexpr int kWidth = Vector<Image>::kWidth;
  const Grad* grad = static_cast<const Grad*>(a.grad) + image * a.grad_stride[0];
  Image* to = static_cast<Image*>(a.grad_image) + image * a.image_stride + first;
  if (a.vectors) {
    for (int pixel = threadIdx.x * kWidth; pixel < pixels; pixel += kWarpThreads * kWidth) {
      int cell[kWidth];
      load_cells(cell_of_pixel + pixel, cell);
      int64_t place[kWidth];
#pragma unroll
      for (int k = 0; k < kWidth; ++k) place[k] = gradient_place(a, cell[k]);
      for (int c = 0; c < a.channels; ++c) {
        Vector<Image> values;
#pragma unroll
        for (int k = 0; k < kWidth; ++k) {
          values.value[k] = gradient_of<Grad, Image>(grad + c * a.grad_stride[2], place[k], a.std[c]);
        }
        *reinterpret_cast<Vector<Image>*>(to + int64_t{c} * a.pixels + pixel) = values;
      }
    }
    return;
  }
  for (int pixel = threadIdx.x; pixel < pixels; pixel += kWarpThreads) {
    const int64_t place = gradient_place(a, cell_of_pixel[pixel]);
    for (int c = 0; c < a.channels; ++c) {
      to[int64_t{c} * a.pixels + pixel] =
          gradient_of<Grad, Image>(grad + c * a.grad_stride[2], place, a.std[c]);
    }
  }
}

}  // namespace dsa
