// Merging and its gradient on CPU tensors.
#include <algorithm>

#include "merge.h"

namespace dsa {
namespace {

// Below this many elements a thread costs more than it brings.
constexpr int64_t kGrain = 32768;

void run_merge(const MergeCall& call, bool expand, const Tensor&) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, call.inner));
  const auto work = expand ? &expand_cpu : &merge_cpu;
  torch::stable::parallel_for(0, call.batch * call.table.groups, grain,
                              [&](int64_t begin, int64_t end) { work(call, begin, end); });
}

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CPU, m) {
  m.impl("merge_parts", TORCH_BOX(&dsa::merge_functional<&dsa::run_merge>));
  m.impl("merge_parts_out", TORCH_BOX(&dsa::merge_into<&dsa::run_merge>));
  m.impl("expand_parts", TORCH_BOX(&dsa::expand_functional<&dsa::run_merge>));
}
