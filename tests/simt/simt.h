// The CUDA language on the host: what the kernels of csrc/ use of it, as plain C++.
//
// harness.py turns `kernel<<<grid, threads, bytes, stream>>>(arguments);` into simt::launch, and
// `extern __shared__ ...` into simt::shared_memory(); everything else compiles as it stands, with
// this file included first. One fiber stands for one CUDA thread (simt.cpp). README.md explains.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <functional>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __launch_bounds__
#undef __forceinline__
#undef __grid_constant__
#define __global__ static
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define SIMT_INLINE inline __attribute__((always_inline))
#define __forceinline__ SIMT_INLINE
#define DSA_HOST_DEVICE SIMT_INLINE  // csrc/parts.h leaves it as it is

namespace simt {

// How blocks and threads are run. Programs set it from their command line.
struct Settings {
  enum Order { forward, reverse, shuffled } order = forward;  // of the threads of a block
  unsigned seed = 1;                                          // of `shuffled`
  int workers = 1;               // host threads; block b runs on worker b % workers
  unsigned char poison = 0xcd;   // what shared memory holds before a block starts
  int planted = 0;               // number of the barrier or atomic that is broken on purpose
  int multiprocessors = 132;     // what the device says of itself
  int shared_bytes = 227 << 10;  // most dynamic shared memory a block may ask for
};
extern Settings settings;

// Runs `body` once for each thread of the grid. Aborts with a message where CUDA would hang or
// leave the result undefined: divergent barriers, exited threads, too much shared memory.
void launch(const char* kernel, const void* function, dim3 grid, dim3 block, size_t shared_bytes,
            const std::function<void()>& body);

struct Index {
  dim3 thread, block, block_size, grid_size;
};
const Index& index();
unsigned char* shared_memory();

// `site` numbers the places that harness.py found, from 1; settings.planted disables one of them.
void barrier(int site);
void barrier_warp(unsigned mask);
// Every lane of `mask` gives a value; returns the values of all 32 lanes.
const uint64_t* exchange(unsigned mask, uint64_t value);
unsigned lane();

#if defined(SIMT_COUNT)
void count_atomic(const void* address, int bytes);
// A copy that is not counted.
void copy_silently(void* to, const void* from, int bytes);
// Stands before each loop of a kernel, and counts the thread's iterations of it.
struct Loop {
  Loop();
  ~Loop();
  void next();
};
#endif

// Relaxed, as CUDA's are: an atomic orders nothing but itself. `weak` is the planted bug: the same
// in three steps that another thread can come between.
template <class T, class Combine>
SIMT_INLINE T update(T* address, bool weak, Combine combine) {
#if defined(SIMT_COUNT)
  count_atomic(address, sizeof(T));
  T before;
  copy_silently(&before, address, sizeof(T));
  const T after = combine(before);
  copy_silently(address, &after, sizeof(T));
  return before;
#else
  if (weak) {
    const T old = *address;
    *address = combine(old);
    return old;
  }
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (
      !__atomic_compare_exchange_n(address, &old, combine(old), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
#endif
}

template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
T shuffle(unsigned mask, T value, unsigned from, bool in_range) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  const uint64_t* lanes = exchange(mask, bits);
  return in_range ? from_bits<T>(lanes[from & 31]) : value;
}

}  // namespace simt

#define threadIdx (::simt::index().thread)
#define blockIdx (::simt::index().block)
#define blockDim (::simt::index().block_size)
#define gridDim (::simt::index().grid_size)

#define SIMT_WEAK(site) (::simt::settings.planted == (site))
#define SIMT_ATOMIC_MAX(site, address, value) \
  ::simt::update(address, SIMT_WEAK(site),    \
                 [given = value](auto old) { return decltype(old)(old < given ? given : old); })
#define SIMT_ATOMIC_MIN(site, address, value) \
  ::simt::update(address, SIMT_WEAK(site),    \
                 [given = value](auto old) { return decltype(old)(given < old ? given : old); })
#define SIMT_ATOMIC_ADD(site, address, value) \
  ::simt::update(address, SIMT_WEAK(site), [given = value](auto old) { return decltype(old)(old + given); })

inline void __syncwarp(unsigned mask = 0xffffffffu) { simt::barrier_warp(mask); }

template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  const unsigned base = simt::lane() & ~(width - 1u);
  return simt::shuffle(mask, value, base | (from & (width - 1)), true);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = simt::lane();
  return simt::shuffle(mask, value, lane - delta, (lane & (width - 1u)) >= delta);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = simt::lane();
  return simt::shuffle(mask, value, lane + delta, (lane & (width - 1u)) + delta < unsigned(width));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  const unsigned to = simt::lane() ^ bits;
  return simt::shuffle(mask, value, to, (to & ~(width - 1u)) <= (simt::lane() & ~(width - 1u)));
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* lanes = simt::exchange(mask, predicate != 0);
  unsigned result = 0;
  for (unsigned i = 0; i < 32; ++i) result |= (mask >> i & 1u) & unsigned(lanes[i]) ? 1u << i : 0u;
  return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
// The bytes of a (0 to 3) and b (4 to 7) that the selector's four lowest digits of three bits name.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t both = uint64_t{b} << 32 | a;
  unsigned result = 0;
  for (int k = 0; k < 4; ++k) result |= unsigned(both >> 8 * (selector >> 4 * k & 7) & 255) << 8 * k;
  return result;
}

template <class T>
SIMT_INLINE T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
SIMT_INLINE T max(T a, T b) {
  return a < b ? b : a;
}

template <class T>
SIMT_INLINE T __ldg(const T* address) {
  return *address;
}
