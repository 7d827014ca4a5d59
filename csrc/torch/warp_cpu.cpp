// The warp and its gradient on CPU tensors.
#include <algorithm>
#include <atomic>

#include "cpu.h"
#include "warp.h"

namespace dsa {
namespace {

void iuv_to_dsap_out(const Tensor& image, const Tensor& iuv, Tensor out, std::optional<Tensor> source,
                     bool mirror, std::vector<double> fill, std::vector<double> mean,
                     std::vector<double> std) {
  const Channels channels(image.size(1), fill, mean, std);
  const WarpImages call = warp_images(image, iuv, out, source, channels, mirror);
  if (out.numel() == 0) return;
  // Units of one image each; a batch smaller than the thread pool is cut by parts as well.
  const int64_t threads = torch::stable::get_num_threads();
  const int64_t cuts = call.batch >= threads ? 1 : (threads + call.batch - 1) / call.batch;
  const int64_t parts = (call.parts + cuts - 1) / cuts;
  std::atomic<bool> possible = true;
  for_each_unit(call.batch * cuts, [&](int64_t unit) {
    const int first = unit % cuts * parts;
    const int last = std::min<int64_t>(first + parts, call.parts);
    if (first < last && !warp_cpu(call, unit / cuts, first, last)) possible = false;
  });
  // For direct calls and compiled graphs; dsa_ext replaces it by an error that names a value.
  STD_TORCH_CHECK(possible,
                  "iuv must hold whole I and u, v in 0..1: divide U and V by 255, or pass the map as uint8");
}

Tensor iuv_to_dsap_backward(const Tensor& grad, const Tensor& source, int64_t height, int64_t width,
                            ScalarType dtype, std::vector<double> std) {
  STD_TORCH_CHECK(grad.dim() == 5, "grad must be [B, P, C, S, S]");
  Tensor image =
      torch::stable::new_empty(grad, {grad.size(0), grad.size(2), height, width}, std::make_optional(dtype));
  const Channels channels(grad.size(2), std::vector<double>(grad.size(2)), std, std);
  const WarpGradient call = warp_gradient(grad, source, image, channels);
  for_each_unit(call.batch, [&](int64_t image) { warp_gradient_cpu(call, image); });
  return image;
}

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CPU, m) {
  m.impl("iuv_to_dsap", TORCH_BOX(&dsa::warp_functional<&dsa::iuv_to_dsap_out>));
  m.impl("iuv_to_dsap_out", TORCH_BOX(&dsa::iuv_to_dsap_out));
  m.impl("iuv_to_dsap_backward", TORCH_BOX(&dsa::iuv_to_dsap_backward));
}
