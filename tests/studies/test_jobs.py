"""Runs of a study: resumed, skipped when finished, and one that fails stops no other."""

import json

import pytest
from runs import tiny_config

from studies import jobs


def test_a_finished_run_is_not_run_again_and_a_failing_one_stops_no_other(tmp_path, capfd):
    done, failing, good = (tmp_path / f"{name}.json" for name in ("done", "failing", "good"))
    done.write_text("as it was")
    record = json.dumps({"features": {"mf": {"mAP": 0.5}}, "cpu_seconds": 3.0})
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    commands = {
        done: ["-c", "raise SystemExit('must not run')"],
        failing: ["-c", "raise SystemExit('a reason')"],
        good: ["-c", write, str(good), record],
    }
    jobs.work_through(commands, tmp_path / "logs", 1)
    assert done.read_text() == "as it was" and not failing.exists()
    assert "a reason" in (tmp_path / "logs/failing.txt").read_text()
    said = "".join(capfd.readouterr())
    assert f"failing: failed; see {tmp_path / 'logs/failing.txt'}" in said
    assert "good: mAP mf 50.0; 3 s" in said


def test_a_run_writes_its_record_once(tiny_data, tmp_path, monkeypatch):
    """With what was asked, without folders of the machine; names with a dot keep their own CPU time."""
    monkeypatch.setattr(jobs.torch, "set_num_threads", lambda count: None)
    config = tiny_config(
        tiny_data, tmp_path / "runs" / "rate-0.5-0", epochs=1, model="two-branch", guidance="add"
    )
    result = tmp_path / "results" / "rate-0.5-0.json"
    jobs.run_here(config, result, {"arm": "rate-0.5", "seed": 0}, ["mf"], data="tiny", every=True)
    record = json.loads(result.read_text())
    assert (record["arm"], record["seed"], record["data"]) == ("rate-0.5", 0, "tiny")
    assert record["settings"]["data"] == "tiny" and str(tmp_path) not in result.read_text()
    assert 0 <= record["features"]["mf"]["mAP"] <= 1 and record["features"]["mf"]["queries"] > 0
    assert record["last_epoch"].keys() >= {"loss", "norm/f", "accuracy/f"}
    assert record["cpu_seconds"] > 0


def test_the_time_of_a_run_is_that_of_all_its_parts(tmp_path):
    """Names with a dot have notes of their own, and steps whose time nobody noted are refused."""
    run, other = tmp_path / "rate-0.5-0", tmp_path / "rate-0.25-0"
    run.mkdir()
    assert jobs.Clock(run, False).stop() < 1
    (tmp_path / "rate-0.5-0.seconds").write_text("70.0 2")
    (run / "log.jsonl").write_text("{}\n{}\n")
    assert 70 <= jobs.Clock(run, True).stop() < 71
    assert jobs.Clock(run, False).stop() < 1
    assert not (tmp_path / "rate-0.25-0.seconds").exists()
    (run / "log.jsonl").write_text("{}\n{}\n{}\n")
    with pytest.raises(SystemExit, match="how long it took is not known"):
        jobs.Clock(run, True)
    other.mkdir()
    jobs.Clock(other, True)  # it has taken no step


def test_an_interrupt_begins_no_further_run(tmp_path, monkeypatch):
    def interrupted(self, *arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs.tqdm, "write", interrupted)
    write = "import pathlib, sys, time; time.sleep(0.2); pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    record = json.dumps({"features": {}, "cpu_seconds": 0.0})
    results = [tmp_path / f"{k}.json" for k in range(5)]
    with pytest.raises(KeyboardInterrupt):
        jobs.work_through({x: ["-c", write, str(x), record] for x in results}, tmp_path / "logs", 1)
    assert sum(x.exists() for x in results) <= 2


def test_each_query_is_kept_by_person(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.torch, "set_num_threads", lambda count: None)
    config = tiny_config(tiny_data, tmp_path / "run", epochs=1, model="two-branch")
    result = tmp_path / "run.json"
    jobs.run_here(
        config,
        result,
        {},
        ["mf", "mf-local"],
        data="tiny",
        every=False,
        keep=True,
        more=lambda run: {"also": run.config.seed},
    )
    record = json.loads(result.read_text())
    assert record["also"] == config.seed
    kept = record["queries"]
    for name, figures in record["features"].items():
        each = [float(ap) for ap in kept[name].split()]
        assert len(each) == len(kept["people"].split()) == figures["queries"]
        assert sum(each) / len(each) == pytest.approx(figures["mAP"], abs=1e-4)
    named = [int(path.name[:4]) for path in sorted((tiny_data / "query").glob("*.png"))]
    assert [int(person) for person in kept["people"].split()] == named
