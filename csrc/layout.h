// From run-time types and strides to the kernels' template arguments and vector forms, for CUDA
// backends. Host code.
#pragma once

#include <cstdint>
#include <type_traits>

#include "number.h"
#include "warp_tile.h"

namespace dsa {

inline int64_t bytes_of(Type type) { return type == Type::uint8 ? 1 : type == Type::float32 ? 4 : 2; }

// The address of an element, counted from a tensor's first.
template <class Pointer>
Pointer advance(Pointer pointer, int64_t elements, Type type) {
  using Bytes = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char*, char*>;
  return static_cast<Bytes>(pointer) + elements * bytes_of(type);
}

// Whether 16 bytes can be moved at once from `pointer` on, at each multiple of these strides too.
template <size_t kStrides>
bool aligned(const void* pointer, Type type, const int64_t (&stride)[kStrides]) {
  if (reinterpret_cast<uintptr_t>(pointer) % 16) return false;
  for (const int64_t elements : stride) {
    if (elements * bytes_of(type) % 16) return false;
  }
  return true;
}

// How part images [batch, parts, channels, size, size] can be written.
inline Write choose_write(const void* out, Type type, const int64_t (&stride)[5], int64_t size,
                          int64_t channels) {
  const int64_t width = 16 / bytes_of(type);
  if (stride[4] == 1 && stride[3] == size && size * size % width == 0 &&
      aligned(out, type, {stride[0], stride[1], stride[2]})) {
    return Write::planes;
  }
  if (stride[2] == 1 && stride[4] == channels && stride[3] == size * channels &&
      channels <= kChannelsALaunch && size * size * channels % width == 0 &&
      aligned(out, type, {stride[0], stride[1]})) {
    return Write::channels_last;
  }
  return Write::strided;
}

}  // namespace dsa
