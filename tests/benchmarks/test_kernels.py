"""The kernel contests' peers compute what dsa_ext does: on the CPU, small, without torch.compile."""

import argparse
import importlib

import pytest
import torch


@pytest.fixture
def bench(monkeypatch):
    def no_compiler(*arguments, **options):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", no_compiler)
    return importlib.import_module("kernels")


def test_peers_agree_and_missing_ones_are_named(bench):
    contests = list(bench.contests(1, "cpu"))
    for contest in contests:
        bench.verify(contest)
        assert len(contest.work) >= 2 and "dsa_ext" in contest.work and contest.bytes > 0
        if not contest.title.startswith("count_ranks"):
            assert "no compiler here" in contest.missing["the same, torch.compile"]
    titles = [contest.title for contest in contests]
    assert len(titles) == len(set(titles)) == 3 + 1 + 16 + 1
    arguments = argparse.Namespace(json=None)
    result = bench.Result(arguments)
    bench.report(result, contests[0], {"dsa_ext": [1e-3, 1e-3], "peer": [2e-3, 2e-3]}, copy=1e12)
    (cells,) = result.tables["Kernels"].cases.values()
    assert cells["peer"].ratio == 2 and cells["floor"].median == pytest.approx(contests[0].bytes / 1e6)
    assert f"{contests[0].title}, the same, torch.compile: not run" in result.notes[0]


@pytest.mark.parametrize("at", [0, 1, 17, -1])
def test_a_wrong_peer_stops_the_benchmark(bench, at):
    contest = list(bench.contests(1, "cpu"))[at]
    name = [name for name in contest.work if name != "dsa_ext"][0]
    right = contest.work[name]

    def wrong(turn):
        result = right(turn)
        first = result[0] if isinstance(result, tuple) else result
        first.flatten()[0].add_(1) if first.is_contiguous() else first.add_(1)
        return result

    contest.work[name] = wrong
    with pytest.raises(SystemExit, match="does not agree with dsa_ext"):
        bench.verify(contest)


def test_without_a_gpu(bench, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["kernels.py"])
    assert bench.main() == 2
    assert "needs a CUDA device" in capsys.readouterr().err
