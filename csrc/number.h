// The four element types and the arithmetic between them, equal bit for bit on host and device. Only the
// bits of a NaN that arithmetic makes are the processor's own. Contraction (fused multiply-add) cannot
// change a result: no product is followed by a sum.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <cstring>
#endif

#include "parts.h"

namespace dsa {

enum class Type : int { uint8, float16, bfloat16, float32 };

// float16 and bfloat16 as their bits, so that no backend depends on another's half type.
struct Half {
  uint16_t bits;
};
struct BFloat {
  uint16_t bits;
};

DSA_HOST_DEVICE uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
DSA_HOST_DEVICE float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

DSA_HOST_DEVICE float to_float(uint8_t x) { return static_cast<float>(x); }
DSA_HOST_DEVICE float to_float(float x) { return x; }
DSA_HOST_DEVICE float to_float(BFloat x) { return float_of(static_cast<uint32_t>(x.bits) << 16); }
// Here and below no branch depends on a number, so that compilers vectorise the loops.
DSA_HOST_DEVICE float to_float(Half x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  // Shift exponent and mantissa into place and let a multiplication by 2^112 renormalise.
  const uint32_t finite = bits_of(float_of(magnitude << 13) * 0x1p112f);
  const uint32_t special = magnitude >= 0x7c00u ? 112u << 23 : 0u;  // to the exponent of infinity, NaN
  return float_of(sign | (finite + special));
}

// Rounding to nearest, ties to even. A NaN stays a (quiet) NaN.
template <class T>
DSA_HOST_DEVICE T from_float(float x);
template <>
DSA_HOST_DEVICE float from_float<float>(float x) {
  return x;
}
template <>
DSA_HOST_DEVICE uint8_t from_float<uint8_t>(float x) {
  return static_cast<uint8_t>(x);  // only ever called with whole numbers 0..255
}
template <>
DSA_HOST_DEVICE BFloat from_float<BFloat>(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return {static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded)};
}
template <>
DSA_HOST_DEVICE Half from_float<Half>(float x) {
  const uint32_t bits = bits_of(x);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  // Below the smallest normal number an addition rounds.
  const uint32_t small = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t is_small = magnitude < 0x38800000u ? 0xffffffffu : 0u;
  uint32_t half = (small & is_small) | (normal & ~is_small);
  half = magnitude >= 0x477ff000u ? 0x7c00u : half;  // rounds to 65520 or more: infinity
  return {static_cast<uint16_t>(magnitude > 0x7f800000u ? 0x7e00u : sign | half)};
}

// x or 0.
DSA_HOST_DEVICE float keep(bool wanted, float x) { return wanted ? x : 0.f; }
DSA_HOST_DEVICE Half keep(bool wanted, Half x) { return {static_cast<uint16_t>(wanted ? x.bits : 0u)}; }
DSA_HOST_DEVICE BFloat keep(bool wanted, BFloat x) { return {static_cast<uint16_t>(wanted ? x.bits : 0u)}; }

// What an image's value becomes: uint8 is divided by 255 when the output is floating, then mean
// and std apply; each operation is rounded to float32 in this order (ToTensor, Normalize).
struct Normalise {
  bool active = false;
  float mean = 0.f, std = 1.f;

  DSA_HOST_DEVICE float operator()(float x) const { return active ? (x - mean) / std : x; }
};

// 16 bytes of one type: what a CUDA thread loads or stores at once.
template <class T>
struct alignas(16) Vector {
  static constexpr int kWidth = 16 / sizeof(T);
  T value[kWidth];
};

template <class Out, class In>
struct Convert {
  static DSA_HOST_DEVICE Out value(In x, Normalise n) { return from_float<Out>(n(to_float(x))); }
};
template <class Out>
struct Convert<Out, uint8_t> {
  static DSA_HOST_DEVICE Out value(uint8_t x, Normalise n) { return from_float<Out>(n(to_float(x) / 255.f)); }
};
template <>
struct Convert<uint8_t, uint8_t> {
  static DSA_HOST_DEVICE uint8_t value(uint8_t x, Normalise) { return x; }
};

#if !defined(__CUDACC_RTC__)  // NVRTC takes no host functions
template <class T>
struct Of {
  using type = T;
};

// Calls `f` with the C++ type that stands for a run-time type.
template <class F>
auto with_type(Type type, F f) {
  switch (type) {
    case Type::uint8: return f(Of<uint8_t>{});
    case Type::float16: return f(Of<Half>{});
    case Type::bfloat16: return f(Of<BFloat>{});
    default: return f(Of<float>{});
  }
}
#endif

}  // namespace dsa
