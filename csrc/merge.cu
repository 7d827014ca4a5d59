// CUDA backend of part merging: chooses the width of a thread's access and launches merge.cuh.
#include "merge.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "merge.cuh"

namespace dsa {
namespace {

template <class T, int kWidth>
int launch_packs(const MergeCall& call, MergeArguments& a, bool expand, cudaStream_t stream) {
  const unsigned blocks = (a.batch * a.vectors + kMergeThreads - 1) / kMergeThreads;
  const dim3 grid(blocks, call.table.groups);
  if (expand) {
    if (call.features) {
      expand_kernel<T, kWidth, true><<<grid, kMergeThreads, 0, stream>>>(a);
    } else {
      expand_kernel<T, kWidth, false><<<grid, kMergeThreads, 0, stream>>>(a);
    }
  } else if (call.residual) {
    merge_kernel<T, kWidth, true><<<grid, kMergeThreads, 0, stream>>>(a);
  } else {
    merge_kernel<T, kWidth, false><<<grid, kMergeThreads, 0, stream>>>(a);
  }
  return cudaGetLastError();
}

// The address of image `image` of a tensor with `parts` parts or groups; null stays null.
template <class T>
const void* at_image(const void* tensor, int64_t image, int parts, int64_t inner) {
  return tensor ? static_cast<const T*>(tensor) + image * parts * inner : nullptr;
}

template <class T, int kWidth>
int launch(const MergeCall& call, bool expand, void* stream) {
  MergeArguments a{};
  a.table = call.table, a.relu = call.relu;
  const int parts = call.table.parts, groups = call.table.groups;
  // Indices of a launch have 32 bits; what is longer takes several launches.
  constexpr int64_t kMostPacks = int64_t{1} << 30;
  if (call.inner / kWidth > kMostPacks) return cudaErrorInvalidValue;
  a.vectors = static_cast<uint32_t>(call.inner / kWidth);
  const int64_t images = std::max<int64_t>(1, kMostPacks / std::max<int64_t>(1, a.vectors));
  for (int64_t image = 0; image < call.batch; image += images) {
    a.batch = static_cast<uint32_t>(std::min(images, call.batch - image));
    a.features = at_image<T>(call.features, image, parts, call.inner);
    a.residual = at_image<T>(call.residual, image, parts, call.inner);
    a.merged = at_image<T>(call.merged, image, groups, call.inner);
    a.out = const_cast<void*>(at_image<T>(call.out, image, expand ? parts : groups, call.inner));
    const int error = launch_packs<T, kWidth>(call, a, expand, static_cast<cudaStream_t>(stream));
    if (error) return error;
  }
  return cudaSuccess;
}

template <class T>
int launch_widest(const MergeCall& call, bool expand, void* stream) {
  constexpr int kWidth = 16 / sizeof(T);
  const auto address = reinterpret_cast<uintptr_t>(call.features) |
                       reinterpret_cast<uintptr_t>(call.residual) | reinterpret_cast<uintptr_t>(call.merged) |
                       reinterpret_cast<uintptr_t>(call.out);
  const bool aligned = call.inner % kWidth == 0 && address % 16 == 0;
  return aligned ? launch<T, kWidth>(call, expand, stream) : launch<T, 1>(call, expand, stream);
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
