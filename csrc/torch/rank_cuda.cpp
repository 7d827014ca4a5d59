// The ranking on CUDA tensors.
#include "cuda.h"
#include "rank.h"

namespace dsa {
namespace {

std::tuple<Tensor, Tensor> count_ranks(const Tensor& distances, const Tensor& members, const Tensor& first,
                                       const Tensor& count, const Tensor& query_cams,
                                       const Tensor& gallery_cams) {
  for (const Tensor* other : {&members, &first, &count, &query_cams, &gallery_cams}) {
    same_device(distances, *other);
  }
  const torch::stable::accelerator::DeviceGuard guard(distances.get_device_index());
  RankCall call = rank_call(distances, members, first, count, query_cams, gallery_cams);
  // The host needs the largest count for the shape of the result; it also checks first and count. They are
  // put side by side first: a copy from the device waits, and one is enough.
  const auto stream = static_cast<cudaStream_t>(stream_of(distances));
  std::vector<int64_t> host(2 * call.queries);
  if (call.queries != 0) {
    const size_t bytes = call.queries * sizeof(int64_t);
    Tensor both = torch::stable::new_empty(count, {2, call.queries});
    auto* const there = static_cast<int64_t*>(both.mutable_data_ptr());
    check(cudaMemcpyAsync(there, call.first, bytes, cudaMemcpyDeviceToDevice, stream));
    check(cudaMemcpyAsync(there + call.queries, call.count, bytes, cudaMemcpyDeviceToDevice, stream));
    check(cudaMemcpyAsync(host.data(), there, 2 * bytes, cudaMemcpyDeviceToHost, stream));
    check(cudaStreamSynchronize(stream));
  }
  auto result = rank_outputs(call, host.data(), host.data() + call.queries, count);
  if (call.queries != 0) check(rank_cuda(call, stream));
  return result;
}

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CUDA, m) { m.impl("count_ranks", TORCH_BOX(&dsa::count_ranks)); }
