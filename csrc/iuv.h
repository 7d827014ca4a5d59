// One pixel of an IUV map: which part it belongs to and which cell of the part image it hits.
// Host and device code compute both here and nowhere else.
#pragma once

#include "parts.h"

namespace dsa {

// How far u and v of a floating map may lie outside of [0, 1], to be clamped then: no rounding leads
// farther. dsa_ext.warp has the same number; a test keeps the two equal.
constexpr float kOvershoot = 1.f / 64;
DSA_HOST_DEVICE float clamped(float u) { return u < 0.f ? 0.f : u > 1.f ? 1.f : u; }

// floor(q / 255 * size), at most size - 1, in integers: float arithmetic misses it for some q. x * 32897 >>
// 23 is x / 255 for every x up to 65,535.
DSA_HOST_DEVICE int cell_of(uint8_t q, int size) {
  const int cell = static_cast<int>(q * (static_cast<uint32_t>(size) * 32897u) >> 23), last = size - 1;
  return cell < last ? cell : last;
}

// The same for a coordinate in [0, 1], and for one that is clamped to it first.
DSA_HOST_DEVICE int cell_within(float u, int size) {
  const int cell = static_cast<int>(u * static_cast<float>(size));
  return cell < size ? cell : size - 1;
}
DSA_HOST_DEVICE int cell_of(float u, int size) { return cell_within(clamped(u), size); }

// The chart read from its other end.
DSA_HOST_DEVICE uint8_t reversed(uint8_t q) { return static_cast<uint8_t>(255 - q); }
DSA_HOST_DEVICE float reversed(float u) { return 1.f - clamped(u); }
// The same if the lowest byte of `turn` is 255, and not if it is 0.
DSA_HOST_DEVICE uint8_t turned(uint8_t q, int turn) { return static_cast<uint8_t>(q ^ turn); }
DSA_HOST_DEVICE float turned(float u, int turn) { return turn & 1 ? reversed(u) : u; }

// The part 1..24 of a pixel, 0 for background: I = 0, I above 24 and, in floating maps, a NaN
// in any of the three.
DSA_HOST_DEVICE int part_of(uint8_t i, uint8_t, uint8_t) { return i <= kParts ? i : 0; }
DSA_HOST_DEVICE int part_of(float i, float u, float v) {
  const bool known = i >= 1.f && i < kParts + 1 && u == u && v == v;
  return known ? static_cast<int>(i) : 0;
}

}  // namespace dsa
