"""scripts/gpu.sh without a GPU: what it says, and its steps with a Python that pretends."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts/gpu.sh"

# Answers the look for a GPU, "builds", and does each step in its own way.
PYTHON = """#!/bin/sh
case "$*" in
  -) cat > /dev/null; echo "9.0 Pretended-Card" ;;
  "-c import pybind11") exit 1 ;;
  *CUDA_ERROR*)
    ls build/gpu/lib/loads build/gpu/lib/dsa_ext/*.so 2>/dev/null | grep -q . && exit
    echo "no library loads" >&2
    exit 1
    ;;
  *_core*) test -e trains || { echo "No module named 'pydantic'" >&2; exit 1; } ;;
  *build*) test "$DSA_CORE$DSA_CUDA$TORCH_CUDA_ARCH_LIST" = 019.0 && mkdir -p build/gpu/lib ;;
  *--json*selftest.json) echo "in $(basename "$PWD"), path $PYTHONPATH"; exit 1 ;;
  *--quick) echo "pool off: $PYTORCH_NO_CUDA_MEMORY_CACHING" ;;
  *kernels.py*) echo "half" > "$RESULTS/kernels-unfinished.json"; sleep ${HANG:-30} ;;
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
        "OUT": str(tmp_path),
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


def brought(tmp_path):
    """The build folder as `make visit-kit` leaves it."""
    lib = tmp_path / "build/gpu/lib"
    lib.mkdir(parents=True)
    (lib / "loads").touch()
    (lib / "trains").touch()
    return lib


def packed(tmp_path):
    with tarfile.open(tmp_path / "gpu.tgz") as archive:
        return {Path(name).name for name in archive.getnames()}


def test_a_visit_uses_what_was_brought(pretended, tmp_path):
    brought(tmp_path)
    done = pretended("visit", HANG="0")
    assert done.returncode == 1, done.stderr  # the pretended self-test fails
    summary = [line.split()[0] for line in (tmp_path / "results/summary.txt").read_text().splitlines()]
    assert summary == ["libraries", "selftest", "bench", "training", "card", "memcheck", "ncu"]
    text = (tmp_path / "results/summary.txt").read_text()
    assert (
        "those that were brought load" in text and "training   passed" in text and "card       passed" in text
    )
    assert not (tmp_path / "results/build.log").exists()
    assert {"summary.txt", "selftest.log", "bench.log", "training.log", "card.log", "memcheck.log"} <= packed(
        tmp_path
    )


def test_a_visit_builds_what_does_not_load(pretended, tmp_path):
    done = pretended("visit", HANG="0")
    text = (tmp_path / "results/summary.txt").read_text()
    assert "to be built: no library loads" in text and "build      passed" in text, done.stderr
    assert "training   skipped: No module named 'pydantic'" in text


def test_this_tree_is_used_if_it_has_libraries(pretended, tmp_path):
    for folder in ("dsa_ext", "python/dsareid"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dsa_ext/_C.abi3.so").touch()
    pretended("visit", HANG="0")
    assert (tmp_path / "build/gpu/lib/dsa_ext/_C.abi3.so").exists()
    assert (tmp_path / "build/gpu/lib/dsareid").is_dir()


def test_the_rest_of_a_visit(pretended, tmp_path):
    brought(tmp_path)
    assert pretended("visit-rest").returncode == 0
    summary = [line.split()[0] for line in (tmp_path / "results/summary.txt").read_text().splitlines()]
    assert summary == ["racecheck", "synccheck", "roofline", "export", "maps"]
    assert "roofline.log" in packed(tmp_path)


def test_visit_goes_alone():
    done = run(SCRIPT, "visit", "bench", PYTHON=sys.executable)
    assert done.returncode == 2 and "visit or visit-rest alone" in done.stderr


def test_a_visit_that_is_cut_off_brings_home_what_is_done(pretended, tmp_path):
    """Killed while the third step hangs: the archive is whole and has the steps before it."""
    brought(tmp_path)
    environment = {
        **os.environ,
        "PYTHON": str(tmp_path / "pretend-python"),
        "RESULTS": str(tmp_path / "results"),
        "OUT": str(tmp_path),
        "HANG": "60",
    }
    visit = subprocess.Popen(
        ["sh", str(tmp_path / "scripts/gpu.sh"), "visit"],
        env=environment,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(200):
            if (tmp_path / "results/kernels-unfinished.json").exists():
                break
            time.sleep(0.1)
        assert (tmp_path / "results/kernels-unfinished.json").exists()
    finally:
        os.killpg(visit.pid, signal.SIGKILL)
        visit.wait()
    assert {"summary.txt", "machine.txt", "selftest.log"} <= packed(tmp_path)


def test_a_step_gets_no_more_time_than_is_left(pretended, tmp_path):
    """With a clock that says the visit is nearly over: later steps are skipped and named."""
    brought(tmp_path)
    clock = tmp_path / "date"
    clock.write_text(
        f"#!/bin/sh\n"
        f'if [ "$1" = +%s ]; then\n'
        f"  echo . >> {tmp_path}/ticks\n"
        f"  echo $(($(wc -l < {tmp_path}/ticks) * 45))\n"
        f'else exec /bin/date "$@"; fi\n'
    )
    clock.chmod(0o755)
    pretended("visit", HANG="0")
    text = (tmp_path / "results/summary.txt").read_text()
    assert "libraries  passed" in text and "ncu        skipped: no time is left" in text
