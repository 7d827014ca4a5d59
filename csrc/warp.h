// The warp: from images and their IUV maps to part images (DSAP-images, section 3.1 of the paper).
//
// The rules, bit for bit on every backend:
//  - A pixel of part I at (u, v) goes to part image I - 1, row floor(u * S), column floor(v * S).
//    I = 0 and I > 24 are background, and in a floating map a pixel with a NaN in any of the three.
//  - In a floating map I is whole, and u and v of the foreground lie in [0, 1], or outside by no more
//    than kOvershoot of iuv.h and are clamped. u and v of the background may be anything. Other maps,
//    such as one whose U and V are still 0..255, are invalid: the CPU backend reports them, the CUDA
//    backend does not look, and both write the result of clamping u and v and truncating I.
//  - If several pixels hit one cell, the last one in raster order (row-major) wins.
//  - A cell that no pixel hits holds the fill value of its channel.
//  - With 13 or 8 parts the part index goes through the table of parts.h first; `mirror` then
//    reverses U of the second member of a pair if the two charts run in opposite directions (hands,
//    feet, head).
#pragma once

#include <cstdint>

#include "number.h"

namespace dsa {

// Everything one call needs. Strides count elements; any are legal.
struct WarpImages {
  int batch, channels, height, width;
  int size;   // S, 1..256
  int parts;  // 24, 13 or 8
  bool mirror;

  const void* image;  // [batch, channels, height, width]
  Type image_type;
  int64_t image_stride[4];

  const void* iuv;  // [batch, 3, height, width] = I, U, V; uint8 or float32
  bool iuv_is_float;
  int64_t iuv_stride[4];

  void* out;      // [batch, parts, channels, size, size]
  Type out_type;  // uint8 needs a uint8 image
  int64_t out_stride[5];

  int32_t* source;  // [batch, parts, size, size], contiguous: raster index of the winning pixel,
                    // -1 where empty; or null

  const float* fill;           // [channels], in units of the output
  const Normalise* normalise;  // [channels]
};

// The gradient with respect to the image: each cell's goes to the pixel that won it. A pixel wins
// at most one cell, so these are plain stores.
struct WarpGradient {
  int batch, channels, height, width, size, parts;
  const void* grad;  // [batch, parts, channels, size, size]
  Type grad_type;
  int64_t grad_stride[5];
  const int32_t* source;  // [batch, parts, size, size], contiguous
  void* grad_image;       // [batch, channels, height, width], contiguous, all of it written
  Type image_type;
  const Normalise* normalise;  // [channels]: the gradient is divided by std
};

// Unit of work of the CPU backend: image `batch_index`, restricted to the part images
// [first_part, last_part). Units touch disjoint output, so they run on any thread in any order.
// Returns false if the image's map breaks the rule of floating maps above, in any part; the output is written
// then, too, but worthless.
[[nodiscard]] bool warp_cpu(const WarpImages& call, int batch_index, int first_part, int last_part);
void warp_gradient_cpu(const WarpGradient& call, int batch_index);

// `stream` is a cudaStream_t. The return value is a cudaError_t (0 is success), whatever the map holds.
int warp_cuda(const WarpImages& call, void* stream);
int warp_gradient_cuda(const WarpGradient& call, void* stream);

}  // namespace dsa
