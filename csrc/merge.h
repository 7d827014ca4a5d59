// Part merging (section 3.2 of the paper): the features of parts that form a group are added,
// left and right first (24 -> 13), front and back next (13 -> 8). The same pass can first finish a
// residual block: the shortcut is added and ReLU applied, part by part.
// Backward, the gradient of a group goes to each of its members, except where ReLU held one back.
#pragma once

#include "number.h"
#include "parts.h"

namespace dsa {

// members[g][0..count[g]-1]: the parts of group g, ascending. No group has more than two.
struct MergeTable {
  int parts, groups;
  uint8_t members[kMirrorParts][2];
  uint8_t count[kMirrorParts];
};

// Contiguous tensors: those of parts are [batch, parts, inner], those of groups [batch, groups, inner].
struct MergeCall {
  MergeTable table;
  int64_t batch, inner;
  Type type;             // floating, of all of them; arithmetic is in float32, rounded once
  const void* features;  // of parts. merge: what is merged. expand: null, or what ReLU was applied to
  const void* residual;  // of parts: added to the features before ReLU; or null
  bool relu;             // merge: apply it
  const void* merged;    // of groups; expand: what is spread
  void* out;             // merge: of groups; expand: of parts
};

// What a part contributes. A NaN stays one.
DSA_HOST_DEVICE float rectified(float x) { return x < 0.f ? 0.f : x; }
// Whether ReLU lets a gradient through, as in torch: not at 0, but at a NaN.
DSA_HOST_DEVICE bool passes(float x) { return !(x <= 0.f); }

#if !defined(__CUDACC_RTC__)  // NVRTC takes no host functions
constexpr MergeTable merge_table(bool front_back) {
  MergeTable table{};
  table.parts = front_back ? kMirrorParts : kParts;
  table.groups = front_back ? kBodyParts : kMirrorParts;
  for (int part = 0; part < table.parts; ++part) {
    const int group = front_back ? kMirrorGroup[part].body_group : kPart[part].mirror_group;
    table.members[group][table.count[group]++] = static_cast<uint8_t>(part);
  }
  return table;
}

// Unit of work of the CPU backend: the groups [begin, end) of image * groups + group.
void merge_cpu(const MergeCall& call, int64_t begin, int64_t end);
void expand_cpu(const MergeCall& call, int64_t begin, int64_t end);

// `stream` is a cudaStream_t. The return value is a cudaError_t (0 is success).
int merge_cuda(const MergeCall& call, void* stream);
int expand_cuda(const MergeCall& call, void* stream);
#endif

}  // namespace dsa
