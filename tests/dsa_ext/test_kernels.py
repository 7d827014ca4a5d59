"""dsa_ext.kernel_source: the kernels' text, compiled here by the NVRTC that torch installs."""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dsa_ext import kernel_source
from dsa_ext.kernels import KERNELS
from dsa_ext.selftest.operations import OPERATIONS

ROOT = Path(__file__).parents[2]
INSTANCES = {operation.name: operation.kernels for operation in OPERATIONS if operation.kernels}


@pytest.fixture(scope="session")
def example():
    spec = importlib.util.spec_from_file_location("cupy_warp", ROOT / "examples/cupy_warp.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compile_at_run_time(source: str, names: Sequence[str] = (), architecture: int = 90) -> str:
    """NVRTC's log; raises ValueError with it where the source does not compile."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda.bindings is not installed")

    def ok(result):
        code, *values = result
        assert code == nvrtc.nvrtcResult.NVRTC_SUCCESS, code
        return values[0] if values else None

    program = ok(nvrtc.nvrtcCreateProgram(source.encode(), b"kernel.cu", 0, [], []))
    for name in names:
        ok(nvrtc.nvrtcAddNameExpression(program, name.encode()))
    options = [b"-std=c++20", f"--gpu-architecture=sm_{architecture}".encode()]
    (code,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = b" " * ok(nvrtc.nvrtcGetProgramLogSize(program))
    ok(nvrtc.nvrtcGetProgramLog(program, log))
    if code != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise ValueError(log.decode().rstrip("\0"))
    for name in names:
        assert ok(nvrtc.nvrtcGetLoweredName(program, name.encode()))
    return log.decode()


def test_every_kernel_is_tried():
    assert sorted(INSTANCES) == sorted(KERNELS)
    for name, instances in INSTANCES.items():
        written = set(re.findall(r"\b(\w+_kernel)\(", (ROOT / f"csrc/{name}.cuh").read_text()))
        assert {re.search(r"\w+_kernel", instance).group() for instance in instances} == written


@pytest.mark.compiles
@pytest.mark.parametrize("architecture", [75, 90])
@pytest.mark.parametrize("name", INSTANCES)
def test_nvrtc_compiles(name, architecture):
    compile_at_run_time(kernel_source(name), INSTANCES[name], architecture)


@pytest.mark.compiles
def test_nvrtc_is_really_asked():
    with pytest.raises(ValueError, match="nonsense"):
        compile_at_run_time(kernel_source("rank") + "\n__global__ void k() { nonsense; }")


@pytest.mark.parametrize("name", INSTANCES)
def test_source_is_complete(name):
    source = kernel_source(name)
    assert '#include "' not in source and "#pragma once" not in source
    assert len(re.findall(r"constexpr Part kPart\[", source)) == 1  # parts.h, once


def test_unknown_name():
    with pytest.raises(ValueError, match="'batch', 'merge', 'rank', 'warp', not 'augment'"):
        kernel_source("augment")


@pytest.mark.compiles
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
def test_the_examples_struct_is_the_kernels(example, tmp_path):
    source = ["#include <cstddef>", kernel_source("warp"), "using namespace dsa;"]
    for struct, layout in (("WarpArguments", example.ARGUMENTS), ("Normalise", example.NORMALISE)):
        source.append(f"static_assert(sizeof({struct}) == {layout.itemsize});")
        for field, (_, offset) in layout.fields.items():
            source.append(f"static_assert(offsetof({struct}, {field}) == {offset});")
    source.append(f"static_assert(kWarpThreads == {example.THREADS});")
    source.append(f"static_assert(kChannelsALaunch == {example.CHANNELS_A_LAUNCH});")
    shared = example.shared_bytes(192)
    source.append(f"static_assert(warp_shared_bytes(192 * 32, 3 * kTableRow * 4) == {shared});")

    def compiles(lines):
        (tmp_path / "layout.cu").write_text("\n".join(lines))
        command = ["nvcc", "-std=c++20", "-arch=sm_90", "-ptx", "layout.cu", "-o", "layout.ptx"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return done.returncode == 0 or done.stderr

    assert compiles(source) is True
    assert "static assertion failed" in compiles([*source, "static_assert(sizeof(WarpArguments) == 1);"])
    compile_at_run_time(kernel_source("warp"), [example.KERNEL])


def test_the_example_says_what_it_needs():
    done = subprocess.run(
        [sys.executable, ROOT / "examples/cupy_warp.py"], capture_output=True, text=True, cwd=ROOT
    )
    if done.returncode == 0:
        assert "equal to the CPU backend: True" in done.stdout
    else:
        assert done.stderr.startswith("this example needs") and "\n" not in done.stderr.strip()
