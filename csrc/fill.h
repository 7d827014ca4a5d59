// Filling part images, for CPU backends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "number.h"

namespace dsa {

// 16 bytes at a time: compilers store structs of two bytes one by one.
template <class Out>
void fill_run(Out* to, int64_t count, Out value) {
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
void fill_parts(Out* out, const int64_t (&stride)[5], int size, int channels, const Out* fill,
                int first_part, int last_part) {
  const bool dense = stride[4] == 1 && stride[3] == size;
  for (int part = first_part; part < last_part; ++part) {
    for (int channel = 0; channel < channels; ++channel) {
      Out* image = out + part * stride[1] + channel * stride[2];
      const Out value = fill[channel];  // a copy: the compiler need not fear that image overlaps it
      if (dense) {
        fill_run(image, int64_t{size} * size, value);
        continue;
      }
      for (int row = 0; row < size; ++row) {
        for (int column = 0; column < size; ++column) {
          image[row * stride[3] + column * stride[4]] = value;
        }
      }
    }
  }
}

}  // namespace dsa
