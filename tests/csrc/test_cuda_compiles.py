"""Every CUDA source compiles alone for every supported architecture, within its kernels' budgets."""

import re
import shutil

import cuda_resources as resources
import pytest
from cuda_resources import CSRC

pytestmark = [
    pytest.mark.compiles,
    pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed"),
]


@pytest.fixture(scope="module")
def kernels():
    return resources.all_kernels()


def test_every_kernel_is_there_for_every_architecture(kernels):
    sources = "".join(path.read_text() for path in CSRC.glob("*.cuh"))
    written = set(re.findall(r"\b(\w+_kernel)\(", sources))
    assert written == set(resources.BUDGETS) == {kernel.family for kernel in kernels}
    for name in {kernel.name for kernel in kernels}:
        assert [k.architecture for k in kernels if k.name == name] == list(resources.ARCHITECTURES)


def test_no_spills_no_stack_and_registers_within_budget(kernels):
    for kernel in kernels:
        budget = resources.BUDGETS[kernel.family]
        most = budget.registers_75 if kernel.architecture == 75 else budget.registers
        assert (kernel.stack, kernel.spills, kernel.static_shared) == (0, 0, 0), kernel
        assert kernel.registers <= most, kernel


@pytest.mark.skipif(resources.tool("cuobjdump") is None, reason="cuobjdump is not installed")
def test_disassembly_has_wide_accesses_and_no_local_memory(kernels):
    assert any(not kernel.is_vector_form for kernel in kernels)
    for kernel in kernels:
        assert kernel.local == 0, kernel
        budget = resources.BUDGETS[kernel.family]
        if kernel.is_vector_form:
            assert kernel.wide_loads >= budget.wide_loads, kernel
            assert kernel.wide_stores >= budget.wide_stores, kernel


SPILLING = """
__global__ void __launch_bounds__(1024, 2) bad_kernel(const float* in, float* out, int n) {
  float x[64];
  for (int i = 0; i < 64; ++i) x[i] = in[i * n + threadIdx.x];
  for (int i = 0; i < n; ++i) x[(i * 7) % 64] += x[i % 64];
  float sum = 0;
  for (int i = 0; i < 64; ++i) sum += x[i] * x[63 - i];
  out[threadIdx.x] = sum;
}
"""


def test_the_gates_see_a_kernel_that_breaks_them(tmp_path):
    (tmp_path / "bad.cu").write_text(SPILLING)
    (kernel,) = resources.kernels_of(tmp_path / "bad.cu", 80, tmp_path)
    assert kernel.family == "bad_kernel" and kernel.stack > 0
    assert kernel.local is None or kernel.local > 0
    assert kernel.wide_loads in (None, 0)


def test_compile_errors_are_shown(tmp_path):
    (tmp_path / "broken.cu").write_text("__global__ void k() { nonsense; }")
    with pytest.raises(RuntimeError, match="nonsense"):
        resources.kernels_of(tmp_path / "broken.cu", 80, tmp_path)
