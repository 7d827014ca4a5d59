// The images of a batch, as the image blocks of batch_kernel make them: device code. Its arguments are here
// too.
#pragma once

#include "batch.h"
#include "resize.h"
#include "tile_write.h"
#include "warp_tile.h"

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

// One sample's image as its view shows it.
template <class Out>
struct Picture {
  const BatchArguments& a;
  Sample sample;
  const uint8_t* stored;
  const Out* table;  // [3, kTableRow]
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
    return table[c * kTableRow + (shown ? resized(from_y, from_x, c, is_wide) : kEmpty)];
  }

  // Where the view's row y and pixels of it are found in `wide`.
  __device__ __forceinline__ bool shows_row(int y) const {
    const int from_y = y + sample.drawn.shift_y;
    return sample.known && from_y >= 0 && from_y < a.height;
  }
  // The pixel at column x: whether the view shows it, and its place in a row of `wide`. For a column that is
  // not shown this is the border's, which can be read and is not used.
  __device__ __forceinline__ bool find_column(bool row_shown, bool row_erased, int x, int& place) const {
    const Augmentation& d = sample.drawn;
    const int from_x = (d.flip ? a.width - 1 - x : x) + d.shift_x;
    const bool erased = row_erased & (x >= d.left) & (x < d.right);
    place = min(max(from_x, 0), a.width - 1) * kColours;
    return row_shown & !erased & (static_cast<uint32_t>(from_x) < static_cast<uint32_t>(a.width));
  }
  __device__ __forceinline__ bool erases_row(int y) const {
    return y >= sample.drawn.top && y < sample.drawn.bottom;
  }

  // Sums kWidth bytes of each row of `wide` that row y of the view is made of; the rows must be there. The
  // weights, which all bytes share, are loaded once.
  template <int kWidth>
  __device__ __forceinline__ void sum_rows(int y, const int (&place)[kWidth], int c,
                                           int (&sum)[kWidth]) const {
    const int32_t* weight = row(y + sample.drawn.shift_y);
    const int stride = a.width * kColours;
    const uint8_t* from = wide + (__ldg(weight) - first_wide) * stride + c;
    for (int j = 1; j <= a.row_taps; ++j, from += stride) {
      const int factor = __ldg(weight + j);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] += factor * from[place[k]];
    }
  }

  // kWidth columns of row y from x on, in all three planes; `to` is the first one's.
  __device__ __forceinline__ void write_columns(int y, int x, Out* to) const {
    constexpr int kWidth = Vector<Out>::kWidth;
    const bool row_shown = shows_row(y), row_erased = erases_row(y);
    int place[kWidth];
    bool shown[kWidth];
#pragma unroll
    for (int k = 0; k < kWidth; ++k) shown[k] = find_column(row_shown, row_erased, x + k, place[k]);
#pragma unroll
    for (int c = 0; c < kColours; ++c) {
      int sum[kWidth];
#pragma unroll
      for (int k = 0; k < kWidth; ++k) sum[k] = 1 << (kWeightBits - 1);
      if (row_shown) sum_rows(y, place, c, sum);
      Vector<Out> values;
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        values.value[k] = table[c * kTableRow + (shown[k] ? sum[k] >> kWeightBits : kEmpty)];
      }
      *reinterpret_cast<Vector<Out>*>(to + c * a.image_stride[1]) = values;
    }
  }

  // kWidth elements of row y as [W, 3], from channel c of column x on: of few pixels, each tested once.
  __device__ __forceinline__ void write_elements(int y, int x, int c, Out* to) const {
    constexpr int kWidth = Vector<Out>::kWidth, kPixels = (kWidth + 4) / 3;
    const bool row_shown = shows_row(y), row_erased = erases_row(y);
    int pixel[kPixels], place[kWidth], sum[kWidth];
    bool pixel_shown[kPixels], shown[kWidth];
#pragma unroll
    for (int p = 0; p < kPixels; ++p) pixel_shown[p] = find_column(row_shown, row_erased, x + p, pixel[p]);
    const int channel[3] = {c, c == 2 ? 0 : c + 1, c == 0 ? 2 : c - 1};  // of every third element
    const bool later[3] = {false, c == 2, c >= 1};  // whether an element is of the pixel after
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const int p = k / 3;
      place[k] = (later[k % 3] ? pixel[p + 1] : pixel[p]) + channel[k % 3];
      shown[k] = later[k % 3] ? pixel_shown[p + 1] : pixel_shown[p];
      sum[k] = 1 << (kWeightBits - 1);
    }
    if (row_shown) sum_rows(y, place, 0, sum);
    const Out* row[3];
#pragma unroll
    for (int k = 0; k < 3; ++k) row[k] = table + channel[k] * kTableRow;
    Vector<Out> values;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      values.value[k] = row[k % 3][shown[k] ? sum[k] >> kWeightBits : kEmpty];
    }
    *reinterpret_cast<Vector<Out>*>(to) = values;
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
  for (Steps steps(a.width); steps.line < rows; steps.next()) {
    const int row = steps.line, x = steps.item, seen = x - d.shift_x;
    const int column = d.flip ? a.width - 1 - seen : seen;  // of the view
    if (column >= d.left && column < d.right && row >= gap && row < gap_end) continue;
    const int32_t* weight = a.columns + x * (1 + a.column_taps);
    const int pixel = (picture.first_wide + row) * a.warp.width + __ldg(weight);
    const uint8_t* from_pixel = picture.stored + pixel * kColours;
    int sum[kColours] = {1 << (kWeightBits - 1), 1 << (kWeightBits - 1), 1 << (kWeightBits - 1)};
    for (int i = 1; i <= a.column_taps; ++i, from_pixel += kColours) {
      const int factor = __ldg(weight + i);
#pragma unroll
      for (int c = 0; c < kColours; ++c) sum[c] += factor * __ldg(from_pixel + c);
    }
    uint8_t* to = picture.wide + (row * a.width + x) * kColours;
#pragma unroll
    for (int c = 0; c < kColours; ++c) to[c] = static_cast<uint8_t>(sum[c] >> kWeightBits);
  }
}

}  // namespace dsa
