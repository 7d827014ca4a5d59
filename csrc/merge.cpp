// CPU backend of part merging: one pass, each byte read once and written once.
#include "merge.h"

#include <algorithm>

namespace dsa {
namespace {

template <class T>
void merge(const MergeCall& call, int64_t index) {
  const MergeTable& table = call.table;
  const int64_t image = index / table.groups, group = index % table.groups;
  const T* parts = static_cast<const T*>(call.in) + image * table.parts * call.inner;
  T* out = static_cast<T*>(call.out) + index * call.inner;
  const T* first = parts + table.members[group][0] * call.inner;
  if (table.count[group] == 1) {
    std::copy_n(first, call.inner, out);
    return;
  }
  const T* second = parts + table.members[group][1] * call.inner;
  for (int64_t i = 0; i < call.inner; ++i) {
    out[i] = from_float<T>(to_float(first[i]) + to_float(second[i]));
  }
}

template <class T>
void expand(const MergeCall& call, int64_t index) {
  const MergeTable& table = call.table;
  const int64_t image = index / table.groups, group = index % table.groups;
  const T* in = static_cast<const T*>(call.in) + index * call.inner;
  T* parts = static_cast<T*>(call.out) + image * table.parts * call.inner;
  for (int member = 0; member < table.count[group]; ++member) {
    std::copy_n(in, call.inner, parts + table.members[group][member] * call.inner);
  }
}

}  // namespace

void merge_cpu(const MergeCall& call, int64_t index) {
  switch (call.type) {
    case Type::uint8: return;
    case Type::float16: return merge<Half>(call, index);
    case Type::bfloat16: return merge<BFloat>(call, index);
    case Type::float32: return merge<float>(call, index);
  }
}

void expand_cpu(const MergeCall& call, int64_t index) {
  switch (call.type) {
    case Type::uint8: return;
    case Type::float16: return expand<Half>(call, index);
    case Type::bfloat16: return expand<BFloat>(call, index);
    case Type::float32: return expand<float>(call, index);
  }
}

}  // namespace dsa
