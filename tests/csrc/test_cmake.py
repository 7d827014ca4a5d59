"""CMakeLists.txt builds csrc/ without torch, its ctest tests pass, and a program can use what it installs."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BACKENDS = {
    "cpu": "-DCMAKE_CUDA_COMPILER=NOTFOUND",
    "cuda": "-DCMAKE_CUDA_ARCHITECTURES=80",  # all of them are test_cuda_compiles' business
}
# Links the CUDA backend from a project that knows no CUDA; it is not run.
CALLS_CUDA = """#include <dsa/warp.h>
int main() { return dsa::warp_cuda(dsa::WarpImages{}, nullptr); }
"""


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def part_images():
    """The picture that examples/cpp writes, worked out in numpy."""
    y, x = np.mgrid[:192, :128]
    image = np.stack([y, 2 * x, 255 - y], -1)  # [192, 128, 3]
    image[((y - 95.5) / 95.5) ** 2 + ((x - 63.5) / 63.5) ** 2 > 1] = 64  # the fill
    patches = image.reshape(6, 32, 4, 32, 3).transpose(1, 0, 2, 3, 4)  # [S, 6, 4, S, 3]
    return patches.reshape(32, 24 * 32, 3).astype(np.uint8)


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
@pytest.mark.parametrize("backend", BACKENDS)
def test_build_install_and_use(tmp_path, backend):
    if backend == "cuda" and shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    build, prefix, example = tmp_path / "build", tmp_path / "prefix", tmp_path / "example"

    run("cmake", "-S", ROOT, "-B", build, BACKENDS[backend])
    run("cmake", "--build", build, "--parallel", "2")
    report = run("ctest", "--test-dir", build, "--output-on-failure")
    assert "100% tests passed, 0 tests failed out of 2" in report

    run("cmake", "--install", build, "--prefix", prefix)
    shutil.rmtree(build)  # what is installed stands alone
    shutil.copytree(ROOT / "examples/cpp", tmp_path / "source")
    if backend == "cuda":
        (tmp_path / "source/cuda.cpp").write_text(CALLS_CUDA)
        with open(tmp_path / "source/CMakeLists.txt", "a") as lists:
            lists.write("add_executable(cuda cuda.cpp)\ntarget_link_libraries(cuda dsa::dsa)\n")
    run("cmake", "-S", tmp_path / "source", "-B", example, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", example)
    assert "19032 of 24576 cells" in run(example / "part_images", tmp_path / "parts.ppm")
    picture = (tmp_path / "parts.ppm").read_bytes()
    header = b"P6 768 32 255\n"
    assert picture == header + part_images().tobytes()
