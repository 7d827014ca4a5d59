// Merging and its gradient on CUDA tensors.
#include "cuda.h"
#include "merge.h"

namespace dsa {
namespace {

void run_merge(const MergeCall& call, bool expand, const Tensor& out) {
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  check((expand ? &expand_cuda : &merge_cuda)(call, stream_of(out)));
}

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CUDA, m) {
  m.impl("merge_parts", TORCH_BOX(&dsa::merge_functional<&dsa::run_merge>));
  m.impl("merge_parts_out", TORCH_BOX(&dsa::merge_into<&dsa::run_merge>));
  m.impl("expand_parts", TORCH_BOX(&dsa::expand_functional<&dsa::run_merge>));
}
