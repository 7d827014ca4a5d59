// Bilinear resizing as Pillow's Image.resize(BILINEAR) computes it, bit for bit: a triangle as wide as one
// pixel of the coarser grid, weights in fixed point with 22 fractional bits, along x first and along y
// next, each of the two sums rounded to uint8, halves up. (Pillow 13 goes along y first where the height
// shrinks much more than the width; that differs by the rounding between the two. Here the order is fixed.)
#pragma once

#include "parts.h"

#if !defined(__CUDACC_RTC__)
#include <vector>
#endif

namespace dsa {

constexpr int kWeightBits = 22;

#if !defined(__CUDACC_RTC__)  // NVRTC takes no host functions
// How many source pixels each output pixel is a weighted sum of, along one dimension.
int resize_taps(int in, int out);

// The table of one dimension, int32 [out, 1 + taps]: of each output pixel the first source pixel and the
// weights of the `taps` from there on, all of them inside the image; together about 2^22.
void resize_table(int in, int out, int taps, int32_t* table);

// If the image is enlarged by a power of two, or not at all, weights have 8 fractional bits at most and
// sums fit into 16 bits: vector instructions then do more of them at once.
constexpr int kNarrowBits = 8;
bool resize_is_narrow(int out, int taps, const int32_t* table);

// 16 bytes of an output row of [out, 3], from 16 bytes of the input row: out[i] is the rounded sum of
// in[first[i]] * a[i] and in[second[i]] * b[i].
struct ResizeRun {
  int32_t out, in;  // where the bytes begin
  uint8_t first[16], second[16];
  uint16_t a[16], b[16];
};

// The runs of a whole row, from right to left if flipped; empty if the weights are not narrow, or not two,
// or lie further apart than a run reaches. Runs overlap if 16 does not divide the row's bytes.
std::vector<ResizeRun> resize_runs(int in, int out, int taps, const int32_t* table, bool flip);
#endif

// The rounding of a weighted sum. No clipping: weights are not negative.
DSA_HOST_DEVICE uint8_t resize_round(int sum) {
  return static_cast<uint8_t>((sum + (1 << (kWeightBits - 1))) >> kWeightBits);
}

}  // namespace dsa
