// CUDA backend of part merging: a thread owns the same 16 bytes (or, unaligned, one element) of a
// group, reads its one or two members and writes the group, or the other way round. Each byte is
// read once and written once; no shared memory, no atomics. At most 64 registers.
#include "merge.h"

#include <cuda_runtime.h>

namespace dsa {
namespace {

constexpr int kThreads = 256;

template <class T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T value[kWidth];
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) merge_kernel(const __grid_constant__ MergeTable table, int64_t batch,
                                            int64_t vectors, const Vector<T, kWidth>* __restrict__ in,
                                            Vector<T, kWidth>* __restrict__ out) {
  const int group = blockIdx.y;
  const bool pair = table.count[group] == 2;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < batch * vectors;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t image = i / vectors, at = i % vectors;
    const Vector<T, kWidth>* parts = in + image * table.parts * vectors + at;
    Vector<T, kWidth> sum = parts[table.members[group][0] * vectors];
    if (pair) {
      const Vector<T, kWidth> second = parts[table.members[group][1] * vectors];
#pragma unroll
      for (int k = 0; k < kWidth; ++k) {
        sum.value[k] = from_float<T>(to_float(sum.value[k]) + to_float(second.value[k]));
      }
    }
    out[(image * table.groups + group) * vectors + at] = sum;
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kThreads, 4) expand_kernel(const __grid_constant__ MergeTable table, int64_t batch,
                                             int64_t vectors, const Vector<T, kWidth>* __restrict__ in,
                                             Vector<T, kWidth>* __restrict__ out) {
  const int group = blockIdx.y;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < batch * vectors;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t image = i / vectors, at = i % vectors;
    const Vector<T, kWidth> from = in[(image * table.groups + group) * vectors + at];
    Vector<T, kWidth>* parts = out + image * table.parts * vectors + at;
    parts[table.members[group][0] * vectors] = from;
    if (table.count[group] == 2) parts[table.members[group][1] * vectors] = from;
  }
}

template <class T, int kWidth>
int launch(const MergeCall& call, bool expand, cudaStream_t stream) {
  using V = Vector<T, kWidth>;
  const int64_t vectors = call.inner / kWidth;
  constexpr int64_t kMostBlocks = 65536;  // beyond that the threads stride
  const int64_t wanted = (call.batch * vectors + kThreads - 1) / kThreads;
  const dim3 grid(static_cast<unsigned>(wanted < kMostBlocks ? wanted : kMostBlocks),
                  call.table.groups);
  const V* in = static_cast<const V*>(call.in);
  V* out = static_cast<V*>(call.out);
  if (expand) {
    expand_kernel<T, kWidth><<<grid, kThreads, 0, stream>>>(call.table, call.batch, vectors, in, out);
  } else {
    merge_kernel<T, kWidth><<<grid, kThreads, 0, stream>>>(call.table, call.batch, vectors, in, out);
  }
  return cudaGetLastError();
}

template <class T>
int launch_widest(const MergeCall& call, bool expand, void* stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const auto address = reinterpret_cast<uintptr_t>(call.in) | reinterpret_cast<uintptr_t>(call.out);
  const bool aligned = call.inner % kWidth == 0 && address % 16 == 0;
  return aligned ? launch<T, kWidth>(call, expand, static_cast<cudaStream_t>(stream))
                 : launch<T, 1>(call, expand, static_cast<cudaStream_t>(stream));
}

int launch_typed(const MergeCall& call, bool expand, void* stream) {
  switch (call.type) {
    case Type::uint8: return cudaErrorInvalidValue;
    case Type::float16: return launch_widest<Half>(call, expand, stream);
    case Type::bfloat16: return launch_widest<BFloat>(call, expand, stream);
    case Type::float32: return launch_widest<float>(call, expand, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

int merge_cuda(const MergeCall& call, void* stream) { return launch_typed(call, false, stream); }
int expand_cuda(const MergeCall& call, void* stream) { return launch_typed(call, true, stream); }

}  // namespace dsa
