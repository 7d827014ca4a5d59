// Batch assembly: from stored pixels to the network's input, in one pass. The image of each sample is
// gathered, resized, augmented and normalised, and the DSAP-images (section 3.1 of the paper) are warped
// from its stored pixels.
//
// The rules, bit for bit on every backend:
//  - Image: resized (resize.h), then seen through the view (augment.h): the view begins at the shift,
//    a flip reverses its columns, and what lies outside of the image or in the erased box holds the fill.
//  - DSAP: the warp's rules (warp.h) on the stored pixels, not the resized ones. A stored pixel is in
//    the view, or erased, if the pixel of the resized image that its centre falls into is. Pixels
//    outside of the view, erased ones and those of parts that are not kept are background. A flip
//    reverses the raster order within a row, swaps each part with its mirror twin and reverses its
//    chart if the twin's runs the other way (parts.h). Without `augmented_dsap` the view is the whole
//    image, unflipped and not erased.
//  - Values become (x / 255 - mean) / std as in number.h. Empty cells hold the fill.
//  - A sample whose index is outside of the store is all fill.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <vector>
#endif

#include "augment.h"
#include "number.h"
#include "parts.h"
#include "resize.h"

namespace dsa {

constexpr int kColours = 3;

// Everything one call needs. Strides count elements.
struct BatchCall {
  int64_t images_stored;
  int stored_height, stored_width;
  const uint8_t* images;  // [images_stored, stored_height, stored_width, 3], each image contiguous
  int64_t images_stride;  // from one image to the next
  const uint8_t* iuv;     // likewise, I, U, V; null if dsap is null
  int64_t iuv_stride;

  int batch;
  const int64_t* index;       // [batch]
  const Augmentation* drawn;  // [batch], or null: no augmentation
  bool augmented_dsap;

  int height, width;          // of the network's input
  int row_taps, column_taps;  // resize_taps(stored_height, height), ...
  const int32_t* rows;        // [height, 1 + row_taps] of resize_table
  const int32_t* columns;     // [width, 1 + column_taps]

  int size;     // S, 1..256
  int parts;    // 24, 13 or 8
  bool mirror;  // as in warp.h

  Type type;    // float16, bfloat16 or float32, of both outputs
  void* image;  // [batch, 3, height, width]
  int64_t image_stride[4];
  void* dsap;  // [batch, parts, 3, size, size], or null
  int64_t dsap_stride[5];

  float fill[kColours];  // in units of the output
  Normalise normalise[kColours];
};

// The stored pixels that a view shows: rows [top, bottom) and columns [left, right) without the erased
// box.
struct View {
  struct Box {
    int top, left, bottom, right;
  };
  Box shown, erased;
};

// The first of `in` stored rows (or columns) whose centre, in an image resized to `out`, lies in row
// `at` or behind: the smallest y with (2 y + 1) * out >= 2 * in * at.
DSA_HOST_DEVICE int first_stored(int at, int in, int out) {
  const int64_t y = (int64_t{2} * in * at + out - 1) / (2 * out);
  return at <= 0 ? 0 : y < in ? static_cast<int>(y) : in;
}

DSA_HOST_DEVICE View stored_view(const Augmentation& a, int stored_height, int stored_width, int height,
                                 int width) {
  const auto box = [&](int top, int left, int bottom, int right) {
    return View::Box{first_stored(a.shift_y + top, stored_height, height),
                     first_stored(a.shift_x + left, stored_width, width),
                     first_stored(a.shift_y + bottom, stored_height, height),
                     first_stored(a.shift_x + right, stored_width, width)};
  };
  const bool flip = a.flip != 0;
  return {box(0, 0, height, width),
          box(a.top, flip ? width - a.right : a.left, a.bottom, flip ? width - a.left : a.right)};
}

#if !defined(__CUDACC_RTC__)  // NVRTC takes no host functions
// What the samples of a call share, made once and read by any thread. Other calls that differ only in
// samples and memory can use it, too.
struct BatchTables {
  explicit BatchTables(const BatchCall& call);

  std::vector<ResizeRun> columns[2];  // [flip]: of a row; empty if resizing along x cannot go by runs
  bool narrow_rows;                   // along y sums fit into 16 bits
  std::vector<uint8_t> value;         // [3, 256] of the call's type: what each stored value becomes
  int64_t row[256], column[256];      // offset in the part image, in elements, by U and by V
  int64_t part[2][kParts + 1];        // [flip][I]: offset of the part image; -1 for background
  uint8_t turn_u[2][kParts + 1];      // [flip][I]: 255 if the chart is read from its other end
  uint8_t turn_v[2][kParts + 1];
};

// Unit of work of the CPU backend: one sample. Units touch disjoint output.
void assemble_cpu(const BatchCall& call, const BatchTables& tables, int sample);

// `stream` is a cudaStream_t; every pointer but fill and normalise is to device memory. The return
// value is a cudaError_t (0 is success).
int assemble_cuda(const BatchCall& call, void* stream);
#endif

}  // namespace dsa
