// Part merging (section 3.2 of the paper): the features of parts that form a group are added,
// left and right first (24 -> 13), front and back next (13 -> 8). Backward, the gradient of a
// group goes to each of its members.
#pragma once

#include <cstdint>

#include "number.h"
#include "parts.h"

namespace dsa {

// members[g][0..count[g]-1]: the parts of group g, ascending. No group has more than two.
struct MergeTable {
  int parts, groups;
  uint8_t members[kMirrorParts][2];
  uint8_t count[kMirrorParts];
};

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

// One contiguous tensor [batch, parts, inner] against one [batch, groups, inner].
struct MergeCall {
  MergeTable table;
  int64_t batch, inner;
  Type type;  // floating; sums are taken in float32 and rounded once
  const void* in;
  void* out;
};

// Unit of work of the CPU backend: group `index` = image * groups + group.
void merge_cpu(const MergeCall& call, int64_t index);   // in: parts, out: groups
void expand_cpu(const MergeCall& call, int64_t index);  // in: groups, out: parts

// `stream` is a cudaStream_t. The return value is a cudaError_t (0 is success).
int merge_cuda(const MergeCall& call, void* stream);
int expand_cuda(const MergeCall& call, void* stream);

}  // namespace dsa
