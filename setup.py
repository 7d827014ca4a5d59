"""Builds the compiled parts; everything else about the package is in pyproject.toml.

    dsa_ext._C             csrc/*.cpp, csrc/torch/*_cpu.cpp    torch's stable ABI, limited Python API
    dsa_ext._C_cuda        csrc/*.cu, csrc/torch/*_cuda.cpp    the same; only where a CUDA toolkit is found
    dsareid.ground._core   csrc/core/*.cpp   pybind11, no torch; the operations it calls inside

Without a C++ compiler nothing is built, and dsa_ext serves its functions by plain torch.

DSA_CUDA=0 builds without CUDA, DSA_CUDA=1 insists on it, DSA_CORE=0 leaves out dsareid.ground._core and with
it pybind11 (scripts/gpu.sh needs neither), DSA_BUILD=0 compiles nothing (the Makefile compiles in a
step of its own). TORCH_CUDA_ARCH_LIST chooses the architectures.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_py import build_py

try:
    import torch
    from torch.utils import cpp_extension
except ImportError as error:
    sys.exit(
        f"setup.py needs torch to build against ({error}). Install torch first and build without "
        "isolation: pip install torch && pip install --no-build-isolation ."
    )

ARCHITECTURES = "7.5;8.0;8.6;8.9;9.0;10.0;12.0+PTX"
ABI = ["-DTORCH_TARGET_VERSION=0x020a000000000000"]  # the stable ABI as of torch 2.10
# -ffp-contract=off, nvcc's -fmad=false: a product and a sum are never fused, so that all backends give the
# same bits.
# -fno-trapping-math: nobody reads the floating-point flags, and loops that select become vectors.
# -ffile-prefix-map: errors name csrc/..., not the folder it was built in.
CXX = ["-std=c++20", "-O3", "-ffp-contract=off", "-fno-trapping-math", "-Wall"]
CXX += [f"-ffile-prefix-map={Path.cwd()}/="]


def report(words: str) -> None:
    """One line about the build; make build prints these."""
    print(f"dsa_ext: {words}", flush=True)


def find_compiler() -> str | None:
    """The C++ compiler that torch would call, if it runs; on Windows none, as csrc/ needs g++ or clang."""
    command = os.environ.get("CXX", "c++")
    if os.name == "nt" or not shutil.which(command.split()[-1]):
        return None
    # macOS has a c++ that only tells how to install one.
    runs = subprocess.run([*command.split(), "--version"], capture_output=True).returncode == 0
    return command if runs else None


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


def toolkit_version(home: Path) -> str | None:
    """MAJOR.MINOR of the toolkit's nvcc."""
    done = subprocess.run([home / "bin/nvcc", "--version"], capture_output=True, text=True)
    found = re.search(r"release (\d+\.\d+)", done.stdout)
    return found[1] if found else None


def why_no_cuda(home: Path | None) -> str | None:
    """Why the CUDA kernels cannot be built with the toolkit in `home`, or None if they can."""
    if home is None:
        return "no folder with include/cuda_runtime.h and bin/nvcc was found"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA"
    version = toolkit_version(home)
    if version is None:
        return f"{home}/bin/nvcc --version names no release"
    if version.split(".")[0] != torch.version.cuda.split(".")[0]:
        return (
            f"the toolkit in {home} is CUDA {version}, but torch {torch.__version__} was built with CUDA "
            f"{torch.version.cuda}, and their major versions must be the same"
        )
    return None


def choose_cuda() -> Path | None:
    """The toolkit to build with, or None for a CPU build; reports which and why."""
    wanted = os.environ.get("DSA_CUDA", "auto")
    home = find_cuda()
    reason = "DSA_CUDA=0" if wanted == "0" else why_no_cuda(home)
    if reason is None:
        return home
    if wanted == "1":
        sys.exit(f"DSA_CUDA=1, but {reason}")
    report(f"building for the CPU only ({reason})")
    return None


def sources(pattern: str) -> list[str]:
    return sorted(str(path) for path in Path("csrc").glob(pattern))


def cpu_extension() -> Extension:
    return cpp_extension.CppExtension(
        "dsa_ext._C",
        [*sources("*.cpp"), *sources("torch/*_cpu.cpp"), "csrc/torch/module.cpp"],
        extra_compile_args=[*CXX, *ABI],
        py_limited_api=True,
    )


def cuda_extension(home: Path) -> Extension:
    # torch looks these up when it builds; it would find nvcc's folder, not the toolkit's.
    os.environ["CUDA_HOME"] = cpp_extension.CUDA_HOME = str(home)
    architectures = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    report(f"building for the CPU and for CUDA {architectures} with {home}")
    extension = cpp_extension.CUDAExtension(
        "dsa_ext._C_cuda",
        [*sources("*.cu"), *sources("torch/*_cuda.cpp"), "csrc/torch/module.cpp"],
        extra_compile_args={
            "cxx": [*CXX, *ABI, "-DUSE_CUDA"],
            "nvcc": ["-std=c++20", "-O3", "-fmad=false", *ABI, "-DUSE_CUDA"],
        },
        libraries=["cudart_static", "rt", "dl", "pthread"],
        extra_link_args=["-Wl,--exclude-libs,libcudart_static.a"],
        py_limited_api=True,
    )
    # The CUDA runtime as nvcc links it: inside. The shared one that torch adds is libcudart.so.13 where
    # the toolkit is 13, and a torch 2.10, which brings libcudart.so.12, could not load the extension.
    extension.libraries.remove("cudart")
    return extension


def core_extension() -> Extension:
    try:
        from pybind11.setup_helpers import Pybind11Extension
    except ImportError:
        sys.exit(
            "dsareid.ground._core is built with pybind11, which is not installed: pip install pybind11 "
            "(or leave it out with DSA_CORE=0: no training then)"
        )
    operations = [f"csrc/{name}.cpp" for name in ("augment", "batch", "resize")]  # what it calls
    return Pybind11Extension(
        "dsareid.ground._core", [*sources("core/*.cpp"), *operations], extra_compile_args=CXX
    )


def extensions() -> list[Extension]:
    if os.environ.get("DSA_BUILD") == "0":
        return []
    if find_compiler() is None:
        if os.environ.get("DSA_CUDA") == "1":
            sys.exit("DSA_CUDA=1, but no C++ compiler was found (c++, or CXX)")
        report("no C++ compiler was found (c++, or CXX): nothing is compiled, plain torch serves, slower")
        return []
    if not cpp_extension.is_ninja_available():
        report("ninja is not installed: one file at a time is compiled (pip install ninja)")
    home = choose_cuda()
    return [
        cpu_extension(),
        *([] if home is None else [cuda_extension(home)]),
        *([] if os.environ.get("DSA_CORE") == "0" else [core_extension()]),
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


if __name__ == "__main__":
    setup(
        ext_modules=extensions(),
        cmdclass={"build_ext": BuildExtension, "build_py": BuildPy},
    )
