// What ptx.py's C++ needs: PTX's arithmetic, and the kernels that ptx.cpp runs.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

namespace ptx {

// ---- registers: the low bits count, whatever they are taken for ----

template <class T>
using Unsigned = std::conditional_t<
    sizeof(T) == 8, uint64_t,
    std::conditional_t<sizeof(T) == 4, uint32_t, std::conditional_t<sizeof(T) == 2, uint16_t, uint8_t>>>;

template <class T>
Unsigned<T> unsigned_of(T x) {
  Unsigned<T> bits;
  std::memcpy(&bits, &x, sizeof x);
  return bits;
}
template <class T, class Register>
T get(const Register& from) {
  const auto low = static_cast<Unsigned<T>>(unsigned_of(from));
  T value;
  std::memcpy(&value, &low, sizeof value);
  return value;
}
template <class Register, class T>
void set(Register& to, T value) {
  if constexpr (std::is_floating_point_v<T>) {
    const auto bits = static_cast<Unsigned<Register>>(unsigned_of(value));
    std::memcpy(&to, &bits, sizeof to);
  } else if constexpr (std::is_same_v<Register, bool>) {
    to = value != 0;
  } else {
    const auto bits = static_cast<Unsigned<Register>>(value);  // extends a signed value by its sign
    std::memcpy(&to, &bits, sizeof to);
  }
}
template <class Register>
Unsigned<Register> low_bits(uint64_t x, const Register&) {
  return static_cast<Unsigned<Register>>(x);
}
template <class T>
T read(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
void write(unsigned char* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// ---- arithmetic ----

inline int64_t wide(int32_t x) { return x; }
inline uint64_t wide(uint32_t x) { return x; }
inline int32_t wide(int16_t x) { return x; }
inline uint32_t wide(uint16_t x) { return x; }
inline __int128 wide(int64_t x) { return x; }
inline unsigned __int128 wide(uint64_t x) { return x; }

template <class T>
T shl(T x, uint32_t by) {
  return by >= 8 * sizeof(T) ? T(0) : static_cast<T>(static_cast<Unsigned<T>>(x) << by);
}
template <class T>
T shr(T x, uint32_t by) {
  if (by >= 8 * sizeof(T)) by = 8 * sizeof(T) - 1, x = std::is_signed_v<T> ? x : T(0);
  return static_cast<T>(x >> by);
}
template <class T>
bool unordered(T a, T b) {
  return a != a || b != b;
}
template <class T>
T least(T a, T b) {
  return b < a || a != a ? b : a;
}
template <class T>
T most(T a, T b) {
  return a < b || a != a ? b : a;
}
template <class T>
T added(T a, T b) {
  return static_cast<T>(Unsigned<T>(a) + Unsigned<T>(b));
}
template <class T>
T absolute(T x) {
  return std::is_floating_point_v<T> ? static_cast<T>(std::fabs(double(x))) : x < 0 ? -x : x;
}
template <class T>
T fused(T a, T b, T c) {
  return std::fma(a, b, c);
}
// cvt.rzi: towards zero, to the nearest number of the type; 0 for what is no number.
template <class To, class From>
To truncated(From x) {
  if (x != x) return 0;
  if (x <= static_cast<From>(std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  if (x >= static_cast<From>(std::numeric_limits<To>::max())) return std::numeric_limits<To>::max();
  return static_cast<To>(x);
}
inline uint32_t prmt(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t both = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (int k = 0; k < 4; ++k) {
    const uint32_t one = selector >> 4 * k & 15;
    uint32_t byte = both >> 8 * (one & 7) & 255;
    if (one & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * k;
  }
  return result;
}
inline uint32_t bfi(uint32_t a, uint32_t b, uint32_t position, uint32_t length) {
  position &= 255, length &= 255;
  const uint64_t mask = ((uint64_t{1} << std::min<uint32_t>(length, 32)) - 1)
                        << std::min<uint32_t>(position, 63);
  return static_cast<uint32_t>((b & ~mask) | (uint64_t{a} << std::min<uint32_t>(position, 63) & mask));
}
inline uint32_t leading_zeros(uint32_t x) { return x ? __builtin_clz(x) : 32; }
inline uint32_t reversed_bits(uint32_t x) {
  uint32_t result = 0;
  for (int k = 0; k < 32; ++k) result |= (x >> k & 1u) << (31 - k);
  return result;
}
inline uint32_t funnel_left(uint32_t low, uint32_t high, uint32_t by) {
  return static_cast<uint32_t>(((uint64_t{high} << 32 | low) << (by & 31)) >> 32);
}

// ---- what runs ----

struct Lane {
  int at;  // its block; -1: it has returned
  bool waits;
  uint32_t thread;
  bool vote;
  uint32_t* ballot;
};

// A block of the grid: its memory. Addresses of shared memory and of arguments count from 0.
struct Block {
  uint32_t block_x, block_y, block_z;
  unsigned char* shared_bytes;
  size_t shared_size;
  const unsigned char* arguments;
  size_t arguments_size;

  unsigned char* global(uint64_t address, size_t) const { return reinterpret_cast<unsigned char*>(address); }
  unsigned char* shared(uint64_t address, size_t bytes) const {
    check(static_cast<uint32_t>(address) + bytes <= shared_size, "shared memory");
    return shared_bytes + static_cast<uint32_t>(address);
  }
  const unsigned char* param(uint64_t address, size_t bytes) const {
    check(address + bytes <= arguments_size, "arguments");
    return arguments + address;
  }
  static void check(bool inside, const char* what);
};

// What lanes do at the end of a block of code.
enum class Kind : char { plain, barrier, vote, meeting };

struct Kernel {
  int (*step)(Lane&, const Block&);  // runs a block of code; returns the next one
  const int* weights;                // of each block of code
  const Kind* kinds;
  size_t lane_bytes;
  bool together(int at) const { return kinds[at] == Kind::vote || kinds[at] == Kind::meeting; }
  Kernel(const char* name, int (*step_)(Lane&, const Block&), const int* weights_, const Kind* kinds_,
         size_t lane_bytes_);
};

void launch(std::string name, dim3 grid, dim3 block, size_t shared_bytes, const void* arguments,
            size_t bytes);

}  // namespace ptx
