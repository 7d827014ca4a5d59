// Batch assembly on CUDA tensors.
#include "batch.h"
#include "cuda.h"

namespace dsa {
namespace {

// An index or drawn tensor itself if it is on the device of `like`, else a copy there. The copy is made from
// pageable memory, which CUDA has read by the time the call returns: a pinned tensor would be read later,
// when the caller may have written to it again.
Tensor on_device(const Tensor& tensor, const Tensor& like) {
  if (tensor.is_cuda()) {
    same_device(like, tensor);
    return tensor;
  }
  const auto stream = static_cast<cudaStream_t>(stream_of(like));
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &capturing));
  STD_TORCH_CHECK(capturing == cudaStreamCaptureStatusNone,
                  "index and params must be on the device to be captured in a CUDA graph");
  const std::vector<int64_t> shape(tensor.sizes().begin(), tensor.sizes().end());
  Tensor copy = torch::stable::new_empty(like, shape, std::make_optional(tensor.scalar_type()));
  const size_t bytes = tensor.numel() * (tensor.scalar_type() == ScalarType::Long ? 8 : 4);
  const auto* first = static_cast<const char*>(tensor.const_data_ptr());
  const std::vector<char> pageable(first, first + bytes);
  check(cudaMemcpyAsync(copy.mutable_data_ptr(), pageable.data(), bytes, cudaMemcpyHostToDevice, stream));
  return copy;
}

void assemble_batch_out(const Tensor& images, std::optional<Tensor> iuv, const Tensor& index,
                        std::optional<Tensor> drawn, const Tensor& rows, const Tensor& columns, Tensor image,
                        std::optional<Tensor> dsap, bool augmented_dsap, bool mirror,
                        std::vector<double> fill, std::vector<double> mean, std::vector<double> std) {
  for (const Tensor& other : {rows, columns, image}) same_device(images, other);
  if (iuv) same_device(images, *iuv);
  if (dsap) same_device(images, *dsap);
  const torch::stable::accelerator::DeviceGuard guard(images.get_device_index());
  BatchCall call =
      batch_call(images, iuv, rows, columns, image, dsap, augmented_dsap, mirror, fill, mean, std);
  call.index = sample_index(index, call), call.drawn = sample_drawn(drawn, call);
  // Tensors in host memory are checked and copied. The kernel survives any values in the others.
  if (!index.is_cuda()) check_index(call);
  if (drawn && !drawn->is_cuda()) check_drawn(call);
  const Tensor index_there = on_device(index, images);
  const std::optional<Tensor> drawn_there =
      drawn ? std::make_optional(on_device(*drawn, images)) : std::nullopt;
  call.index = sample_index(index_there, call), call.drawn = sample_drawn(drawn_there, call);
  check(assemble_cuda(call, stream_of(images)));
}

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CUDA, m) {
  m.impl("assemble_batch_out", TORCH_BOX(&dsa::assemble_batch_out));
}
