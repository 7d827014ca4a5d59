// From tensors to the plain structs of csrc/: shared by the CPU and the CUDA library.
//
// dsa_ext checks what a user passes and words the errors; the checks here only keep a direct call
// of torch.ops.dsa_ext from touching foreign memory.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../augment.h"
#include "../batch.h"
#include "../merge.h"
#include "../rank.h"
#include "../warp.h"

namespace dsa {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Type type_of(ScalarType type, const char* name) {
  switch (type) {
    case ScalarType::Byte: return Type::uint8;
    case ScalarType::Half: return Type::float16;
    case ScalarType::BFloat16: return Type::bfloat16;
    case ScalarType::Float: return Type::float32;
    default: STD_TORCH_CHECK(false, name, " must be uint8, float16, bfloat16 or float32");
  }
}
inline Type type_of(const Tensor& tensor, const char* name) { return type_of(tensor.scalar_type(), name); }

template <size_t kDimensions>
void copy_strides(const Tensor& tensor, int64_t (&stride)[kDimensions]) {
  for (size_t d = 0; d < kDimensions; ++d) stride[d] = tensor.stride(d);
}

// The constants per channel that a call points to; they live as long as the call does.
struct Channels {
  std::vector<float> fill;
  std::vector<Normalise> normalise;

  Channels(int64_t channels, const std::vector<double>& fill_, const std::vector<double>& mean,
           const std::vector<double>& std)
      : fill(channels), normalise(channels) {
    STD_TORCH_CHECK(fill_.size() == fill.size(), "fill must have one value a channel");
    STD_TORCH_CHECK(mean.size() == std.size(), "mean and std must have the same length");
    STD_TORCH_CHECK(mean.empty() || mean.size() == fill.size(), "mean must be one a channel");
    for (size_t c = 0; c < fill.size(); ++c) {
      fill[c] = static_cast<float>(fill_[c]);
      if (!mean.empty()) {
        normalise[c] = {true, static_cast<float>(mean[c]), static_cast<float>(std[c])};
      }
    }
  }
};

inline void check_parts(int64_t parts, int64_t rows, int64_t columns) {
  STD_TORCH_CHECK(parts == kParts || parts == kMirrorParts || parts == kBodyParts,
                  "parts must be 24, 13 or 8");
  STD_TORCH_CHECK(rows == columns && rows >= 1 && rows <= 256, "part images must be [S, S], S in 1..256");
}

inline WarpImages warp_images(const Tensor& image, const Tensor& iuv, const Tensor& out,
                              const std::optional<Tensor>& source, const Channels& channels, bool mirror) {
  STD_TORCH_CHECK(image.dim() == 4 && iuv.dim() == 4 && out.dim() == 5, "wrong dimensions");
  STD_TORCH_CHECK(iuv.size(0) == image.size(0) && iuv.size(1) == 3 && iuv.size(2) == image.size(2) &&
                      iuv.size(3) == image.size(3),
                  "iuv must be [B, 3, H, W] of the image's size");
  const int64_t size = out.size(4), parts = out.size(1);
  check_parts(parts, out.size(3), size);
  STD_TORCH_CHECK(out.size(0) == image.size(0) && out.size(2) == image.size(1),
                  "out must be [B, P, C, S, S]");
  STD_TORCH_CHECK(image.size(2) * image.size(3) <= 1 << 30, "the image has more than 2^30 pixels");

  WarpImages call{};
  call.batch = image.size(0), call.channels = image.size(1);
  call.height = image.size(2), call.width = image.size(3);
  call.size = size, call.parts = parts, call.mirror = mirror;
  call.image = image.const_data_ptr(), call.image_type = type_of(image, "image");
  call.iuv = iuv.const_data_ptr();
  call.iuv_is_float = iuv.scalar_type() == ScalarType::Float;
  STD_TORCH_CHECK(call.iuv_is_float || iuv.scalar_type() == ScalarType::Byte, "iuv must be uint8 or float32");
  call.out = out.mutable_data_ptr(), call.out_type = type_of(out, "out");
  STD_TORCH_CHECK(call.out_type != Type::uint8 || call.image_type == Type::uint8,
                  "uint8 output needs a uint8 image");
  if (source) {
    STD_TORCH_CHECK(source->scalar_type() == ScalarType::Int && source->is_contiguous() &&
                        source->numel() == call.batch * parts * size * size,
                    "source must be a contiguous int32 [B, P, S, S]");
    call.source = static_cast<int32_t*>(source->mutable_data_ptr());
  }
  copy_strides(image, call.image_stride);
  copy_strides(iuv, call.iuv_stride);
  copy_strides(out, call.out_stride);
  call.fill = channels.fill.data(), call.normalise = channels.normalise.data();
  return call;
}

inline WarpGradient warp_gradient(const Tensor& grad, const Tensor& source, const Tensor& grad_image,
                                  const Channels& channels) {
  STD_TORCH_CHECK(grad.dim() == 5 && source.dim() == 4 && source.is_contiguous() &&
                      source.scalar_type() == ScalarType::Int,
                  "wrong gradient or source");
  check_parts(grad.size(1), grad.size(3), grad.size(4));
  STD_TORCH_CHECK(source.size(0) == grad.size(0) && source.size(1) == grad.size(1) &&
                      source.size(2) == grad.size(3) && source.size(3) == grad.size(4),
                  "source and gradient differ in shape");
  STD_TORCH_CHECK(type_of(grad, "grad") != Type::uint8 && type_of(grad_image, "image") != Type::uint8,
                  "gradients are floating");
  STD_TORCH_CHECK(grad_image.size(2) * grad_image.size(3) <= 1 << 30, "more than 2^30 pixels");
  WarpGradient call{};
  call.batch = grad.size(0), call.parts = grad.size(1), call.channels = grad.size(2);
  call.size = grad.size(3);
  call.height = grad_image.size(2), call.width = grad_image.size(3);
  call.grad = grad.const_data_ptr(), call.grad_type = type_of(grad, "grad");
  call.source = static_cast<const int32_t*>(source.const_data_ptr());
  call.grad_image = grad_image.mutable_data_ptr();
  call.image_type = type_of(grad_image, "image");
  copy_strides(grad, call.grad_stride);
  call.normalise = channels.normalise.data();
  return call;
}

// Where the data of an optional tensor lies; it must be contiguous and of the same kind as `like`.
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

// ---- assemble_batch ----

// [N, h, w, 3] of uint8, each image contiguous; the elements from one image to the next.
inline int64_t stored_stride(const Tensor& stored, const char* name) {
  STD_TORCH_CHECK(stored.dim() == 4 && stored.size(3) == kColours && stored.scalar_type() == ScalarType::Byte,
                  name, " must be uint8 [N, h, w, 3]");
  const int64_t row = kColours * stored.size(2);
  STD_TORCH_CHECK(stored.size(1) >= 1 && stored.size(2) >= 1 && stored.stride(3) == 1 &&
                      (stored.size(2) == 1 || stored.stride(2) == kColours) &&
                      (stored.size(1) == 1 || stored.stride(1) == row),
                  name, " must be contiguous within each image");
  STD_TORCH_CHECK(stored.size(1) * row <= 1 << 30, name, ": an image has more than 2^30 bytes");
  return stored.stride(0);
}

// The table of one dimension, and how many taps it has.
inline int resize_taps_of(const Tensor& table, int64_t out, const char* name) {
  STD_TORCH_CHECK(table.dim() == 2 && table.size(0) == out && table.size(1) >= 2 && table.is_contiguous() &&
                      table.scalar_type() == ScalarType::Int,
                  name, " must be a contiguous int32 [", out, ", 1 + taps]");
  return static_cast<int>(table.size(1)) - 1;
}

// All but index, drawn and what they say of the samples. The tables must be resize_table's: the CPU library
// checks that they stay inside of an image, the CUDA library cannot.
inline BatchCall batch_call(const Tensor& images, const std::optional<Tensor>& iuv, const Tensor& rows,
                            const Tensor& columns, const Tensor& image, const std::optional<Tensor>& dsap,
                            bool augmented_dsap, bool mirror, const std::vector<double>& fill,
                            const std::vector<double>& mean, const std::vector<double>& std) {
  BatchCall call{};
  call.images_stride = stored_stride(images, "images");
  call.images = static_cast<const uint8_t*>(images.const_data_ptr());
  call.images_stored = images.size(0);
  call.stored_height = images.size(1), call.stored_width = images.size(2);
  STD_TORCH_CHECK(iuv.has_value() == dsap.has_value(), "iuv and dsap must be given together");
  STD_TORCH_CHECK(image.dim() == 4 && image.size(1) == kColours, "image must be [B, 3, H, W]");
  call.batch = image.size(0), call.height = image.size(2), call.width = image.size(3);
  call.row_taps = resize_taps_of(rows, call.height, "rows");
  call.column_taps = resize_taps_of(columns, call.width, "columns");
  call.rows = static_cast<const int32_t*>(rows.const_data_ptr());
  call.columns = static_cast<const int32_t*>(columns.const_data_ptr());
  call.type = type_of(image, "image");
  STD_TORCH_CHECK(call.type != Type::uint8, "image must be floating");
  call.image = image.mutable_data_ptr();
  copy_strides(image, call.image_stride);
  call.augmented_dsap = augmented_dsap, call.mirror = mirror;
  if (iuv) {
    call.iuv_stride = stored_stride(*iuv, "iuv");
    for (int d = 0; d < 3; ++d) STD_TORCH_CHECK(iuv->size(d) == images.size(d), "iuv must be like images");
    call.iuv = static_cast<const uint8_t*>(iuv->const_data_ptr());
    STD_TORCH_CHECK(dsap->dim() == 5 && dsap->size(0) == call.batch && dsap->size(2) == kColours &&
                        dsap->scalar_type() == image.scalar_type(),
                    "dsap must be [B, P, 3, S, S] of image's type");
    check_parts(dsap->size(1), dsap->size(3), dsap->size(4));
    call.parts = dsap->size(1), call.size = dsap->size(4);
    call.dsap = dsap->mutable_data_ptr();
    copy_strides(*dsap, call.dsap_stride);
  }
  const Channels channels(kColours, fill, mean, std);
  for (int c = 0; c < kColours; ++c) {
    call.fill[c] = channels.fill[c], call.normalise[c] = channels.normalise[c];
  }
  return call;
}

inline const int64_t* sample_index(const Tensor& index, const BatchCall& call) {
  STD_TORCH_CHECK(index.dim() == 1 && index.size(0) == call.batch && index.is_contiguous() &&
                      index.scalar_type() == ScalarType::Long,
                  "index must be a contiguous int64 [", call.batch, "]");
  return static_cast<const int64_t*>(index.const_data_ptr());
}

inline const Augmentation* sample_drawn(const std::optional<Tensor>& drawn, const BatchCall& call) {
  if (!drawn) return nullptr;
  constexpr int64_t kColumns = sizeof(Augmentation) / sizeof(int32_t);
  STD_TORCH_CHECK(drawn->dim() == 2 && drawn->size(0) == call.batch && drawn->size(1) == kColumns &&
                      drawn->is_contiguous() && drawn->scalar_type() == ScalarType::Int,
                  "params must be a contiguous int32 [", call.batch, ", 8]");
  return static_cast<const Augmentation*>(drawn->const_data_ptr());
}

// What the tables, index and drawn may be, where they are in host memory.
inline void check_table(const int32_t* table, int taps, int64_t out, int in, const char* name) {
  for (int64_t i = 0; i < out; ++i) {
    const int32_t first = table[i * (1 + taps)];
    STD_TORCH_CHECK(first >= 0 && first <= in - taps, name, " must stay within 0..", in - 1, ", but entry ",
                    i, " begins at ", first);
  }
}
inline void check_index(const BatchCall& call) {
  for (int i = 0; i < call.batch; ++i) {
    STD_TORCH_CHECK(call.index[i] >= 0 && call.index[i] < call.images_stored, "index must be 0..",
                    call.images_stored - 1, ", but sample ", i, " has ", call.index[i]);
  }
}
inline void check_drawn(const BatchCall& call) {
  constexpr int kFar = 1 << 20;
  for (int i = 0; i < call.batch && call.drawn; ++i) {
    const Augmentation& a = call.drawn[i];
    STD_TORCH_CHECK(a.shift_y >= -kFar && a.shift_y <= kFar && a.shift_x >= -kFar && a.shift_x <= kFar,
                    "params: the shift of sample ", i, " is beyond 2^20: ", a.shift_y, ", ", a.shift_x);
    STD_TORCH_CHECK(a.top >= 0 && a.top <= a.bottom && a.bottom <= call.height && a.left >= 0 &&
                        a.left <= a.right && a.right <= call.width,
                    "params: the erased box of sample ", i, " must lie in the ", call.height, "x", call.width,
                    " image, but is rows ", a.top, "..", a.bottom, ", columns ", a.left, "..", a.right);
  }
}

// ---- count_ranks ----

inline const int64_t* rank_integers(const Tensor& tensor, int64_t length, const char* name) {
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Long && tensor.dim() == 1 && tensor.size(0) == length &&
                      tensor.is_contiguous(),
                  name, " must be a contiguous int64 [", length, "]");
  return static_cast<const int64_t*>(tensor.const_data_ptr());
}

// All but the outputs.
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

// The functional form of each operation, on top of a backend's in-place one.
template <auto kWarp>
std::tuple<Tensor, Tensor> warp_functional(const Tensor& image, const Tensor& iuv, int64_t size,
                                           int64_t parts, bool mirror, ScalarType dtype, bool return_source,
                                           std::vector<double> fill, std::vector<double> mean,
                                           std::vector<double> std) {
  STD_TORCH_CHECK(image.dim() == 4, "image must be [B, C, H, W]");
  Tensor out = torch::stable::new_empty(image, {image.size(0), parts, image.size(1), size, size},
                                        std::make_optional(dtype));
  std::vector<int64_t> map{0};
  if (return_source) map = {image.size(0), parts, size, size};
  Tensor source = torch::stable::new_empty(image, map, std::make_optional(ScalarType::Int));
  kWarp(image, iuv, out, return_source ? std::make_optional(source) : std::nullopt, mirror, fill, mean, std);
  return {out, source};
}

// kRun takes the call and does the work on its backend. merge_parts into `out`:
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
