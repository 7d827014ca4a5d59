// CUDA backend of the ranking: launch configuration. The kernel is in rank.cuh.
#include "rank.h"

#include <cuda_runtime.h>

#include <limits>

#include "rank.cuh"

namespace dsa {
namespace {

template <class T>
int launch(const RankCall& call, cudaStream_t stream) {
  const RankArguments<T> a{
      call.gallery,    static_cast<const T*>(call.distances),
      call.row_stride, call.members,
      call.first,      call.count,
      call.query_cams, call.gallery_cams,
      call.most,       call.ranks,
      call.found,      std::numeric_limits<T>::infinity(),
  };
  if (call.queries > std::numeric_limits<int>::max()) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(call.queries));
  constexpr size_t kSharedBytes = RankShared<T>::kBytes;
  rank_kernel<T><<<grid, kRankThreads, kSharedBytes, stream>>>(a);
  return cudaGetLastError();
}

}  // namespace

int rank_cuda(const RankCall& call, void* stream) {
  return call.is_double ? launch<double>(call, static_cast<cudaStream_t>(stream))
                        : launch<float>(call, static_cast<cudaStream_t>(stream));
}

}  // namespace dsa
