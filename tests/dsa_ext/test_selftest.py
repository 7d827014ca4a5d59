"""The self-test itself: what it says and returns; its checks for CUDA, with stand-ins for torch.cuda."""

import contextlib
import importlib
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import dsa_ext
from dsa_ext.selftest import __main__ as selftest
from dsa_ext.selftest import cuda, inputs, measure
from dsa_ext.selftest.cuda import NotChecked
from dsa_ext.selftest.operation import Call, Typical, difference
from dsa_ext.selftest.operations import OPERATIONS, batch, merge, rank, warp

QUICK = ["--device", "cpu", "--quick"]


def test_passes_on_the_cpu(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    file = tmp_path / "result.json"
    assert selftest.main([*QUICK, "--json", str(file)]) == 0
    out = capsys.readouterr().out
    assert out.rstrip().splitlines()[-1] == "self-test passed"
    assert "NOT checked" in out and "No GPU was found" in out
    result = json.loads(file.read_text())
    assert result["passed"] and result["failures"] == [] and result["bandwidth"] == []
    names = [group["name"] for group in result["groups"]]
    assert names == list(selftest.table(quick=True))
    assert set(names) >= {title for operation in OPERATIONS for title in operation.cases()}
    assert all(group["checks"] for group in result["groups"])


def test_a_wrong_result_fails_in_its_groups_alone(capsys, monkeypatch, tmp_path):
    """What each operation's record sees of a wrong result is tested in test_operations.py."""
    monkeypatch.setattr(selftest, "OPERATIONS", (merge.OPERATION, rank.OPERATION))
    right = merge.merge_parts
    monkeypatch.setattr(merge, "merge_parts", lambda *a, **options: right(*a, **options).mul_(2))
    file = tmp_path / "result.json"
    assert selftest.main([*QUICK, "--json", str(file)]) == 1
    assert "self-test FAILED" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert not result["passed"] and result["failures"]
    assert all(failure.startswith("merge: ") for failure in result["failures"])
    assert any("elements differ, the first at" in failure for failure in result["failures"])


def test_cases_of_one_label_are_refused(monkeypatch):
    """One of them would silently not run."""
    case = merge.merge_case("plain", "mirror")
    monkeypatch.setattr(selftest, "table", lambda quick: {"merge": [case, case]})
    with pytest.raises(ValueError, match="merge: two cases have one label"):
        list(selftest.table_groups("cpu", quick=True))


def test_an_exception_is_a_failure_and_the_rest_runs(capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("an illegal memory access\nand more")

    monkeypatch.setattr(selftest, "OPERATIONS", (merge.OPERATION, rank.OPERATION))
    monkeypatch.setattr(merge, "merge_parts", broken)
    assert selftest.main(QUICK) == 1
    out = capsys.readouterr().out
    assert "RuntimeError: an illegal memory access\n" in out
    assert [line for line in out.splitlines() if "ranks: sizes" in line][0].endswith("ok")


@pytest.mark.parametrize(
    "arguments", [["--device", "gpu"], ["--rounds", "0"], ["--json", "no/such/folder/x.json"]]
)
def test_bad_arguments(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        selftest.main(arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_cuda_without_a_gpu_fails(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert selftest.main(["--device", "cuda"]) == 1
    assert "no GPU was found" in capsys.readouterr().out


def test_a_gpu_without_kernels_fails_and_says_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(dsa_ext, "CUDA_ERROR", "dsa_ext was built without CUDA kernels")
    assert selftest.main([]) == 1
    out = capsys.readouterr().out
    assert "built without CUDA kernels" in out and "DSA_CUDA=1" in out


def test_without_the_compiled_library_there_is_nothing_to_check(capsys, monkeypatch):
    monkeypatch.setattr(dsa_ext, "CPU_ERROR", "dsa_ext._C is not built")
    assert selftest.main(QUICK) == 1
    out = capsys.readouterr().out
    assert "dsa_ext._C is not built" in out and "Install a C++ compiler" in out and "ok" not in out


def test_differences_are_found_bit_by_bit():
    zero = torch.zeros(3)
    assert difference([zero], [zero.clone()]) is None
    words = difference([zero], [-zero])
    assert "3 of 3 elements differ, the first at (0,): 0.0 instead of -0.0" in words
    assert "float16" in difference([zero.half()], [zero])
    assert "[2]" in difference([zero[:2]], [zero])
    assert "0 results" in difference([], [zero])


@pytest.mark.parametrize("layout", ["plain", "channels last", "swapped", "gaps", "offset"])
def test_layouts_hold_the_values_and_nothing_else(layout):
    values = inputs.random((2, 3, 5, 4), torch.float32)
    base, view = inputs.spread(values.shape, values.dtype, layout, "cpu")
    view.copy_(values)
    assert torch.equal(inputs.lay_out(values, layout, "cpu"), values)
    assert (base == -12345).sum() == base.numel() - values.numel()
    assert view.is_contiguous() == (layout in ("plain", "offset"))


# ------------------------------------------------------------- what needs CUDA, with stand-ins for it


@pytest.fixture
def pretend(monkeypatch):
    """Streams, graphs and memory as the CPU has them: at once, again by calling, enough."""
    monkeypatch.setattr(cuda, "busy_side_stream", contextlib.nullcontext)
    monkeypatch.setattr(cuda, "capture", lambda call: call)
    monkeypatch.setattr(cuda, "allocations", lambda: 7)
    monkeypatch.setattr(cuda, "need", lambda bytes_: None)
    return monkeypatch


CALLS = {(operation.name, name): operation for operation in OPERATIONS for name in operation.calls("cpu")}
LARGE = {(operation.name, name): check for operation in OPERATIONS for name, check in operation.large.items()}
BEYOND = 20_000  # elements


@pytest.mark.parametrize("operation,name", CALLS, ids=str)
def test_stream_and_graph_checks_pass(pretend, operation, name):
    assert cuda.check_stream(CALLS[operation, name], name, "cpu") is None
    assert cuda.check_capture(CALLS[operation, name], name, "cpu") is None


def test_other_stream_checks_pass(pretend):
    assert rank.check_stream("cpu") is None
    assert batch.check_stream_of_host_memory("cpu") is None


def test_stream_check_of_the_batch_sees_a_copy_that_comes_too_late(pretend):
    """What the kernel would make of an index that the caller has overwritten meanwhile."""
    right = batch.assemble_batch
    calls = []

    def late(images, iuv, index, params, **options):
        calls.append(index)
        overwritten = index if len(calls) == 1 else torch.zeros_like(index)
        return right(images, iuv, overwritten, params, **options)

    pretend.setattr(batch, "assemble_batch", late)
    assert "differ" in batch.check_stream_of_host_memory("cpu")


def test_foreign_index_check(monkeypatch):
    """On the CPU a foreign index is refused; a stand-in gives what the kernel must give, or does not."""
    right = batch.assemble_batch

    def kernel(empty):
        def run(images, iuv, index, params, **options):
            foreign = (index < 0) | (index >= len(images))
            results = right(images, iuv, index.masked_fill(foreign, 0), params, **options)
            for x in results:
                x[foreign] = empty
            return results

        return run

    monkeypatch.setattr(batch, "assemble_batch", kernel(0.5))
    assert batch.check_foreign_index("cpu") is None
    monkeypatch.setattr(batch, "assemble_batch", kernel(0.0))
    assert "differ" in batch.check_foreign_index("cpu")


def test_mixed_devices_check():
    assert warp.check_mixed_devices("meta") is None
    assert "was accepted" in warp.check_mixed_devices("cpu")


def test_out_of_scale_check(monkeypatch):
    """On the CPU such a map is refused always; stand-ins clamp it, and look where asked to, or do not."""
    right = warp.iuv_to_dsap

    def kernel(clamps, looks):
        def run(image, iuv, check_iuv=False, **options):
            if check_iuv and looks:
                return right(image, iuv, **options)
            return right(image, iuv.clamp(0, 1) if clamps else iuv % 255, **options)

        return run

    for clamps, looks, words in ((True, True, None), (False, True, "clamped"), (True, False, "accepted")):
        monkeypatch.setattr(warp, "iuv_to_dsap", kernel(clamps, looks))
        said = warp.check_map_out_of_scale("cpu")
        assert said is None if words is None else words in said


@pytest.mark.parametrize("operation,name", LARGE, ids=str)
def test_large_checks_pass(pretend, operation, name):
    assert LARGE[operation, name]("cpu", BEYOND) is None


def test_every_operation_with_kernels_has_a_large_check():
    assert {name for name, _ in LARGE} == {operation.name for operation in OPERATIONS if operation.kernels}


@pytest.mark.parametrize("operation,name", CALLS, ids=str)
def test_stream_check_sees_a_result_from_too_early(pretend, operation, name):
    """What a kernel on the wrong stream computes: the result of the inputs before they are right."""
    expected = cuda.expected_of(CALLS[operation, name], name)
    inputs, out, run = CALLS[operation, name].calls("cpu")[name]

    def too_early():
        right = [x.clone() for x in inputs]
        cuda.overwrite(inputs)
        run()
        cuda.overwrite(inputs, right)

    early = replace(CALLS[operation, name], calls=lambda device: {name: Call(inputs, out, too_early)})
    pretend.setattr(cuda, "expected_of", lambda operation, name: expected)
    assert "differ" in cuda.check_stream(early, name, "cpu")


@pytest.mark.parametrize("operation,name", CALLS, ids=str)
def test_graph_check_sees_what_is_wrong(pretend, operation, name):
    pretend.setattr(cuda, "capture", lambda call: lambda: None)
    assert "anew" in cuda.check_capture(CALLS[operation, name], name, "cpu")
    count = iter(range(100))
    pretend.setattr(cuda, "allocations", lambda: next(count))
    assert "allocates" in cuda.check_capture(CALLS[operation, name], name, "cpu")


@pytest.mark.parametrize("operation,name", LARGE, ids=str)
def test_large_checks_see_an_overflow(pretend, operation, name):
    """The last row of the first call, which is the large one, is wrong as if an index of 32 bits ran over."""
    record = {x.name: x for x in OPERATIONS}[operation]
    module = importlib.import_module(f"dsa_ext.selftest.operations.{operation}")
    calls = []

    def overflowing(*arguments, **options):
        result = record.function(*arguments, **options)
        calls.append(result)
        with torch.no_grad():
            for x in result if isinstance(result, tuple) else (result,):
                if len(calls) == 1:
                    x[-1] = 0
        return result

    pretend.setattr(module, record.function.__name__, overflowing)
    assert "differ" in LARGE[operation, name]("cpu", BEYOND)


def test_what_cannot_be_checked_is_no_failure(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**9, 10**10))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
    cuda.need(10**9)
    with pytest.raises(NotChecked, match="needs 4 GB of device memory, 2 are free"):
        cuda.need(4 * 10**9)
    with pytest.raises(NotChecked, match="one device"):
        cuda.check_second_device([], "cuda")
    group = selftest.run_group("large", {"x": lambda device: cuda.need(4 * 10**9)}, "cuda")
    assert not group.failures and "not checked: x (needs 4 GB" in group.line()


def test_every_group_of_cuda_checks_is_made():
    groups = cuda.cuda_checks(OPERATIONS)
    assert len(groups) == 5 and all(groups.values())
    assert len(groups["beyond 2^31 elements"]) == len(LARGE)
    assert len(groups["another stream than the default"]) == len(CALLS)


# ------------------------------------------------------------------------------------- measuring


def test_every_typical_operation_runs():
    rows = selftest.typical(batch=1)
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    for row in rows:
        assert row.bytes > 0
        row.prepare("cpu")()


def test_profile_runs_each_operation(capsys, monkeypatch):
    rows = selftest.typical(batch=1)
    monkeypatch.setattr(selftest, "typical", lambda: rows)
    assert selftest.main(["--device", "cpu", "--profile"]) == 0
    assert capsys.readouterr().out.count("ran ") == len(rows)


def test_cuda_runs(monkeypatch):
    """With a clock of ours for the device's: warm-up is left out, every round runs all."""
    clock = SimpleNamespace(now=0.0)

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock.now

        def elapsed_time(self, end):
            return end.at - self.at

    ones = torch.ones
    monkeypatch.setattr(torch, "ones", lambda size, device: ones(8))
    for name, value in {
        "Event": Event,
        "current_device": lambda: 0,
        "get_device_properties": lambda index: SimpleNamespace(L2_cache_size=1 << 20),
        "_sleep": lambda cycles: setattr(clock, "now", clock.now + 1000),
        "synchronize": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value, raising=False)
    turns = []

    def work(name, milliseconds):
        def run(turn):
            turns.append((name, turn))
            clock.now += milliseconds if turn >= 0 else 500

        return run

    seconds = measure.cuda_runs({"a": work("a", 2), "b": work("b", 3)}, rounds=3, warm_up=1)
    assert seconds == {"a": pytest.approx([2e-3] * 3), "b": pytest.approx([3e-3] * 3)}
    assert turns == [(name, turn) for turn in (-1, 0, 1, 2) for name in "ab"]


def test_bandwidth_is_set_beside_the_copy(monkeypatch):
    row = Typical("warp", 10**9, lambda device: lambda: None)
    monkeypatch.setattr(selftest, "typical", lambda: [row])
    monkeypatch.setattr(measure, "copy_bandwidth", lambda: 2e12)
    monkeypatch.setattr(measure, "cuda_runs", lambda work, rounds: {"": [1e-3]})
    rows = selftest.bandwidth(5)
    assert rows[1]["bytes_per_second"] == 1e12 and rows[1]["floor_seconds"] == 5e-4
    lines = selftest.bandwidth_lines(rows)
    assert "2,000 GB/s" in lines[0]
    assert lines[-1].split() == ["warp", "1000.0", "500.0", "2.00", "1000", "50%"]
