// The CUDA kernel of batch assembly; batch.cu launches it. It needs nothing but these headers, so NVRTC
// compiles it at run time as well.
//
// batch_kernel: 512 threads; two kinds of blocks in one grid. The first ones, which take longest, warp:
// a block owns a run of rows of the part images of one sample, as warp_kernel's do, and goes through the
// same phases over the stored pixels that the sample's view shows. The others make images: a block owns
// rows of one sample's image (picture.h). It resizes the stored rows that these need along x, as bytes in
// shared memory; after a barrier each thread sums the resized rows along y, for 16 bytes of the image at
// once.
//   Bytes: both outputs once, 16 at a time. IUV: where the view shows a pixel, 48 bytes for 16 pixels,
//   once for each tile of its sample, the first time from DRAM and then from L2. The stored image:
//   the warp's winners; and for the image the pixels that its view needs, again from L1 for each tap.
//   Shared memory: 256 converted values a channel; blocks that warp: 4 bytes a cell and 128 of part
//   table; blocks that make images: 3 bytes a pixel of the resized rows, at most 24 KiB.
//   64 samples of 128x64 to 256x128 and 24 x 3 x 32 x 32 float32: 4 tiles of 6 part images and 8 of 32
//   rows a sample, 27 KiB each.
//   Registers: at most 64, so that two blocks (1,024 threads) share a multiprocessor.
//
// Rejected: both sums for each element by itself, without shared memory. This reads the table of columns
// at places 48 bytes apart from thread to thread, and again for each row that is summed: 850 MB from L1
// on that batch, and 147 MB of stored images, against 43 and 19 MB (counted by tests/simt).
//
// budget batch_kernel: 64 registers (sm_75: 64), 3 wide loads, 3 wide stores, 28 KiB
#pragma once

#include "batch.h"
#include "picture.h"
#include "warp.cuh"

namespace dsa {

// ---- the DSAP-images ----

__device__ __forceinline__ bool inside(const View::Box& box, int y, int x) {
  return y >= box.top && y < box.bottom && x >= box.left && x < box.right;
}
__device__ __forceinline__ bool shows(const View& view, int y, int x) {
  return inside(view.shown, y, x) && !inside(view.erased, y, x);
}

// A pixel's place in the view's raster order; its own inverse.
__device__ __forceinline__ int view_order(int pixel, int x, int width, bool flip) {
  return flip ? pixel - 2 * x + width - 1 : pixel;
}

// A part's entry in the table is four times its first row in this tile, plus these.
constexpr int kTurnU = 1, kTurnV = 2;

__device__ __forceinline__ void offer_turned(const Tile& tile, int target, uint8_t u, uint8_t v, int order) {
  const int row = (target >> 2) + cell_of(target & kTurnU ? reversed(u) : u, tile.size);
  if (row < 0 || row >= tile.rows) return;
  const int column = cell_of(target & kTurnV ? reversed(v) : v, tile.size);
  atomicMax(&tile.winner[row * tile.size + column], order);
}

// Bits [first - x, end - x) of 16.
__device__ __forceinline__ uint32_t bits_between(int first, int end, int x) {
  const int low = min(max(first - x, 0), 16), high = min(max(end - x, low), 16);
  return (1u << high) - (1u << low);
}

// 16 pixels a thread, all of one row; for widths that are multiples of 16.
__device__ __forceinline__ void scan_vectors(const BatchArguments& a, const Tile& tile, const View& view,
                                             bool flip, uint32_t parts, const uint8_t* iuv) {
  const uint4* pixels = reinterpret_cast<const uint4*>(iuv);
  const int width = a.warp.width, end = view.shown.bottom * width / 16;
  for (int vector = view.shown.top * width / 16 + threadIdx.x; vector < end; vector += kWarpThreads) {
    const int y = vector * 16 / width, x = vector * 16 % width;
    uint32_t shown = bits_between(view.shown.left, view.shown.right, x);
    if (y >= view.erased.top && y < view.erased.bottom) {
      shown &= ~bits_between(view.erased.left, view.erased.right, x);
    }
    if (!shown) continue;
    const uint4 i = __ldg(pixels + vector * 3);
    const uint4 j = __ldg(pixels + vector * 3 + 1);
    const uint4 l = __ldg(pixels + vector * 3 + 2);
    const int first = view_order(vector * 16, x, width, flip), step = flip ? -1 : 1;
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      const uint8_t part = byte_of(i, j, l, 3 * k);
      if ((shown >> k & 1u) && contains(parts, part)) {
        offer_turned(tile, tile.target[part], byte_of(i, j, l, 3 * k + 1), byte_of(i, j, l, 3 * k + 2),
                     first + k * step);
      }
    }
  }
}

// One pixel a thread, at any width.
__device__ __forceinline__ void scan_pixels(const BatchArguments& a, const Tile& tile, const View& view,
                                            bool flip, uint32_t parts, const uint8_t* iuv) {
  const int width = a.warp.width, end = view.shown.bottom * width;
  for (int pixel = view.shown.top * width + threadIdx.x; pixel < end; pixel += kWarpThreads) {
    const int x = pixel % width;
    if (!shows(view, pixel / width, x)) continue;
    const uint8_t part = __ldg(iuv + pixel * 3);
    if (!contains(parts, part)) continue;
    offer_turned(tile, tile.target[part], __ldg(iuv + pixel * 3 + 1), __ldg(iuv + pixel * 3 + 2),
                 view_order(pixel, x, width, flip));
  }
}

// Converts places in the view's raster order to pixels.
__device__ __forceinline__ void unflip_winners(const Tile& tile, int width) {
  for (int cell = threadIdx.x; cell < tile.rows * tile.size; cell += kWarpThreads) {
    const int order = tile.winner[cell];
    if (order >= 0) tile.winner[cell] = view_order(order, order % width, width, true);
  }
}

template <class Out>
__device__ __forceinline__ void warp_tile(const BatchArguments& a, unsigned char* shared, const Out* table) {
  const WarpArguments& w = a.warp;
  const int sample = blockIdx.x / w.tiles;
  const Tile tile = make_tile(w, shared);
  const Sample seen = load_sample(a, sample);
  Augmentation drawn = seen.drawn;
  if (!a.augmented_dsap) drawn = {0, 0, 0, 0, 0, 0, 0, seen.drawn.keep};
  const bool flip = drawn.flip != 0;
  View view = stored_view(drawn, w.height, w.width, a.height, a.width);
  if (!seen.known) view.shown = {0, 0, 0, 0};
  if (threadIdx.x < kTargets) {
    const int part = threadIdx.x;
    const bool kept = part >= 1 && part <= kParts && (drawn.keep >> part & 1);
    const PartTarget to = a.target[flip][kept ? part : 0];
    const int row = to.image * w.size - tile.first_row;
    const bool here = kept && row < tile.rows && row + w.size > 0;
    const int turns = (to.reverse_u ? kTurnU : 0) + (to.reverse_v ? kTurnV : 0);
    tile.target[part] = here ? row * 4 + turns : kElsewhere;
  }
  __syncthreads();

  // One bit for each part with a row in this tile, the same in every thread.
  const uint32_t parts = __ballot_sync(0xffffffffu, tile.target[threadIdx.x % kTargets] != kElsewhere);
  const uint8_t* iuv = a.iuv + seen.index * a.iuv_stride;
  if (w.scan == Scan::interleaved) {
    scan_vectors(a, tile, view, flip, parts, iuv);
  } else {
    scan_pixels(a, tile, view, flip, parts, iuv);
  }
  __syncthreads();

  if (flip) {
    unflip_winners(tile, w.width);
    __syncthreads();
  }
  const Values<uint8_t, Out> values{w, a.images + seen.index * a.images_stride, table};
  Out* out = static_cast<Out*>(w.out) + sample * w.out_stride[0];
  switch (w.write) {
    case Write::planes: write_planes(tile, values, out); break;
    case Write::channels_last: write_channels_last(tile, values, out); break;
    case Write::strided: write_strided(tile, values, out); break;
  }
}

// ---- the image ----

template <class Out>
__device__ __forceinline__ void image_tile(const BatchArguments& a, int block, uint8_t* wide,
                                           const Out* table) {
  const int sample = block / a.image_tiles, first = block % a.image_tiles * a.image_rows;
  const int rows = min(a.image_rows, a.height - first);
  const Sample seen = load_sample(a, sample);
  Picture<Out> picture{a, seen, a.images + seen.index * a.images_stride, table, wide, 0};
  widen(a, picture, first, first + rows);
  __syncthreads();

  Out* out = static_cast<Out*>(a.image) + sample * a.image_stride[0];
  constexpr int kWidth = Vector<Out>::kWidth;
  switch (a.image_write) {
    case Write::planes:
      for (Steps steps(a.width / kWidth); steps.line < rows; steps.next()) {
        const int y = first + steps.line, x = steps.item * kWidth;
        picture.write_columns(y, x, out + y * a.image_stride[2] + x);
      }
      break;
    case Write::channels_last:
      for (Steps steps(kColours * a.width / kWidth); steps.line < rows; steps.next()) {
        const int y = first + steps.line, at = steps.item * kWidth;
        picture.write_elements(y, at / kColours, at % kColours, out + y * a.image_stride[2] + at);
      }
      break;
    case Write::strided:
      for (Steps steps(kColours * a.width); steps.line < rows; steps.next()) {
        const int y = first + steps.line, x = steps.item / kColours, c = steps.item % kColours;
        out[c * a.image_stride[1] + y * a.image_stride[2] + x * a.image_stride[3]] =
            picture.at(y, x, c, a.wide);
      }
      break;
  }
}

template <class Out>
DSA_HOST_DEVICE constexpr int batch_table_bytes() {
  return kColours * 256 * sizeof(Out);
}

template <class Out>
__global__ void __launch_bounds__(kWarpThreads, 2) batch_kernel(const __grid_constant__ BatchArguments a) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  Out* table = reinterpret_cast<Out*>(shared_bytes);
  for (int i = threadIdx.x; i < kColours * 256; i += kWarpThreads) {
    table[i] = Convert<Out, uint8_t>::value(static_cast<uint8_t>(i % 256), a.warp.normalise[i / 256]);
  }
  unsigned char* const rest = shared_bytes + batch_table_bytes<Out>();
  const int block = static_cast<int>(blockIdx.x) - a.dsap_blocks;
  block < 0 ? warp_tile(a, rest, table) : image_tile(a, block, rest, table);  // they wait for the table
}

}  // namespace dsa
