"""CMakeLists.txt builds csrc/ without torch, and its ctest tests pass."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_library_and_ctest(tmp_path):
    architectures = "-DCMAKE_CUDA_ARCHITECTURES=80"  # all of them are test_cuda_compiles' business
    for command in (
        ["cmake", "-S", ROOT, "-B", tmp_path, architectures],
        ["cmake", "--build", tmp_path, "--parallel", "2"],
        ["ctest", "--test-dir", tmp_path, "--output-on-failure"],
    ):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "100% tests passed" in done.stdout
