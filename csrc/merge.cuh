// The CUDA kernels of part merging; merge.cu launches them. NVRTC compiles them as well.
//
// A thread owns 16 bytes of a group (one element where memory is not aligned): it reads the group's
// one or two members, and the residual's, and writes the group; backward, the other way round. All
// loads of a thread are under way before the first is used. 256 threads, no shared memory, no
// atomics, at most 40 registers: 6 blocks (1,536 threads) share a multiprocessor (on Turing 64,
// and 4 blocks, which is all its threads).
//   Bytes: every input once, every output once. For 64 images of 24 x 64 x 16 x 16 float32, residual
//   and ReLU: 201 MB in, 55 MB out.
//
//   The ladder of versions: 1. one element a thread; 2. 16 bytes a thread; 3. residual and ReLU in the
//   same pass, which saves writing and reading the sum (torch's operators move 2.4 times the bytes);
//   4. 32-bit indices, since the 64-bit division of each thread was most of its instructions.
//
// budget merge_kernel: 40 registers (sm_75: 64), 2 wide loads, 1 wide stores, 0 KiB
// budget expand_kernel: 40 registers (sm_75: 64), 1 wide loads, 2 wide stores, 0 KiB
#pragma once

#include "merge.h"

namespace dsa {

constexpr int kMergeThreads = 256;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 750
constexpr int kMergeBlocks = 4;  // a multiprocessor; Turing's has 1,024 threads
#else
constexpr int kMergeBlocks = 6;
#endif

template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T value[kWidth];
};

// For one launch: batch * vectors stays below 2^31.
struct MergeArguments {
  MergeTable table;
  uint32_t batch, vectors;  // vectors: packs in `inner`
  bool relu;
  const void* features;
  const void* residual;
  const void* merged;
  void* out;
};

// Where pack `i` of group blockIdx.y is found: in the group, and in the group's members.
struct MergePlace {
  int64_t group, member[2];
  bool pair;

  __device__ __forceinline__ MergePlace(const MergeArguments& a, uint32_t i) {
    const uint32_t image = i / a.vectors, at = i % a.vectors;
    const int index = blockIdx.y;
    pair = a.table.count[index] == 2;
    group = (int64_t{image} * a.table.groups + index) * a.vectors + at;
    const int64_t parts = int64_t{image} * a.table.parts;
    member[0] = (parts + a.table.members[index][0]) * a.vectors + at;
    member[1] = (parts + a.table.members[index][1]) * a.vectors + at;
  }
};

template <class T, int kWidth, bool kResidual>
__global__ void __launch_bounds__(kMergeThreads, kMergeBlocks)
    merge_kernel(const __grid_constant__ MergeArguments a) {
  using P = Pack<T, kWidth>;
  const uint32_t i = blockIdx.x * kMergeThreads + threadIdx.x;
  if (i >= a.batch * a.vectors) return;
  const MergePlace place(a, i);
  const P* features = static_cast<const P*>(a.features);
  const P* residual = static_cast<const P*>(a.residual);
  P x[2] = {}, r[2] = {};
  x[0] = features[place.member[0]];
  if (place.pair) x[1] = features[place.member[1]];
  if constexpr (kResidual) {
    r[0] = residual[place.member[0]];
    if (place.pair) r[1] = residual[place.member[1]];
  }
  P sum;
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    float part[2];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      part[m] = to_float(x[m].value[k]);
      if constexpr (kResidual) part[m] += to_float(r[m].value[k]);
      if (a.relu) part[m] = rectified(part[m]);
    }
    sum.value[k] = from_float<T>(place.pair ? part[0] + part[1] : part[0]);
  }
  static_cast<P*>(a.out)[place.group] = sum;
}

// kMasked: spreads only to where ReLU let the part's features, plus the residual if any, pass.
template <class T, int kWidth, bool kMasked>
__global__ void __launch_bounds__(kMergeThreads, kMergeBlocks)
    expand_kernel(const __grid_constant__ MergeArguments a) {
  using P = Pack<T, kWidth>;
  const uint32_t i = blockIdx.x * kMergeThreads + threadIdx.x;
  if (i >= a.batch * a.vectors) return;
  const MergePlace place(a, i);
  const P from = static_cast<const P*>(a.merged)[place.group];
  P* out = static_cast<P*>(a.out);
  const int members = place.pair ? 2 : 1;
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    if (m >= members) continue;
    P to = from;
    if constexpr (kMasked) {
      const P x = static_cast<const P*>(a.features)[place.member[m]];
      P r = {};
      if (a.residual) r = static_cast<const P*>(a.residual)[place.member[m]];
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        float sum = to_float(x.value[k]);
        if (a.residual) sum += to_float(r.value[k]);
        to.value[k] = keep(passes(sum), to.value[k]);
      }
    }
    out[place.member[m]] = to;
  }
}

}  // namespace dsa
