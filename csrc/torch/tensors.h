// From tensors to the plain structs of csrc/: what the operations share. OPERATION.h has the rest, for both
// backends; OPERATION_cpu.cpp and OPERATION_cuda.cpp register them.
//
// dsa_ext has the schemas, checks what a user passes and words the errors; the checks here only keep a
// direct call of torch.ops.dsa_ext from accessing memory out of bounds.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <tuple>
#include <vector>

#include "../number.h"
#include "../parts.h"

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

}  // namespace dsa
