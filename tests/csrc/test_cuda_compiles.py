"""Every CUDA source compiles alone for every supported architecture, without spills or local memory."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")


@needs_nvcc
@pytest.mark.parametrize("source", sorted(CSRC.glob("*.cu")), ids=lambda path: path.name)
def test_compiles_for_every_architecture(source, tmp_path):
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    command = ["nvcc", "-std=c++20", "-O3", f"-I{CSRC}", *codes, "-Xptxas", "-v", "--threads", "2"]
    done = subprocess.run(
        [*command, "-c", str(source), "-o", str(tmp_path / "kernel.o")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    usage = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", done.stderr)
    entries = done.stderr.count("Compiling entry function")
    assert entries and entries % len(ARCHITECTURES) == 0
    assert len(usage) >= entries
    assert all(pair == ("0", "0") for pair in usage), done.stderr


def test_sources_know_nothing_of_torch_or_python():
    """Outside torch/ and core/, csrc/ is plain C++ and CUDA."""
    for path in (path for end in ("h", "cpp", "cu", "cuh") for path in CSRC.glob(f"*.{end}")):
        includes = re.findall(r'#include [<"]([^>"]+)', path.read_text())
        assert not [name for name in includes if "torch" in name or "Python" in name], path
