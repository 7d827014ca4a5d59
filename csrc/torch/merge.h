// Tensors of merging and of its gradient.
#pragma once

#include "../merge.h"
#include "tensors.h"

namespace dsa {

// The data of an optional tensor, or null; it must be contiguous and of the same kind as `like`.
inline const void* data_like(const std::optional<Tensor>& tensor, const Tensor& like, const char* name) {
  if (!tensor) return nullptr;
  STD_TORCH_CHECK(tensor->is_contiguous() && tensor->scalar_type() == like.scalar_type() &&
                      tensor->numel() == like.numel() && tensor->size(1) == like.size(1) &&
                      tensor->get_device_index() == like.get_device_index(),
                  name, " must be contiguous and like the features");
  return tensor->const_data_ptr();
}

// What merging and its gradient share: contiguous tensors of parts and of groups.
inline MergeCall merge_call(const Tensor& parts, const Tensor& groups, bool front_back) {
  MergeCall call{};
  call.table = merge_table(front_back);
  STD_TORCH_CHECK(parts.dim() >= 2 && parts.size(1) == call.table.parts, "expected [B, ", call.table.parts,
                  ", ...]");
  STD_TORCH_CHECK(groups.dim() >= 2 && groups.size(1) == call.table.groups, "expected [B, ",
                  call.table.groups, ", ...]");
  STD_TORCH_CHECK(parts.is_contiguous() && groups.is_contiguous(), "tensors must be contiguous");
  STD_TORCH_CHECK(
      parts.get_device_index() == groups.get_device_index() && parts.is_cuda() == groups.is_cuda(),
      "tensors must be on one device");
  call.type = type_of(parts, "features");
  STD_TORCH_CHECK(call.type != Type::uint8 && parts.scalar_type() == groups.scalar_type(),
                  "tensors must be floating and of one type");
  call.batch = parts.size(0);
  call.inner = call.batch ? parts.numel() / call.batch / call.table.parts : 0;
  STD_TORCH_CHECK(groups.numel() == call.batch * call.table.groups * call.inner,
                  "tensors differ in more than their parts");
  return call;
}

inline std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  return tensor ? std::make_optional(torch::stable::contiguous(*tensor)) : std::nullopt;
}

// An empty tensor of in's kind with `parts` in place of dimension 1.
inline Tensor with_parts(const Tensor& in, int64_t parts) {
  std::vector<int64_t> shape(in.sizes().begin(), in.sizes().end());
  STD_TORCH_CHECK(shape.size() >= 2, "expected [B, P, ...]");
  shape[1] = parts;
  return torch::stable::new_empty(in, shape);
}

// merge_parts into `out`. Here and below kRun does the work of a call on its backend.
template <auto kRun>
void merge_into(const Tensor& features, std::optional<Tensor> residual, Tensor out, bool front_back,
                bool relu) {
  MergeCall call = merge_call(features, out, front_back);
  call.features = features.const_data_ptr();
  call.residual = data_like(residual, features, "residual");
  call.relu = relu, call.out = out.mutable_data_ptr();
  if (out.numel() != 0) kRun(call, false, out);
}

template <auto kRun>
Tensor merge_functional(const Tensor& features, std::optional<Tensor> residual, bool front_back, bool relu) {
  Tensor out = with_parts(features, merge_table(front_back).groups);
  merge_into<kRun>(torch::stable::contiguous(features), contiguous(residual), out, front_back, relu);
  return out;
}

// Without features the gradient of a plain sum; with them, of ReLU(features + residual) summed.
template <auto kRun>
Tensor expand_functional(const Tensor& merged, std::optional<Tensor> features, std::optional<Tensor> residual,
                         bool front_back) {
  const Tensor groups = torch::stable::contiguous(merged);
  const std::optional<Tensor> x = contiguous(features), r = contiguous(residual);
  Tensor out = with_parts(groups, merge_table(front_back).parts);
  MergeCall call = merge_call(out, groups, front_back);
  STD_TORCH_CHECK(features || !residual, "a residual needs features");
  call.features = data_like(x, out, "features"), call.residual = data_like(r, out, "residual");
  call.merged = groups.const_data_ptr(), call.out = out.mutable_data_ptr();
  if (out.numel() != 0) kRun(call, true, out);
  return out;
}

}  // namespace dsa
