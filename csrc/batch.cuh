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
//   Shared memory: 264 converted values a channel; blocks that warp: 4 bytes a cell, 128 of the parts'
//   targets and 4 KiB of runs that wait; blocks that make images: 3 bytes a pixel of the resized rows, at
//   most 24 KiB.
//   64 samples of 128x64 to 256x128 and 24 x 3 x 32 x 32 float32: 4 tiles of 6 part images and 8 of 32
//   rows a sample, 31 KiB each.
//   Registers: at most 64, so that two blocks (1,024 threads) share a multiprocessor.
//
// Rejected: both sums for each element by itself, without shared memory. This reads the table of columns
// at places 48 bytes apart from thread to thread, and again for each row that is summed: 850 MB from L1
// on that batch, and 147 MB of stored images, against 43 and 19 MB (counted by tests/simt).
//
// budget batch_kernel: 64 registers (sm_75: 64), 3 wide loads, 3 wide stores, 32 KiB
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

// Bits [first - x, end - x) of 16.
__device__ __forceinline__ uint32_t bits_between(int first, int end, int x) {
  const int low = min(max(first - x, 0), 16), high = min(max(end - x, low), 16);
  return (1u << high) - (1u << low);
}

// I of which pixel k is 0 unless bit k of `shown` is set.
__device__ __forceinline__ uint32_t shown_of(uint32_t four, uint32_t shown) {
  return four & ((shown & 15) * 0x00204081u & 0x01010101u) * 255;
}
__device__ __forceinline__ uint4 shown_of(const uint4& i, uint32_t shown) {
  if (shown == 0xffff) return i;
  return {shown_of(i.x, shown), shown_of(i.y, shown >> 4), shown_of(i.z, shown >> 8),
          shown_of(i.w, shown >> 12)};
}

// A run of 16 pixels of one row, as the view shows it; for widths that are multiples of 16.
struct ViewRuns : InterleavedRuns {
  const View& view;
  int width;

  __device__ __forceinline__ uint32_t shown(int run) const {
    const int y = run * 16 / width, x = run * 16 % width;
    const uint32_t bits = bits_between(view.shown.left, view.shown.right, x);
    if (y < view.erased.top || y >= view.erased.bottom) return bits;
    return bits & ~bits_between(view.erased.left, view.erased.right, x);
  }
};

__device__ __forceinline__ void scan_view(const BatchArguments& a, const Tile& tile, const View& view,
                                          bool flip, uint32_t parts, const uint8_t* iuv) {
  const int width = a.warp.width;
  const ViewRuns runs{{reinterpret_cast<const uint4*>(iuv)}, view, width};
  scan_runs(tile, parts, runs, view.shown.top * width / 16, view.shown.bottom * width / 16, [&](int run) {
    const uint4 i = shown_of(known(runs.i(run)), runs.shown(run));
    const int first = view_order(run * 16, run * 16 % width, width, flip);
    offer_pixels(tile, runs, run, i, first, flip ? -1 : 1);
  });
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
    offer(tile, tile.target[part], __ldg(iuv + pixel * 3 + 1), __ldg(iuv + pixel * 3 + 2),
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
    tile.target[part] = here ? target_of(row, to.reverse_u, to.reverse_v) : kElsewhere;
  }
  __syncthreads();

  // One bit for each part with a row in this tile, the same in every thread.
  const uint32_t parts = __ballot_sync(0xffffffffu, tile.target[threadIdx.x % kTargets] != kElsewhere);
  const uint8_t* iuv = a.iuv + seen.index * a.iuv_stride;
  if (w.scan == Scan::interleaved) {
    scan_view(a, tile, view, flip, parts, iuv);
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
  return kColours * kTableRow * sizeof(Out);
}

template <class Out>
__global__ void __launch_bounds__(kWarpThreads, 2) batch_kernel(const __grid_constant__ BatchArguments a) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  Out* table = reinterpret_cast<Out*>(shared_bytes);
  make_table(a.warp, table);
  unsigned char* const rest = shared_bytes + batch_table_bytes<Out>();
  const int block = static_cast<int>(blockIdx.x) - a.dsap_blocks;
  block < 0 ? warp_tile(a, rest, table) : image_tile(a, block, rest, table);  // they wait for the table
}

}  // namespace dsa
