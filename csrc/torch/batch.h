// Tensors of batch assembly.
#pragma once

#include "../batch.h"
#include "tensors.h"

namespace dsa {

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

// The call without index and drawn. The tables must be resize_table's: the CPU library
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

// Checks of the tables, index and drawn, for those that are in host memory.
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

}  // namespace dsa
