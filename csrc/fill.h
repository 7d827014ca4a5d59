// Filling part images, for CPU backends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "number.h"

namespace dsa {

// Whether all bits of a value are 0, as those of the usual fill are.
template <class Out>
bool is_zero(const Out& value) {
  const Out zero{};
  return std::memcmp(&value, &zero, sizeof value) == 0;
}

// Zeros by memset, which need not read memory before it writes; else 16 bytes at a time, as compilers store
// structs of two bytes one by one.
template <class Out>
void fill_run(Out* to, int64_t count, Out value) {
  if (is_zero(value)) {
    std::memset(static_cast<void*>(to), 0, count * sizeof value);
    return;
  }
  Vector<Out> sixteen;
  std::fill_n(sixteen.value, Vector<Out>::kWidth, value);
  int64_t i = 0;
  for (; i + Vector<Out>::kWidth <= count; i += Vector<Out>::kWidth) {
    std::memcpy(to + i, &sixteen, sizeof sixteen);
  }
  for (; i < count; ++i) to[i] = value;
}

// The part images [first_part, last_part) of [parts, channels, size, size], any strides.
template <class Out>
void fill_parts(Out* out, const int64_t (&stride)[5], int size, int channels, const Out* fill, int first_part,
                int last_part) {
  const bool dense = stride[4] == 1 && stride[3] == size;
  // Channels innermost, and all filled alike: a part image is one run.
  const bool last = stride[2] == 1 && stride[4] == channels && stride[3] == int64_t{size} * channels;
  const bool same = std::all_of(
      fill, fill + channels, [&](const Out& value) { return std::memcmp(&value, fill, sizeof value) == 0; });
  const bool alike = last && same;
  const int64_t image = int64_t{size} * size * channels;
  if (same && (last || (dense && stride[2] == int64_t{size} * size)) && stride[1] == image) {
    fill_run(out + first_part * image, (last_part - first_part) * image, fill[0]);
    return;
  }
  for (int part = first_part; part < last_part; ++part) {
    Out* to = out + part * stride[1];
    if (alike) {
      fill_run(to, int64_t{size} * size * channels, fill[0]);
      continue;
    }
    for (int channel = 0; channel < channels; ++channel, to += stride[2]) {
      const Out value = fill[channel];  // a copy: the compiler need not fear that `to` overlaps it
      if (dense) {
        fill_run(to, int64_t{size} * size, value);
        continue;
      }
      for (int row = 0; row < size; ++row) {
        for (int column = 0; column < size; ++column) to[row * stride[3] + column * stride[4]] = value;
      }
    }
  }
}

}  // namespace dsa
