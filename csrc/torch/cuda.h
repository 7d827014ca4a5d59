// Device, stream and errors of the CUDA backend.
#pragma once

#include <cuda_runtime.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include "tensors.h"

namespace dsa {

inline void* stream_of(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return stream;
}

inline void check(int error) { STD_CUDA_CHECK(static_cast<cudaError_t>(error)); }

inline void same_device(const Tensor& a, const Tensor& b) {
  STD_TORCH_CHECK(b.is_cuda() && a.get_device_index() == b.get_device_index(),
                  "all tensors must be on one CUDA device");
}

}  // namespace dsa
