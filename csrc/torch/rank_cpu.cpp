// The ranking on CPU tensors.
#include "cpu.h"
#include "rank.h"

namespace dsa {
namespace {

void check_members(const RankCall& call) {
  for (int64_t i = 0; i < call.gallery; ++i) {
    STD_TORCH_CHECK(call.members[i] >= 0 && call.members[i] < call.gallery, "members must be 0..",
                    call.gallery - 1, ", found ", call.members[i]);
  }
  for (int64_t query = 0; query < call.queries; ++query) {
    const int64_t* own = call.members + call.first[query];
    for (int64_t i = 1; i < call.count[query]; ++i) {
      STD_TORCH_CHECK(own[i - 1] < own[i], "members must ascend inside an identity, found ", own[i - 1],
                      " before ", own[i]);
    }
  }
}

std::tuple<Tensor, Tensor> count_ranks(const Tensor& distances, const Tensor& members, const Tensor& first,
                                       const Tensor& count, const Tensor& query_cams,
                                       const Tensor& gallery_cams) {
  RankCall call = rank_call(distances, members, first, count, query_cams, gallery_cams);
  auto result = rank_outputs(call, call.first, call.count, count);
  check_members(call);
  for_each_unit(call.queries, [&](int64_t query) { rank_cpu(call, query); });
  return result;
}

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CPU, m) { m.impl("count_ranks", TORCH_BOX(&dsa::count_ranks)); }
