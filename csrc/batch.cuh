// The CUDA kernel of batch assembly; batch.cu launches it. It needs nothing but these headers, so NVRTC
// compiles it at run time as well.
//
// batch_kernel: 512 threads; two kinds of blocks in one grid. The first ones, which take longest, warp:
// a block owns a run of rows of the part images of one sample, as warp_kernel's do, and goes through the
// same phases over the stored pixels that the sample's view shows. The others make images: a block owns
// rows of one sample's image. It resizes the stored rows that these need along x, as bytes in shared
// memory; after a barrier each thread sums the resized rows along y, 16 bytes of the image at a time.
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
#include "resize.h"
#include "warp.cuh"

namespace dsa {

struct BatchArguments {
  int64_t images_stored, images_stride, iuv_stride;
  const uint8_t* images;      // [images_stored, h, w, 3], each image contiguous
  const uint8_t* iuv;         // likewise
  const int64_t* index;       // [batch]
  const Augmentation* drawn;  // [batch], or null: no augmentation
  bool augmented_dsap;

  int height, width;  // of the resized image
  int row_taps, column_taps;
  const int32_t* rows;     // [height, 1 + row_taps]
  const int32_t* columns;  // [width, 1 + column_taps]
  void* image;
  int64_t image_stride[4];
  Write image_write;
  int image_rows;   // of an image that a block owns
  int image_tiles;  // blocks an image
  bool wide;        // a block's stored rows, resized along x, fit into shared memory; if not, strided

  int dsap_blocks;                   // the first ones of the grid: batch * warp.tiles
  PartTarget target[2][kParts + 1];  // [flip][I]
  WarpArguments warp;  // of the part images: height and width are the stored ones, its pointers but `out`
                       // are not used, image_stride is {-, 1, 3 * w, 3}
};

// Which stored image a sample is, and how it is seen; an index outside of the store shows nothing.
struct Sample {
  int64_t index;
  bool known;
  Augmentation drawn;
};
__device__ __forceinline__ Sample load_sample(const BatchArguments& a, int sample) {
  Sample result{};
  result.index = __ldg(a.index + sample);
  result.known = result.index >= 0 && result.index < a.images_stored;
  if (!result.known) result.index = 0;
  result.drawn.keep = kKeepAll;
  if (a.drawn) {
    const int* row = reinterpret_cast<const int*>(a.drawn + sample);
    result.drawn = {__ldg(row),     __ldg(row + 1), __ldg(row + 2), __ldg(row + 3),
                    __ldg(row + 4), __ldg(row + 5), __ldg(row + 6), __ldg(row + 7)};
  }
  return result;
}

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

// One sample's image as its view shows it.
template <class Out>
struct Picture {
  const BatchArguments& a;
  Sample sample;
  const uint8_t* stored;
  const Out* table;  // [3, 256]
  uint8_t* wide;     // [rows, width, 3]: stored rows from `first_wide` on, resized along x, if a.wide
  int first_wide;

  __device__ __forceinline__ const int32_t* row(int y) const { return a.rows + y * (1 + a.row_taps); }

  // Channel c of a stored row, resized along x.
  __device__ __forceinline__ uint8_t along_x(int stored_row, int x, int c) const {
    const int32_t* column = a.columns + x * (1 + a.column_taps);
    const uint8_t* from = stored + (stored_row * a.warp.width + __ldg(column)) * kColours + c;
    int sum = 0;
    for (int i = 1; i <= a.column_taps; ++i, from += kColours) sum += __ldg(column + i) * __ldg(from);
    return resize_round(sum);
  }

  // Channel c of the pixel (y, x) of the resized image.
  __device__ __forceinline__ uint8_t resized(int y, int x, int c, bool is_wide) const {
    const int32_t* weight = row(y);
    const int first = __ldg(weight);
    int sum = 0;
    for (int j = 0; j < a.row_taps; ++j) {
      const int at = ((first + j - first_wide) * a.width + x) * kColours + c;
      sum += __ldg(weight + 1 + j) * (is_wide ? wide[at] : along_x(first + j, x, c));
    }
    return resize_round(sum);
  }

  // Channel c of the pixel (y, x) of the view.
  __device__ __forceinline__ Out at(int y, int x, int c, bool is_wide) const {
    const Augmentation& d = sample.drawn;
    const bool erased = y >= d.top && y < d.bottom && x >= d.left && x < d.right;
    const int from_y = y + d.shift_y, from_x = (d.flip ? a.width - 1 - x : x) + d.shift_x;
    const bool shown =
        sample.known && !erased && from_y >= 0 && from_y < a.height && from_x >= 0 && from_x < a.width;
    return shown ? table[c * 256 + resized(from_y, from_x, c, is_wide)] : from_float<Out>(a.warp.fill[c]);
  }
};

// Resizes along x the stored rows that the view's rows [first, end) need.
template <class Out>
__device__ __forceinline__ void widen(const BatchArguments& a, Picture<Out>& picture, int first, int end) {
  const Augmentation& d = picture.sample.drawn;
  const int from = max(first + d.shift_y, 0), last = min(end + d.shift_y, a.height) - 1;
  if (!a.wide || !picture.sample.known || from > last) return;
  picture.first_wide = __ldg(picture.row(from));
  const int rows = __ldg(picture.row(last)) + a.row_taps - picture.first_wide;
  // In erased columns, skip the stored rows that only erased rows need.
  const int top = min(max(d.top + d.shift_y, from), last + 1);
  const int bottom = min(max(d.bottom + d.shift_y, from), last + 1);
  const int gap = top > from ? __ldg(picture.row(top - 1)) + a.row_taps - picture.first_wide : 0;
  const int gap_end = bottom <= last ? __ldg(picture.row(bottom)) - picture.first_wide : rows;
  for (int i = threadIdx.x; i < rows * a.width * kColours; i += kWarpThreads) {
    const int pixel = i / kColours, x = pixel % a.width, row = pixel / a.width, seen = x - d.shift_x;
    const int column = d.flip ? a.width - 1 - seen : seen;  // of the view
    if (column >= d.left && column < d.right && row >= gap && row < gap_end) continue;
    picture.wide[i] = picture.along_x(picture.first_wide + row, x, i % kColours);
  }
}

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
  const bool planes = a.image_write == Write::planes;
  const int width = a.image_write == Write::strided ? 1 : kWidth;
  const int runs = kColours * a.width / width;  // of a row: channel by channel, or along [W, 3]
  for (int i = threadIdx.x; i < rows * runs; i += kWarpThreads) {
    const int y = first + i / runs, element = i % runs * width;
    if (width == 1) {
      const int x = element / kColours, c = element % kColours;
      out[c * a.image_stride[1] + y * a.image_stride[2] + x * a.image_stride[3]] =
          picture.at(y, x, c, a.wide);
      continue;
    }
    int x = planes ? element % a.width : element / kColours;
    int c = planes ? element / a.width : element % kColours;
    Out* to = out + y * a.image_stride[2] + (planes ? c * a.image_stride[1] + x : element);
    Vector<Out> values;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      values.value[k] = picture.at(y, x, c, true);
      if (planes || ++c == kColours) c = planes ? c : 0, ++x;
    }
    *reinterpret_cast<Vector<Out>*>(to) = values;
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
