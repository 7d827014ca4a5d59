// Tensors of the warp and of its gradient.
#pragma once

#include "../warp.h"
#include "tensors.h"

namespace dsa {

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

// The functional form, on top of a backend's in-place one.
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

}  // namespace dsa
