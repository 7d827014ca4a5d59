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

// What is read of an image: with a table an index into it, and kEmpty where there is no pixel.
template <class In, bool kTable>
struct PixelOf {
  using type = In;
};
template <class In>
struct PixelOf<In, true> {
  using type = uint32_t;
};

// Reads an image's pixels and converts them to the output's values.
template <class In, class Out>
struct Values {
  static constexpr bool kTable = kHasTable<In, Out>;
  using Pixel = typename PixelOf<In, kTable>::type;

  struct Channel {
    int number;
    const In* pixels;
    const Out* row;  // of the table
  };

  const WarpArguments& a;
  const In* image;
  const Out* table;  // [channels, kTableRow], if kTable

  // Where the winner of a cell lies in a channel of the image, in elements; -1 where the cell is empty.
  __device__ __forceinline__ int64_t place(int winner) const {
    if (winner < 0) return -1;
    return a.dense_image ? winner * a.image_stride[3]
                         : winner / a.width * a.image_stride[2] + winner % a.width * a.image_stride[3];
  }
  __device__ __forceinline__ Channel channel(int c) const {
    return {c, image + c * a.image_stride[1], table + c * kTableRow};
  }
  __device__ __forceinline__ Channel after(const Channel& channel) const {
    return {channel.number + 1, channel.pixels + a.image_stride[1], channel.row + kTableRow};
  }
  __device__ __forceinline__ Pixel pixel(const Channel& channel, int64_t place) const {
    if (place >= 0) return load(channel.pixels + place);
    if constexpr (kTable) return kEmpty;
    return {};
  }
  __device__ __forceinline__ Out value(const Channel& channel, int64_t place, Pixel x) const {
    if constexpr (kTable) {
      return channel.row[x];
    } else {
      const int c = channel.number;
      return place < 0 ? from_float<Out>(a.fill[c]) : Convert<Out, In>::value(x, a.normalise[c]);
    }
  }

  // 16 bytes of values, value k of channel_of(k); places fit into 32 bits. Eight loads are under way before
  // the first is used; sixteen, for uint8 output, would need more registers than there are.
  template <class ChannelOf>
  __device__ __forceinline__ void store(const int (&place)[Vector<Out>::kWidth], ChannelOf channel_of,
                                        Out* to) const {
    constexpr int kWidth = Vector<Out>::kWidth, kTogether = kWidth < 8 ? kWidth : 8;
    Vector<Out> values;
#pragma unroll
    for (int first = 0; first < kWidth; first += kTogether) {
      Pixel x[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) x[k] = pixel(channel_of(first + k), place[first + k]);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        values.value[first + k] = value(channel_of(first + k), place[first + k], x[k]);
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
    auto channel = values.channel(0);
    for (int c = 0; c < a.channels; ++c, channel = values.after(channel), to += a.out_stride[2]) {
      values.store(place, [&channel](int) { return channel; }, to);
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
    values.store(place, [&](int k) { return values.channel(channel[k]); }, to);
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
    auto channel = values.channel(0);
    for (int c = 0; c < a.channels; ++c, channel = values.after(channel), to += a.out_stride[2]) {
      *to = values.value(channel, place, values.pixel(channel, place));
    }
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
