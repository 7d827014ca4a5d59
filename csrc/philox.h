// Random numbers by counter (Philox4x32-10; Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011): the numbers are a function of a key and a counter. Nothing is carried from one draw
// to the next, so they depend neither on threads nor on order.
#pragma once

#include "parts.h"

namespace dsa {

struct Words {
  uint32_t word[4];
};

DSA_HOST_DEVICE Words philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0, p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1), c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// A word as a number in [0, 1), exactly; and as a whole number in [0, n), n at least 1.
DSA_HOST_DEVICE double unit(uint32_t word) { return word * 0x1p-32; }
DSA_HOST_DEVICE uint32_t below(uint32_t word, uint32_t n) {
  return static_cast<uint32_t>(uint64_t{word} * n >> 32);
}

}  // namespace dsa
