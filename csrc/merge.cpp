// CPU backend of part merging: one pass, each byte read once and written once.
#include "merge.h"

#include <algorithm>

#include "clones.h"

namespace dsa {
namespace {

// Calls `work` with each (image, group) of the unit.
template <class Work>
DSA_FLAT void for_groups(const MergeTable& table, int64_t begin, int64_t end, Work work) {
  int64_t image = begin / table.groups;
  int group = static_cast<int>(begin % table.groups);
  for (int64_t index = begin; index < end; ++index) {
    work(index, image, group);
    if (++group == table.groups) group = 0, ++image;
  }
}

// One member of a group at element i: what the part contributes to the sum.
template <class T, bool kResidual, bool kRelu>
DSA_FLAT float member(const T* features, const T* residual, int64_t i) {
  float x = to_float(features[i]);
  if constexpr (kResidual) x += to_float(residual[i]);
  if constexpr (kRelu) x = rectified(x);
  return x;
}

// The members of a pair are read one after the other, a stretch at a time, with the first one's
// contribution kept in cache: hardware prefetches two linear streams (features, residual) well;
// with four that leap from part to part it is half as fast.
constexpr int64_t kStretch = 1024;

template <class T, bool kResidual, bool kRelu>
DSA_FLAT void merge(const MergeCall& call, int64_t begin, int64_t end) {
  const MergeTable& table = call.table;
  const T* features = static_cast<const T*>(call.features);
  const T* residual = static_cast<const T*>(call.residual);
  float sum[kStretch];
  for_groups(table, begin, end, [&](int64_t index, int64_t image, int group) DSA_FLAT_LAMBDA {
    const int64_t part = image * table.parts;
    for (int64_t start = 0; start < call.inner; start += kStretch) {
      const int64_t count = std::min(kStretch, call.inner - start);
      const int64_t first = (part + table.members[group][0]) * call.inner + start;
      const int64_t second = (part + table.members[group][1]) * call.inner + start;
      T* out = static_cast<T*>(call.out) + index * call.inner + start;
      if (table.count[group] == 1) {
        for (int64_t i = 0; i < count; ++i) {
          out[i] = from_float<T>(member<T, kResidual, kRelu>(features + first, residual + first, i));
        }
        continue;
      }
      for (int64_t i = 0; i < count; ++i) {
        sum[i] = member<T, kResidual, kRelu>(features + first, residual + first, i);
      }
      for (int64_t i = 0; i < count; ++i) {
        out[i] = from_float<T>(sum[i] + member<T, kResidual, kRelu>(features + second, residual + second, i));
      }
    }
  });
}

template <class T>
DSA_FLAT void merge_any(const MergeCall& call, int64_t begin, int64_t end) {
  if (call.residual) {
    call.relu ? merge<T, true, true>(call, begin, end) : merge<T, true, false>(call, begin, end);
  } else {
    call.relu ? merge<T, false, true>(call, begin, end) : merge<T, false, false>(call, begin, end);
  }
}

template <class T, bool kMasked, bool kResidual>
DSA_FLAT void expand(const MergeCall& call, int64_t begin, int64_t end) {
  const MergeTable& table = call.table;
  const int64_t inner = call.inner;
  for_groups(table, begin, end, [&](int64_t index, int64_t image, int group) DSA_FLAT_LAMBDA {
    const T* merged = static_cast<const T*>(call.merged) + index * inner;
    for (int k = 0; k < table.count[group]; ++k) {
      const int64_t offset = (image * table.parts + table.members[group][k]) * inner;
      const T* features = static_cast<const T*>(call.features) + offset;
      const T* residual = static_cast<const T*>(call.residual) + offset;
      T* __restrict out = static_cast<T*>(call.out) + offset;
      if constexpr (!kMasked) {
        std::copy_n(merged, inner, out);
      } else {
        for (int64_t i = 0; i < inner; ++i) {
          out[i] = keep(passes(member<T, kResidual, false>(features, residual, i)), merged[i]);
        }
      }
    }
  });
}

template <class T>
DSA_FLAT void expand_any(const MergeCall& call, int64_t begin, int64_t end) {
  if (!call.features) return expand<T, false, false>(call, begin, end);
  call.residual ? expand<T, true, true>(call, begin, end) : expand<T, true, false>(call, begin, end);
}

}  // namespace

DSA_CLONES void merge_cpu(const MergeCall& call, int64_t begin, int64_t end) {
  switch (call.type) {
    case Type::uint8: return;
    case Type::float16: return merge_any<Half>(call, begin, end);
    case Type::bfloat16: return merge_any<BFloat>(call, begin, end);
    case Type::float32: return merge_any<float>(call, begin, end);
  }
}

DSA_CLONES void expand_cpu(const MergeCall& call, int64_t begin, int64_t end) {
  switch (call.type) {
    case Type::uint8: return;
    case Type::float16: return expand_any<Half>(call, begin, end);
    case Type::bfloat16: return expand_any<BFloat>(call, begin, end);
    case Type::float32: return expand_any<float>(call, begin, end);
  }
}

}  // namespace dsa
