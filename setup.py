"""Builds the compiled parts; everything else about the package is in pyproject.toml.

    dsa_ext._C             csrc/*.cpp, csrc/torch/cpu.cpp    torch's stable ABI, limited Python API
    dsa_ext._C_cuda        csrc/*.cu, csrc/torch/cuda.cpp    the same; only where a CUDA toolkit is found
    dsareid.ground._core   csrc/core/*.cpp   pybind11, no torch; the operations it calls inside

DSA_CUDA=0 builds without CUDA, DSA_CUDA=1 insists on it, DSA_CORE=0 leaves out dsareid.ground._core and with
it pybind11 (scripts/gpu.sh needs neither), DSA_BUILD=0 compiles nothing (the Makefile compiles in a
step of its own). TORCH_CUDA_ARCH_LIST chooses the architectures.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from torch.utils import cpp_extension
except ImportError as error:
    sys.exit(
        f"setup.py needs torch to build against ({error}). Install torch first and build without "
        "isolation: pip install torch && pip install --no-build-isolation ."
    )

ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]  # the stable ABI as of torch 2.10
# -ffp-contract=off: a product and a sum are never fused, so that every backend gives the same bits.
# -fno-trapping-math: nobody reads the floating-point flags, and loops that select become vectors.
# -ffile-prefix-map: errors name csrc/..., not the folder it was built in.
CXX = ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-Wall"]
CXX += [f"-ffile-prefix-map={Path.cwd()}/="]


def find_cuda() -> Path | None:
    """The toolkit's folder: the one with the headers, which is not always where nvcc lies."""
    nvcc = shutil.which("nvcc")
    candidates = [
        os.environ.get("CUDA_HOME"),
        os.environ.get("CUDA_PATH"),
        Path(nvcc).resolve().parent.parent if nvcc else None,
        "/usr/local/cuda",
    ]
    for folder in map(Path, filter(None, candidates)):
        if (folder / "include/cuda_runtime.h").exists() and (folder / "bin/nvcc").exists():
            return folder
    return None


def sources(pattern: str) -> list[str]:
    return sorted(str(path) for path in Path("csrc").glob(pattern))


def cuda_extension():
    wanted = os.environ.get("DSA_CUDA", "auto")
    home = None if wanted == "0" else find_cuda()
    if home is None:
        if wanted == "1":
            sys.exit("DSA_CUDA=1, but no folder with include/cuda_runtime.h and bin/nvcc was found")
        print("dsa_ext: building for the CPU only (no CUDA toolkit found, or DSA_CUDA=0)", flush=True)
        return []
    # torch looks these up when it builds; it would find nvcc's folder, not the toolkit's.
    os.environ["CUDA_HOME"] = cpp_extension.CUDA_HOME = str(home)
    architectures = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    print(f"dsa_ext: building for the CPU and for CUDA {architectures} with {home}", flush=True)
    extension = cpp_extension.CUDAExtension(
        "dsa_ext._C_cuda",
        [*sources("*.cu"), "csrc/torch/cuda.cpp"],
        extra_compile_args={
            "cxx": [*CXX, *ABI, "-DUSE_CUDA"],
            "nvcc": ["-std=c++20", "-O3", *ABI, "-DUSE_CUDA"],
        },
        libraries=["cudart_static", "rt", "dl", "pthread"],
        extra_link_args=["-Wl,--exclude-libs,libcudart_static.a"],
        py_limited_api=True,
    )
    # The CUDA runtime as nvcc links it: inside. The shared one that torch adds is libcudart.so.13 where
    # the toolkit is 13, and a torch 2.10, which brings libcudart.so.12, could not load the extension.
    extension.libraries.remove("cudart")
    return [extension]


def core_extension():
    if os.environ.get("DSA_CORE") == "0":
        return []
    from pybind11.setup_helpers import Pybind11Extension

    operations = [f"csrc/{name}.cpp" for name in ("augment", "batch", "resize")]  # what it calls
    return [
        Pybind11Extension(
            "dsareid.ground._core", [*sources("core/*.cpp"), *operations], extra_compile_args=CXX
        )
    ]


def extensions():
    return [
        cpp_extension.CppExtension(
            "dsa_ext._C",
            [*sources("*.cpp"), "csrc/torch/cpu.cpp"],
            extra_compile_args=[*CXX, *ABI],
            py_limited_api=True,
        ),
        *cuda_extension(),
        *core_extension(),
    ]


class BuildExtension(cpp_extension.BuildExtension):
    """torch's, with an object folder for each extension: merge.cpp and merge.cu are both merge.o."""

    def build_extension(self, ext):
        shared, self.build_temp = self.build_temp, os.path.join(self.build_temp, ext.name)
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = shared


class BuildPy(build_py):
    """Packs the kernels' headers as dsa_ext/csrc, where dsa_ext.kernel_source finds them."""

    def run(self):
        super().run()
        if self.editable_mode:
            return  # they are read from csrc/ itself
        folder = Path(self.build_lib) / "dsa_ext" / "csrc"
        folder.mkdir(parents=True, exist_ok=True)
        for name in [*sources("*.h"), *sources("*.cuh")]:
            shutil.copy(name, folder)


setup(
    ext_modules=extensions() if os.environ.get("DSA_BUILD") != "0" else [],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPy},
)
