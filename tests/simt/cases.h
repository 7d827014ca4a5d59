// What the test programs share: random data, guarded memory, comparison bit for bit, options.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "number.h"
#include "simt.h"

namespace cases {

using dsa::Type;

struct Random {
  uint64_t state;
  explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t next() {
    uint64_t x = state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
  }
  int below(int n) { return static_cast<int>(next() % static_cast<uint64_t>(n)); }
  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-24f; }
  template <class T>
  const T& pick(const std::vector<T>& from) {
    return from[below(static_cast<int>(from.size()))];
  }
};

inline size_t bytes_of(Type type) { return type == Type::uint8 ? 1 : type == Type::float32 ? 4 : 2; }
inline const char* name_of(Type type) {
  return type == Type::uint8      ? "uint8"
         : type == Type::float16  ? "float16"
         : type == Type::bfloat16 ? "bfloat16"
                                  : "float32";
}

// Memory on the heap that ends where its last element does, so that AddressSanitizer sees a step
// beyond it. It starts `offset` bytes after a multiple of 256, as cudaMalloc's does, and poisoned.
struct Memory {
  struct Free {
    void operator()(unsigned char* block) const { ::operator delete[](block, std::align_val_t{256}); }
  };
  size_t bytes, offset;
  std::unique_ptr<unsigned char[], Free> block;
  explicit Memory(size_t bytes_, size_t offset_ = 0)
      : bytes(bytes_), offset(offset_), block(new (std::align_val_t{256}) unsigned char[bytes_ + offset_]) {
    std::memset(block.get(), simt::settings.poison, bytes + offset);
  }
  unsigned char* begin() const { return block.get() + offset; }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(begin());
  }
  bool operator==(const Memory& other) const {
    return bytes == other.bytes && std::memcmp(begin(), other.begin(), bytes) == 0;
  }
};

// A number of the given type: 0..255 for uint8, else about -4..4, rarely a special value.
inline void draw(Random& random, Type type, void* to) {
  float x = random.uniform() * 8 - 4;
  if (type != Type::uint8 && random.below(64) == 0) {
    x = random.pick<float>({0.f, -0.f, 1e-8f, 7e4f, -1e30f, __builtin_inff(), __builtin_nanf("")});
  }
  switch (type) {
    case Type::uint8: *static_cast<uint8_t*>(to) = static_cast<uint8_t>(random.next()); break;
    case Type::float16: *static_cast<dsa::Half*>(to) = dsa::from_float<dsa::Half>(x); break;
    case Type::bfloat16: *static_cast<dsa::BFloat*>(to) = dsa::from_float<dsa::BFloat>(x); break;
    case Type::float32: *static_cast<float*>(to) = x; break;
  }
}
inline void draw_all(Random& random, Type type, const Memory& memory) {
  const size_t step = bytes_of(type);
  for (size_t at = 0; at + step <= memory.bytes; at += step) draw(random, type, memory.begin() + at);
}

// Strides of a tensor of this shape whose dimensions lie in memory in the order given (the last
// is the innermost), with `gap` elements after each run of the innermost.
template <size_t kDimensions>
int64_t strides(const int (&shape)[kDimensions], const int (&order)[kDimensions], int gap,
                int64_t (&stride)[kDimensions]) {
  int64_t step = 1;
  for (int i = kDimensions - 1; i >= 0; --i) {
    stride[order[i]] = step;
    step *= shape[order[i]];
    if (i == static_cast<int>(kDimensions) - 1) step += gap;
  }
  int64_t last = 0;
  for (size_t d = 0; d < kDimensions; ++d) last += (shape[d] - 1) * stride[d];
  return last + 1;  // elements from the first to the last
}

// How many cases are drawn for each pair of types; fewer where the sanitizers make them slow.
inline int drawn = 8;

// One option of a program's command line. Returns whether there is such an option with such a value.
inline bool set_option(const std::string& word, const std::string& value) {
  simt::Settings& settings = simt::settings;
  const std::vector<std::string> orders = {"forward", "reverse", "shuffled"};  // as in Settings::Order
  if (word == "--order") {
    const auto order = std::find(orders.begin(), orders.end(), value);
    settings.order = static_cast<simt::Settings::Order>(order - orders.begin());
    return order != orders.end();
  }
  const int number = std::stoi(value);
  if (word == "--seed") return settings.seed = static_cast<unsigned>(number), true;
  if (word == "--workers") return settings.workers = number, true;
  if (word == "--poison") return settings.poison = static_cast<unsigned char>(number), true;
  if (word == "--cases") return drawn = number, true;
  if (word == "--planted") return settings.planted = number, true;
  return false;
}

// Reports a case that is not as it should be; the program goes on, and ends with exit code 1.
inline int failures = 0, checks = 0;
inline void check(bool holds, const std::string& what) {
  ++checks;
  if (holds) return;
  if (++failures <= 20) std::printf("differs: %s\n", what.c_str());
}

// Device limits: a Hopper, and one that has 48 KiB of shared memory and few multiprocessors.
template <class F>
void on_devices(F f) {
  const simt::Settings before = simt::settings;
  f();
  simt::settings.shared_bytes = 48 << 10, simt::settings.multiprocessors = 6;
  f();
  simt::settings = before;
}

// Memory for runs that lie far apart: what is never touched takes no room.
struct FarMemory {
  size_t bytes;
  void* begin;
  explicit FarMemory(size_t bytes_)
      : bytes(bytes_),
        begin(mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                   0)) {
    if (begin == MAP_FAILED) std::abort();
  }
  FarMemory(const FarMemory&) = delete;
  ~FarMemory() { munmap(begin, bytes); }
  template <class T>
  T* as() const {
    return static_cast<T*>(begin);
  }
};

// The cases of an operation; cases_NAME.cpp registers them by making one of these. Those of csrc/NAME.cuh are
// called NAME, or NAME- and more.
struct Suite {
  Suite(const char* name, void (*run)()) { all()[name] = run; }
  static std::map<std::string, void (*)()>& all() {  // by name, for kernels.cpp
    static std::map<std::string, void (*)()> suites;
    return suites;
  }
};

}  // namespace cases
