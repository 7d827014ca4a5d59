"""The self-test itself: what it says and returns; its checks for CUDA, with stand-ins for torch.cuda."""

import contextlib
import json
from types import SimpleNamespace

import pytest
import torch

import dsa_ext
from dsa_ext.selftest import __main__ as selftest
from dsa_ext.selftest import cases, cuda, measure
from dsa_ext.selftest.cuda import NotChecked

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
    assert names == [name for name, _ in cases.table()]
    assert all(group["checks"] for group in result["groups"])


def wrong_iuv_to_dsap(*arguments, **options):
    result = dsa_ext.iuv_to_dsap(*arguments, **options)
    dsap = result[0] if isinstance(result, tuple) else result
    with torch.no_grad():
        if dsap.numel():
            dsap[0, 0, 0, 0, 0] += 1
    return result


def wrong_merge_parts(*arguments, **options):
    return dsa_ext.merge_parts(*arguments, **options).mul_(2)


def wrong_assemble_batch(*arguments, **options):
    image, dsap = dsa_ext.assemble_batch(*arguments, **options)
    if image.numel():
        image[0, 0, 0, 0] += 1
    return image, dsap


def wrong_draw_augmentation(*arguments, **options):
    drawn = dsa_ext.draw_augmentation(*arguments, **options)
    drawn[:, 0] += 1
    return drawn


def wrong_count_ranks(*arguments):
    ranks, found = dsa_ext.count_ranks(*arguments)
    return ranks, found + 1


WRONG = {
    "warp: S from 1 to 256": wrong_iuv_to_dsap,
    "batch: sizes up, down and the same": wrong_assemble_batch,
    "batch: drawing the augmentation": wrong_draw_augmentation,
    "merge: sizes and types": wrong_merge_parts,
    "ranks: sizes, ties, types": wrong_count_ranks,
}


def test_planted_wrong_results_fail(capsys, monkeypatch, tmp_path):
    for wrong in WRONG.values():
        monkeypatch.setattr(cases, wrong.__name__.removeprefix("wrong_"), wrong)
    file = tmp_path / "result.json"
    assert selftest.main([*QUICK, "--json", str(file)]) == 1
    assert "self-test FAILED" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert not result["passed"]
    for group in WRONG:
        ours = [failure for failure in result["failures"] if failure.startswith(group)]
        assert ours and all("elements differ, the first at" in failure for failure in ours), group


def test_an_exception_is_a_failure_and_the_rest_runs(capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("an illegal memory access\nand more")

    monkeypatch.setattr(cases, "merge_parts", broken)
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


def test_differences_are_found_bit_by_bit():
    zero = torch.zeros(3)
    assert cases.difference([zero], [zero.clone()]) is None
    words = cases.difference([zero], [-zero])
    assert "3 of 3 elements differ, the first at (0,): 0.0 instead of -0.0" in words
    assert "float16" in cases.difference([zero.half()], [zero])
    assert "[2]" in cases.difference([zero[:2]], [zero])
    assert "0 results" in cases.difference([], [zero])


@pytest.mark.parametrize("layout", ["plain", "channels last", "swapped", "gaps", "offset"])
def test_layouts_hold_the_values_and_nothing_else(layout):
    values = cases.random((2, 3, 5, 4), torch.float32)
    base, view = cases.spread(values.shape, values.dtype, layout, "cpu")
    view.copy_(values)
    assert torch.equal(cases.lay_out(values, layout, "cpu"), values)
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


NAMES = list(cuda.out_calls("cpu"))
LARGE = {
    "output": lambda: cuda.check_large_output("cpu", 100_000, size=16),
    "gradient": lambda: cuda.check_large_gradient("cpu", 100_000, size=16),
    "input": lambda: cuda.check_large_input("cpu", 10_000),
    "batch": lambda: cuda.check_large_batch("cpu", 10_000, stored=16, wanted=24),
    "merge": lambda: cuda.check_large_merge("cpu", 10_000, inner=64),
    "ranks": lambda: cuda.check_large_ranks("cpu", 20_000, gallery=512),
}


@pytest.mark.parametrize("name", NAMES)
def test_stream_and_graph_checks_pass(pretend, name):
    assert cuda.check_stream(name, "cpu") is None
    assert cuda.check_capture(name, "cpu") is None


def test_stream_checks_of_host_memory_pass(pretend):
    assert cuda.check_ranks_stream("cpu") is None
    assert cuda.check_batch_stream("cpu") is None


def test_stream_check_of_the_batch_sees_a_copy_that_comes_too_late(pretend):
    """What the kernel would make of an index that the caller has overwritten meanwhile."""
    right = cuda.assemble_batch
    calls = []

    def late(images, iuv, index, params, **options):
        calls.append(index)
        overwritten = index if len(calls) == 1 else torch.zeros_like(index)
        return right(images, iuv, overwritten, params, **options)

    pretend.setattr(cuda, "assemble_batch", late)
    assert "differ" in cuda.check_batch_stream("cpu")


def test_foreign_index_check(monkeypatch):
    """On the CPU a foreign index is refused; a stand-in gives what the kernel must give, or does not."""
    right = cuda.assemble_batch

    def kernel(empty):
        def run(images, iuv, index, params, **options):
            foreign = (index < 0) | (index >= len(images))
            results = right(images, iuv, index.masked_fill(foreign, 0), params, **options)
            for x in results:
                x[foreign] = empty
            return results

        return run

    monkeypatch.setattr(cuda, "assemble_batch", kernel(0.5))
    assert cuda.check_foreign_index("cpu") is None
    monkeypatch.setattr(cuda, "assemble_batch", kernel(0.0))
    assert "differ" in cuda.check_foreign_index("cpu")


@pytest.mark.parametrize("name", LARGE)
def test_large_checks_pass(pretend, name):
    assert LARGE[name]() is None


@pytest.mark.parametrize("name", NAMES)
def test_stream_check_sees_a_result_from_too_early(pretend, name):
    """What a kernel on the wrong stream computes: the result of the inputs before they are right."""
    expected = cuda.expected_of(name)
    inputs, out, call = cuda.out_calls("cpu")[name]

    def too_early():
        right = [x.clone() for x in inputs]
        cuda.overwrite(inputs)
        call()
        cuda.overwrite(inputs, right)

    pretend.setattr(cuda, "out_calls", lambda device: {name: (inputs, out, too_early)})
    pretend.setattr(cuda, "expected_of", lambda name: expected)
    assert "differ" in cuda.check_stream(name, "cpu")


@pytest.mark.parametrize("name", NAMES)
def test_graph_check_sees_what_is_wrong(pretend, name):
    pretend.setattr(cuda, "capture", lambda call: lambda: None)
    assert "anew" in cuda.check_capture(name, "cpu")
    count = iter(range(100))
    pretend.setattr(cuda, "allocations", lambda: next(count))
    assert "allocates" in cuda.check_capture(name, "cpu")


def overflowing(function):
    """Right for a few images, wrong from there on, as an index of 32 bits would be."""

    def run(first, *arguments, **options):
        result = function(first, *arguments, **options)
        tensors = result if isinstance(result, tuple) else (result,)
        if len(first) > 1:
            with torch.no_grad():
                for tensor in tensors:
                    tensor[-1] = 0
        return result

    return run


@pytest.mark.parametrize(
    "name,function",
    [
        ("output", "iuv_to_dsap"),
        ("input", "iuv_to_dsap"),
        ("batch", "assemble_batch"),
        ("merge", "merge_parts"),
        ("ranks", "count_ranks"),
    ],
)
def test_large_checks_see_an_overflow(pretend, name, function):
    if name == "batch":  # compared one sample at a time
        assemble = cuda.assemble_batch

        def wrong(images, iuv, index, **options):
            image, dsap = assemble(images, iuv, index, **options)
            if len(index) > 1:
                image[-1] = 0
            return image, dsap
    elif name == "ranks":  # compared four queries at a time
        wanted = cuda.count_ranks

        def wrong(distances, *labels):
            ranks, found = wanted(distances, *labels)
            if len(distances) > 4:
                ranks[-1], found[-1] = 0, 0
            return ranks, found
    else:
        wrong = overflowing(getattr(cuda, function))
    pretend.setattr(cuda, function, wrong)
    assert LARGE[name]() is not None


def test_what_cannot_be_checked_is_no_failure(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (10**9, 10**10))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 0)
    cuda.need(10**9)
    with pytest.raises(NotChecked, match="needs 4 GB of device memory, 2 are free"):
        cuda.need(4 * 10**9)
    with pytest.raises(NotChecked, match="one device"):
        cuda.check_second_device([])
    group = selftest.run_group("large", [("x", lambda: cuda.need(4 * 10**9))])
    assert not group.failures and "not checked: x (needs 4 GB" in group.line()


def test_every_group_of_cuda_checks_is_made(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    groups = dict(cuda.cuda_checks())
    assert len(groups) == 5 and all(groups.values())


# ------------------------------------------------------------------------------------- measuring


def test_every_typical_operation_runs():
    operations = measure.typical(batch=1, queries=4, gallery=100)
    names = [operation.name for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert operation.bytes > 0
        operation.prepare("cpu")()


def test_profile_runs_each_operation(capsys, monkeypatch):
    operations = measure.typical(batch=1, queries=4, gallery=100)
    monkeypatch.setattr(measure, "typical", lambda: operations)
    assert selftest.main(["--device", "cpu", "--profile"]) == 0
    assert capsys.readouterr().out.count("ran ") == len(operations)


def test_cuda_medians(monkeypatch):
    """With a clock of ours for the device's: warm-up is left out, every round runs all, medians."""
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

    seconds = measure.cuda_medians({"a": work("a", 2), "b": work("b", 3)}, rounds=3, warm_up=1)
    assert seconds == {"a": pytest.approx(2e-3), "b": pytest.approx(3e-3)}
    assert turns == [(name, turn) for turn in (-1, 0, 1, 2) for name in "ab"]


def test_bandwidth_is_set_beside_the_copy(monkeypatch):
    operation = measure.Typical("warp", 10**9, lambda device: lambda: None)
    monkeypatch.setattr(measure, "typical", lambda: [operation])
    monkeypatch.setattr(measure, "copy_bandwidth", lambda: 2e12)
    monkeypatch.setattr(measure, "cuda_medians", lambda work, rounds: {"": 1e-3})
    rows = selftest.bandwidth(5)
    assert rows[1]["bytes_per_second"] == 1e12 and rows[1]["floor_seconds"] == 5e-4
    lines = selftest.bandwidth_lines(rows)
    assert "2,000 GB/s" in lines[0]
    assert lines[-1].split() == ["warp", "1000.0", "500.0", "2.00", "1000", "50%"]
