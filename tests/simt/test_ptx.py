"""The translation of PTX: what it knows, what it counts, and that it refuses what it does not know."""

import re
import subprocess

import harness
import ptx
import pytest
import shared_cache

NVCC_SAYS = """
.visible .entry _ZN3dsa12probe_kernelENS_4ArgsE(
	.param .align 8 .b8 _ZN3dsa12probe_kernelENS_4ArgsE_param_0[16]
)
{
	.reg .pred 	%p<3>;
	.reg .b32 	%r<20>;
	.reg .b64 	%rd<8>;

	ld.param.u64 	%rd1, [_ZN3dsa12probe_kernelENS_4ArgsE_param_0];
	mov.u32 	%r1, %tid.x;
	setp.gt.u32 	%p1, %r1, 9;
	@%p1 bra 	$L__BB0_2;
	bra.uni 	$L__BB0_1;

$L__BB0_1:
	div.s32 	%r2, 100, 7;
	add.s32 	%r3, %r2, %r1;
	mul.wide.u32 	%rd2, %r1, 4;
	add.s64 	%rd3, %rd1, %rd2;
	st.global.u32 	[%rd3], %r3;

$L__BB0_2:
	vote.sync.ballot.b32 	%r4, %p1, -1;
	bar.sync 	0;
	mul.wide.u32 	%rd4, %r1, 4;
	add.s64 	%rd5, %rd1, %rd4;
	st.global.u32 	[%rd5+256], %r4;
	ret;

}
"""

MAIN = """
#include <cstdio>
#include "counters.h"
#include "ptx.h"
int main() {
  unsigned out[128] = {};
  const unsigned* arguments[2] = {out, nullptr};
  ptx::launch("probe_kernel", dim3(1), dim3(64), 0, arguments, sizeof arguments);
  for (int i : {0, 9, 10, 64, 95, 96}) std::printf("%u ", out[i]);
  std::printf("%ld", simt::take_counts().instructions);
}
"""


def test_blocks_and_labels():
    ((name, body),) = ptx.kernels(NVCC_SAYS).items()
    assert name == "probe_kernel"
    blocks, labels = ptx.blocks_of(body)
    assert [block.kind for block in blocks] == [
        "plain",
        "plain",
        "plain",
        "vote",
        "barrier",
        "plain",
        "plain",
    ]
    assert labels == {"$L__BB0_1": 2, "$L__BB0_2": 3}


def test_weights():
    def of(line):
        opcode, _, operands = line.partition(" ")
        return ptx.weight(ptx.Instruction(None, opcode, operands.split(", ")))

    free = ["mov.u32 %r1, %r2", "ld.param.v2.u32 {%r1, %r2}, [x]", "cvt.u16.u32 %rs1, %r1", "ret"]
    assert [of(line) for line in free] == [0, 0, 0, 0]
    one = ["add.s32 %r1, %r2, 1", "ld.global.nc.v4.u32 {%r1}, [%rd1]", "cvt.rn.f32.s32 %f1, %r1", "bra $L1"]
    assert [of(line) for line in one] == [1, 1, 1, 1]
    assert of("add.s64 %rd1, %rd2, 8") == 2 and of("mul.lo.s64 %rd1, %rd2, %rd3") == 4
    assert of("div.s32 %r1, %r2, %r3") > 10 and of("div.rn.f32 %f1, %f2, %f3") == 10


def test_what_is_not_known_is_refused():
    for line in ("tex.2d.v4.f32.f32 {%f1}, [a, {%f1}]", "add.s32 %r1 %r2 ?"):
        with pytest.raises((SyntaxError, KeyError)):
            ptx.translated(re.sub(r"div\.s32 .*", f"{line};", NVCC_SAYS))


@pytest.mark.compiles
@pytest.mark.skipif(harness.why_not() is not None, reason=str(harness.why_not()))
def test_results_and_counts_are_those_worked_out_by_hand(tmp_path):
    """Lanes that branch apart are counted once for each way, and meet again before the vote."""
    (tmp_path / "kernel.cpp").write_text(ptx.translated(NVCC_SAYS))
    (tmp_path / "main.cpp").write_text(MAIN)
    sources = [
        tmp_path / "kernel.cpp",
        tmp_path / "main.cpp",
        harness.HERE / "ptx.cpp",
        harness.HERE / "simt.cpp",
    ]
    include = [f"-I{harness.HERE}", f"-I{harness.CSRC}", f"-isystem{harness.cuda_include()}"]
    shared_cache.run(["g++", *harness.COMMON, "-O1", *include, *sources, "-o", tmp_path / "probe"])
    out = subprocess.run([tmp_path / "probe"], capture_output=True, text=True, check=True).stdout.split()
    first, second = 0xFFFFFC00, 0xFFFFFFFF  # lanes above 9 of each warp voted
    assert out[:6] == ["14", "23", "0", str(first), str(first), str(second)]
    # setp, bra (2 in the first warp, whose lanes 0..9 go on); div, add, mul.wide, add (2), st; vote, bar,
    # mul.wide, add (2), st.
    both, alone = 2 + 6, 1 + ptx.SEQUENCES["div.s32"] + 1 + 1 + 2 + 1
    assert int(out[6]) == 2 * both + alone
