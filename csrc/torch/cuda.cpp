// The CUDA library `dsa_ext._C_cuda`: dispatch to the CUDA backend on the caller's device and
// stream. A library of its own, so that one build also serves a torch without CUDA.
#include <Python.h>
#include <cuda_runtime.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "calls.h"

namespace dsa {
namespace {

void* stream_of(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

void check(int error) { STD_CUDA_CHECK(static_cast<cudaError_t>(error)); }

void same_device(const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(b.is_cuda() && a.get_device_index() == b.get_device_index(),
                  "all tensors must be on one CUDA device");
}

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

void run_merge(const MergeCall& call, bool expand, const Tensor& out) {
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  check((expand ? &expand_cuda : &merge_cuda)(call, stream_of(out)));
}

// An index or drawn tensor itself where it is on the device of `like`, or a copy there of one in host
// memory. The copy is made from pageable memory, which CUDA has read when it returns: a pinned tensor would
// be read later, when the caller may have written to it again.
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
  // What is in host memory is checked and copied; of the rest the kernel survives anything.
  if (!index.is_cuda()) check_index(call);
  if (drawn && !drawn->is_cuda()) check_drawn(call);
  const Tensor index_there = on_device(index, images);
  const std::optional<Tensor> drawn_there =
      drawn ? std::make_optional(on_device(*drawn, images)) : std::nullopt;
  call.index = sample_index(index_there, call), call.drawn = sample_drawn(drawn_there, call);
  check(assemble_cuda(call, stream_of(images)));
}

std::tuple<Tensor, Tensor> count_ranks(const Tensor& distances, const Tensor& members, const Tensor& first,
                                       const Tensor& count, const Tensor& query_cams,
                                       const Tensor& gallery_cams) {
  for (const Tensor* other : {&members, &first, &count, &query_cams, &gallery_cams}) {
    same_device(distances, *other);
  }
  const torch::stable::accelerator::DeviceGuard guard(distances.get_device_index());
  RankCall call = rank_call(distances, members, first, count, query_cams, gallery_cams);
  // The host needs the largest count for the shape of the result, and checks both while at it.
  const auto stream = static_cast<cudaStream_t>(stream_of(distances));
  std::vector<int64_t> host(2 * call.queries);
  if (call.queries != 0) {
    const size_t bytes = call.queries * sizeof(int64_t);
    check(cudaMemcpyAsync(host.data(), call.first, bytes, cudaMemcpyDeviceToHost, stream));
    check(cudaMemcpyAsync(host.data() + call.queries, call.count, bytes, cudaMemcpyDeviceToHost, stream));
    check(cudaStreamSynchronize(stream));
  }
  auto result = rank_outputs(call, host.data(), host.data() + call.queries, count);
  if (call.queries != 0) check(rank_cuda(call, stream));
  return result;
}

constexpr auto iuv_to_dsap = &warp_functional<&iuv_to_dsap_out>;

}  // namespace
}  // namespace dsa

STABLE_TORCH_LIBRARY_IMPL(dsa_ext, CUDA, m) {
  m.impl("iuv_to_dsap", TORCH_BOX(dsa::iuv_to_dsap));
  m.impl("iuv_to_dsap_out", TORCH_BOX(&dsa::iuv_to_dsap_out));
  m.impl("iuv_to_dsap_backward", TORCH_BOX(&dsa::iuv_to_dsap_backward));
  m.impl("merge_parts", TORCH_BOX(&dsa::merge_functional<&dsa::run_merge>));
  m.impl("merge_parts_out", TORCH_BOX(&dsa::merge_into<&dsa::run_merge>));
  m.impl("expand_parts", TORCH_BOX(&dsa::expand_functional<&dsa::run_merge>));
  m.impl("assemble_batch_out", TORCH_BOX(&dsa::assemble_batch_out));
  m.impl("count_ranks", TORCH_BOX(&dsa::count_ranks));
}

PyMODINIT_FUNC PyInit__C_cuda() {
  static PyModuleDef module = {
      PyModuleDef_HEAD_INIT, "_C_cuda", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  return PyModule_Create(&module);
}
