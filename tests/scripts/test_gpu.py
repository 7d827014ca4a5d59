"""scripts/gpu.sh without a GPU: what it says, and its steps with a Python that pretends."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts/gpu.sh"

# Answers the look for a GPU, "builds", and does each step in its own way.
PYTHON = """#!/bin/sh
case "$*" in
  -) cat > /dev/null; echo "9.0 Pretended-Card" ;;
  *build*) test "$DSA_CORE$DSA_CUDA$TORCH_CUDA_ARCH_LIST" = 019.0 && mkdir -p build/gpu/lib ;;
  *--json*selftest.json) echo "in $(basename "$PWD"), path $PYTHONPATH"; exit 1 ;;
  *--quick) echo "pool off: $PYTORCH_NO_CUDA_MEMORY_CACHING" ;;
  *kernels.py*) sleep 30 ;;
esac
"""
SANITIZER = """#!/bin/sh
while [ "${1#*pretend}" = "$1" ]; do shift; done
exec "$@"
"""


def run(script, *steps, **environment):
    return subprocess.run(
        ["sh", str(script), *steps], capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so(tmp_path):
    done = run(SCRIPT, PYTHON=sys.executable, RESULTS=str(tmp_path / "results"))
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "no GPU was found" in done.stderr
    assert not (tmp_path / "results").exists()


def test_bad_steps_and_pythons():
    done = run(SCRIPT, "frob", PYTHON=sys.executable)
    assert done.returncode == 2 and "no step 'frob'" in done.stderr
    done = run(SCRIPT, PYTHON="no-such-python")
    assert done.returncode == 2 and "no-such-python was not found" in done.stderr


def test_an_old_torch_is_refused(tmp_path):
    (tmp_path / "torch.py").write_text("__version__ = '2.9.1+cu128'\n")
    done = run(SCRIPT, PYTHON=sys.executable, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and "torch 2.9.1+cu128, but 2.10 or later is needed" in done.stderr


@pytest.fixture
def pretended(tmp_path):
    """A copy of the script in a folder of its own, and tools that pretend."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    for name, text in (("pretend-python", PYTHON), ("compute-sanitizer", SANITIZER)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        "PYTHON": str(tmp_path / "pretend-python"),
        "RESULTS": str(tmp_path / "results"),
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    return lambda *steps, **more: run(tmp_path / "scripts/gpu.sh", *steps, **environment, **more)


def test_a_failing_step_stops_no_other(pretended, tmp_path):
    done = pretended("build", "selftest", "memcheck", "bench", "roofline", LIMIT="1")
    assert done.returncode == 1
    summary = (tmp_path / "results/summary.txt").read_text().splitlines()
    assert [line.split()[:2] for line in summary] == [
        ["build", "passed,"],
        ["selftest", "FAILED"],
        ["memcheck", "passed,"],
        ["bench", "FAILED:"],
        ["roofline", "passed,"],
    ]
    assert "exit code 1" in summary[1] and "not done" in summary[3]
    # Steps run in the build folder, which PYTHONPATH names too; the log's end is shown.
    lib = tmp_path / "build/gpu/lib"
    assert f"in lib, path {lib}" in (tmp_path / "results/selftest.log").read_text()
    assert f"    in lib, path {lib}" in done.stdout
    assert (tmp_path / "results/memcheck.log").read_text() == "pool off: 1\n"
    assert (tmp_path / "results/machine.txt").read_text()


def test_single_steps_share_the_folder_and_need_a_build(pretended, tmp_path):
    done = pretended("roofline")
    assert done.returncode == 1 and "nothing is built" in done.stdout
    assert pretended("build").returncode == 0
    assert pretended("roofline").returncode == 0
    summary = (tmp_path / "results/summary.txt").read_text().splitlines()
    assert [line.split()[0] for line in summary] == ["build", "roofline"]
    assert "passed" in summary[1]
