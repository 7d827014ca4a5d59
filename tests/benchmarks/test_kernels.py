"""The kernel contests' peers compute what dsa_ext does: on the CPU, small, without torch.compile."""

import argparse
import importlib
import sys
from types import SimpleNamespace

import pretended_cupy
import pytest
import torch


@pytest.fixture
def bench(monkeypatch):
    def no_compiler(*arguments, **options):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", no_compiler)
    return importlib.import_module("kernels")


@pytest.fixture
def card(monkeypatch):
    """Triton and CuPy as on a card: the one interprets its kernels, the other is pretended."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delitem(sys.modules, "peers.warp_triton", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", pretended_cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    yield
    sys.modules.pop("peers.warp_triton", None)


def test_every_peer_agrees_and_missing_ones_are_named(bench, card):
    contests = list(bench.contests(1, "cpu"))
    for contest in contests:
        work, missing, wrong = bench.verified(contest)
        assert not wrong and list(work)[0] == "dsa_ext" and contest.bytes > 0
        assert sorted([*work, *missing]) == sorted(["dsa_ext", *contest.peers])
        for name in missing:
            assert "compile" in name and "no compiler here" in missing[name]
    titles = [contest.title for contest in contests]
    assert len(titles) == len(set(titles)) == 2 + 16 + 1 + 4
    compiled = [title for contest in contests for title in contest.peers if "compile" in title]
    assert len(compiled) == 2 + 2 + 0 + 5


@pytest.mark.parametrize("at", [0, 2, 18, 19])
def test_a_wrong_peer_is_named_and_not_timed(bench, at):
    contest = list(bench.contests(1, "cpu"))[at]
    name = next(name for name in contest.peers if "torch" in name)
    make = contest.peers[name]

    def wrong(turn):
        result = make()(turn)
        first = result[0] if isinstance(result, tuple) else result
        first.flatten()[0].add_(1) if first.is_contiguous() else first.add_(1)
        return result

    contest.peers = {name: lambda: wrong}
    work, missing, differing = bench.verified(contest)
    assert (list(work), missing, list(differing)) == (["dsa_ext"], {}, [name])
    assert "not equal" in differing[name] or "not close" in differing[name]


def test_what_is_compared_apart_is_compared(bench, card, monkeypatch):
    contest = next(x for x in bench.contests(1, "cpu") if x.apart)
    module = importlib.import_module("contests.warp")
    monkeypatch.setattr(module, "winners_only", lambda image, iuv: iuv)  # where pixels do meet
    monkeypatch.setattr(contest, "peers", {name: contest.peers[name] for name in contest.apart})
    assert module.SPLATTING in bench.verified(contest)[2]


def test_the_run_goes_on_after_a_wrong_peer_and_fails(bench, monkeypatch, capsys):
    contests = list(bench.contests(1, "cpu"))[2:4]
    contests[0].peers = {"none": lambda: lambda turn: torch.zeros_like(contests[0].ours(turn))}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bench.measure, "copy_bandwidth", lambda: 1e12)
    monkeypatch.setattr(bench.measure, "cuda_runs", lambda work, rounds: {name: [1e-3] for name in work})
    monkeypatch.setattr(bench, "contests", lambda batch, device: contests)
    monkeypatch.setattr(importlib.import_module("result"), "_machine", lambda: "a machine")
    monkeypatch.setattr("sys.argv", ["kernels.py"])
    assert bench.main() == 1
    printed = capsys.readouterr().out
    assert f"{contests[0].title}, none: not timed, its result is another one: Tensor-likes are" in printed
    assert f"{contests[1].title}" in printed


def test_the_floor_is_what_must_move(bench):
    contest = next(bench.contests(1, "cpu"))
    result = bench.Result(argparse.Namespace(json=None))
    bench.report(result, contest, {"dsa_ext": [1e-3, 1e-3], "peer": [2e-3, 2e-3]}, copy=1e12)
    (cells,) = result.tables["Kernels"].cases.values()
    assert cells["peer"].ratio == 2 and cells["floor"].median == pytest.approx(contest.bytes / 1e6)


def test_without_a_gpu(bench, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["kernels.py"])
    assert bench.main() == 2
    assert "needs a CUDA device" in capsys.readouterr().err
