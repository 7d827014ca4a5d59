// The warp and its gradient on CUDA tensors.
#include "cuda.h"
#include "warp.h"

namespace dsa {
namespace {

void iuv_to_dsap_out(const Tensor& image, const Tensor& iuv, Tensor out, std::optional<Tensor> source,
                     bool mirror, std::vector<double> fill, std::vector<double> mean,
                     std::vector<double> std) {
  same_device(image, iuv);
  same_device(image, out);
  if (source) same_device(image, *source);
  const torch::stable::accelerator::DeviceGuard guard(image.get_device_index());
  const Channels channels(image.size(1), fill, mean, std);
  const WarpImages call = warp_images(image, iuv, out, source, channels, mirror);
  if (out.numel() != 0) check(warp_cuda(call, stream_of(image)));
}

Tensor iuv_to_dsap_backward(const Tensor& grad, const Tensor& source, int64_t height, int64_t width,
                            ScalarType dtype, std::vector<double> std) {
  STD_TORCH_CHECK(grad.dim() == 5, "grad must be [B, P, C, S, S]");
  same_device(grad, source);
  const torch::stable::accelerator::DeviceGuard guard(grad.get_device_index());
  Tensor image =
      torch::stable::new_empty(grad, {grad.size(0), grad.size(2), height, width}, std::make_optional(dtype));
  const Channels channels(grad.size(2), std::vector<double>(grad.size(2)), std, std);
  const WarpGradient call = warp_gradient(grad, source, image, channels);
  if (image.numel() != 0) check(warp_gradient_cuda(call, stream_of(grad)));
  return image;
}

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CUDA, m) {
  m.impl("iuv_to_dsap", TORCH_BOX(&dsa::warp_functional<&dsa::iuv_to_dsap_out>));
  m.impl("iuv_to_dsap_out", TORCH_BOX(&dsa::iuv_to_dsap_out));
  m.impl("iuv_to_dsap_backward", TORCH_BOX(&dsa::iuv_to_dsap_backward));
}
