// Tensors of the ranking.
#pragma once

#include "../rank.h"
#include "tensors.h"

namespace dsa {

inline const int64_t* rank_integers(const Tensor& tensor, int64_t length, const char* name) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Long && tensor.dim() == 1 && tensor.size(0) == length &&
                      tensor.is_contiguous(),
                  name, " must be a contiguous int64 [", length, "]");
  return static_cast<const int64_t*>(tensor.const_data_ptr());
}

// The call without its outputs.
inline RankCall rank_call(const Tensor& distances, const Tensor& members, const Tensor& first,
                          const Tensor& count, const Tensor& query_cams, const Tensor& gallery_cams) {
  STD_TORCH_CHECK(distances.dim() == 2, "distances must be [T, G]");
  RankCall call{};
  call.queries = distances.size(0), call.gallery = distances.size(1);
  STD_TORCH_CHECK(call.gallery <= 1 || distances.stride(1) == 1, "distances must have unit stride along G");
  STD_TORCH_CHECK(call.gallery < 1 << 30, "the gallery must have fewer than 2^30 images");
  const ScalarType type = distances.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double,
                  "distances must be float32 or float64");
  call.is_double = type == ScalarType::Double;
  call.distances = distances.const_data_ptr(), call.row_stride = distances.stride(0);
  call.members = rank_integers(members, call.gallery, "members");
  call.first = rank_integers(first, call.queries, "first");
  call.count = rank_integers(count, call.queries, "count");
  call.query_cams = rank_integers(query_cams, call.queries, "query_cams");
  call.gallery_cams = rank_integers(gallery_cams, call.gallery, "gallery_cams");
  return call;
}

// Checks first and count, [queries] in host memory, and makes the outputs (ranks, found).
inline std::tuple<Tensor, Tensor> rank_outputs(RankCall& call, const int64_t* first, const int64_t* count,
                                               const Tensor& like) {
  call.most = 1;
  for (int64_t i = 0; i < call.queries; ++i) {
    STD_TORCH_CHECK(
        first[i] >= 0 && count[i] >= 0 && count[i] <= call.gallery && first[i] <= call.gallery - count[i],
        "first and count must stay within the ", call.gallery, " members, but query ", i,
        " has first = ", first[i], " and count = ", count[i]);
    if (count[i] > call.most) call.most = count[i];
  }
  call.most = (call.most + 3) / 4 * 4;  // rows of whole 32-byte sectors
  Tensor ranks = torch::stable::new_empty(like, {call.queries, call.most});
  Tensor found = torch::stable::new_empty(like, {call.queries});
  call.ranks = static_cast<int64_t*>(ranks.mutable_data_ptr());
  call.found = static_cast<int64_t*>(found.mutable_data_ptr());
  return {ranks, found};
}

}  // namespace dsa
