"""The CUDA backend behind CPU tensors: the kernels of csrc/*.cu under tests/simt, and csrc/torch/*_cuda.cpp.

    python tests/dsa_ext/cuda_on_cpu.py [--quick]     the self-test's table on it

Prints JSON: what failed, how many checks ran, and the lines of tests/simt/launches.h.
"""

import ctypes
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

CUDA_H = """
#pragma once
#include <cuda_runtime.h>
#include <cstring>
#include "tensors.h"

namespace dsa {
inline void* stream_of(const Tensor&) { return nullptr; }
inline void check(int error) { STD_TORCH_CHECK(error == cudaSuccess, "CUDA error ", error); }
inline void same_device(const Tensor&, const Tensor&) {}
}  // namespace dsa

inline cudaError_t copy_now(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  return std::memcpy(to, from, bytes), cudaSuccess;
}
inline cudaError_t no_capture(cudaStream_t, cudaStreamCaptureStatus* status) {
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
inline cudaError_t no_wait(cudaStream_t) { return cudaSuccess; }
#define cudaMemcpyAsync copy_now
#define cudaStreamIsCapturing no_capture
#define cudaStreamSynchronize no_wait
"""
"""csrc/torch/cuda.h where there is neither a device nor a stream."""

GUARD = "  const torch::stable::accelerator::DeviceGuard guard("


def glue() -> dict[str, str]:
    """csrc/torch/*_cuda.cpp, registered for CPU tensors in place of csrc/torch/*_cpu.cpp."""
    texts = {"cuda.h": CUDA_H}
    for path in sorted((ROOT / "csrc/torch").glob("*_cuda.cpp")):
        lines = [line for line in path.read_text().splitlines() if not line.startswith(GUARD)]
        operation = path.stem.removesuffix("_cuda")
        text = "\n".join(lines).replace(f'"{operation}.h"', f'"torch/{operation}.h"')
        text = text.replace('"cuda.h"', '"./cuda.h"')
        if "(dsa_ext, CUDA, m)" not in text:
            raise ValueError(f"{path.name} registers nothing for CUDA")
        texts[path.name] = text.replace("(dsa_ext, CUDA, m)", "(dsa_ext, CPU, m)")
    return texts


def build() -> Path:
    """The library; raises RuntimeError with the compiler's words."""
    import harness
    from torch.utils import cpp_extension

    abi = "-DTORCH_TARGET_VERSION=0x020a000000000000"
    include = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    libraries = [f"-L{path}" for path in cpp_extension.library_paths()]
    flags = [abi, *include, f"-I{ROOT}/csrc/torch"]
    return harness.library("cuda-on-cpu", glue(), flags, ["-Wl,--no-as-needed", *libraries, "-ltorch_cpu"])


def main() -> None:
    import dsa_ext  # noqa: F401  first: the library then takes over what it registered
    from dsa_ext.selftest.__main__ import table_groups

    library = ctypes.CDLL(str(build()))
    library.launched.restype = ctypes.c_char_p
    groups = list(table_groups("cpu", quick="--quick" in sys.argv))
    failures = [failure for group in groups for failure in group.failures]
    checks = sum(group.checks for group in groups)
    lines = library.launched().decode().splitlines()
    print(json.dumps({"failures": failures, "checks": checks, "launches": lines}))


if __name__ == "__main__":
    main()
