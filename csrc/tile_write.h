// How a block of warp_kernel or batch_kernel writes its tile of part images: device code.
#pragma once

#include "number.h"
#include "warp_tile.h"

namespace dsa {

// A thread's way through lines of `length` items each, in equal steps, without a division a step.
struct Steps {
  int length, line, item, lines_a_step, items_a_step;
  __device__ __forceinline__ explicit Steps(int length_, int first = threadIdx.x, int step = kWarpThreads)
      : length(length_),
        line(first / length_),
        item(first % length_),
        lines_a_step(step / length_),
        items_a_step(step % length_) {}
  __device__ __forceinline__ void next() {
    line += lines_a_step, item += items_a_step;
    if (item >= length) item -= length, ++line;
  }
};

__device__ __forceinline__ uint8_t load(const uint8_t* from) { return __ldg(from); }
__device__ __forceinline__ float load(const float* from) { return __ldg(from); }
__device__ __forceinline__ Half load(const Half* from) { return {__ldg(&from->bits)}; }
__device__ __forceinline__ BFloat load(const BFloat* from) { return {__ldg(&from->bits)}; }

// Reads an image's pixels and converts them to the output's values.
template <class In, class Out>
struct Values {
  const WarpArguments& a;
  const In* image;
  const Out* table;  // [channels, 256]

  // Where the winner of a cell lies in a channel of the image, in elements; -1 where the cell is empty.
  __device__ __forceinline__ int64_t place(int winner) const {
    if (winner < 0) return -1;
    return a.dense_image ? winner * a.image_stride[3]
                         : winner / a.width * a.image_stride[2] + winner % a.width * a.image_stride[3];
  }
  __device__ __forceinline__ Out at(int64_t place, int channel) const {
    return place < 0 ? fill(channel) : convert(load(image + channel * a.image_stride[1] + place), channel);
  }
  __device__ __forceinline__ Out convert(In x, int channel) const {
    if constexpr (kHasTable<In, Out>) {
      return table[channel * 256 + x];
    } else {
      return Convert<Out, In>::value(x, a.normalise[channel]);
    }
  }
  __device__ __forceinline__ Out fill(int channel) const { return from_float<Out>(a.fill[channel]); }

  // 16 bytes of values, of a channel each; places fit into 32 bits. Eight loads are under way before the
  // first is used; sixteen, for uint8 output, would need more registers than there are.
  template <class Channel>
  __device__ __forceinline__ void store(const int (&place)[Vector<Out>::kWidth], Channel channel,
                                        Out* to) const {
    constexpr int kWidth = Vector<Out>::kWidth, kTogether = kWidth < 8 ? kWidth : 8;
    Vector<Out> values;
#pragma unroll
    for (int first = 0; first < kWidth; first += kTogether) {
      In x[kTogether] = {};
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        if (place[first + k] >= 0) {
          x[k] = load(image + channel(first + k) * a.image_stride[1] + place[first + k]);
        }
      }
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const int c = channel(first + k);
        values.value[first + k] = place[first + k] < 0 ? fill(c) : convert(x[k], c);
      }
    }
    *reinterpret_cast<Vector<Out>*>(to) = values;
  }
};

// kWidth numbers of shared memory in 16-byte loads, without bank conflicts.
template <int kWidth>
__device__ __forceinline__ void load_cells(const int* from, int (&to)[kWidth]) {
#pragma unroll
  for (int k = 0; k < kWidth; k += 4) {
    const int4 four = *reinterpret_cast<const int4*>(from + k);
    to[k] = four.x, to[k + 1] = four.y, to[k + 2] = four.z, to[k + 3] = four.w;
  }
}

// Each channel of a part image is a plane of S * S elements.
template <class In, class Out>
__device__ __forceinline__ void write_planes(const Tile& tile, const Values<In, Out>& values, Out* out) {
  constexpr int kWidth = Vector<Out>::kWidth, kStep = kWarpThreads * kWidth;
  const WarpArguments& a = values.a;
  const int thread = threadIdx.x * kWidth;
  Steps plane(tile.size * tile.size, tile.first_row * tile.size + thread, kStep);
  for (int cell = thread; cell < tile.rows * tile.size; cell += kStep, plane.next()) {
    int place[kWidth];
    load_cells(tile.winner + cell, place);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) place[k] = static_cast<int>(values.place(place[k]));
    Out* to = out + plane.line * a.out_stride[1] + plane.item;
    for (int c = 0; c < a.channels; ++c, to += a.out_stride[2]) {
      values.store(place, [c](int) { return c; }, to);
    }
  }
}

// A part image is [S, S, C]: neighbouring elements are the channels of one cell.
template <class In, class Out>
__device__ __forceinline__ void write_channels_last(const Tile& tile, const Values<In, Out>& values,
                                                    Out* out) {
  constexpr int kWidth = Vector<Out>::kWidth, kStep = kWarpThreads * kWidth;
  const WarpArguments& a = values.a;
  const int thread = threadIdx.x * kWidth, first = tile.first_row * tile.size * a.channels;
  Steps cells(a.channels, thread, kStep), parts(tile.size * tile.size * a.channels, first + thread, kStep);
  for (; cells.line < tile.rows * tile.size; cells.next(), parts.next()) {
    int place[kWidth], channel[kWidth];
    int cell = cells.line, c = cells.item, here = static_cast<int>(values.place(tile.winner[cell]));
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      place[k] = here, channel[k] = c;
      if (++c == a.channels) {
        c = 0, ++cell;
        if (k + 1 < kWidth) here = static_cast<int>(values.place(tile.winner[cell]));
      }
    }
    Out* to = out + parts.line * a.out_stride[1] + parts.item;
    values.store(place, [&channel](int k) { return channel[k]; }, to);
  }
}

template <class In, class Out>
__device__ __forceinline__ void write_strided(const Tile& tile, const Values<In, Out>& values, Out* out) {
  const WarpArguments& a = values.a;
  for (Steps steps(tile.size); steps.line < tile.rows; steps.next()) {
    const int64_t place = values.place(tile.winner[steps.line * tile.size + steps.item]);
    const int row = tile.first_row + steps.line;
    Out* to = out + row / tile.size * a.out_stride[1] + row % tile.size * a.out_stride[3] +
              steps.item * a.out_stride[4];
    for (int c = 0; c < a.channels; ++c) to[c * a.out_stride[2]] = values.at(place, c);
  }
}

// The map of winners, one run for all part images of an image; 16 bytes at a time if it is aligned.
__device__ __forceinline__ void write_source(const WarpArguments& a, const Tile& tile, int image) {
  const int cells = tile.rows * tile.size;
  int32_t* to = a.source + (int64_t{image} * a.rows + tile.first_row) * tile.size;
  int cell = threadIdx.x;
  if (reinterpret_cast<uint64_t>(to) % 16 == 0) {
#pragma unroll 1
    for (int four = threadIdx.x; four < cells / 4; four += kWarpThreads) {
      reinterpret_cast<int4*>(to)[four] = reinterpret_cast<const int4*>(tile.winner)[four];
    }
    cell += cells / 4 * 4;
  }
  for (; cell < cells; cell += kWarpThreads) to[cell] = tile.winner[cell];
}

}  // namespace dsa
