"""The study: its arms are those of the plan, its tables say what the runs say. No ordering is asked for."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
from scipy import stats

FOLDER = Path(__file__).parents[2] / "studies/synthetic"


@pytest.fixture(scope="module")
def modules():
    return load("run"), load("report")


def load(name):
    """A script of the study, under a name of its own: `run` and `report` are words of others too."""
    spec = importlib.util.spec_from_file_location(f"synthetic_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_arms_are_those_of_the_plan(modules):
    study, report = modules
    plan = (FOLDER / "PLAN.md").read_text()
    named = {arm for row in re.findall(r"^\| ([a-z, -]+) \| .* \| f", plan, re.M) for arm in row.split(", ")}
    assert named - {"arm"} == set(study.ARMS) - {"patches-kept"}  # which is beyond the plan
    for asked in report.DIFFERENCES:
        for arm, features in asked.plus + asked.minus:
            assert features in study.ARMS[arm].features()


def test_settings_of_an_arm(modules, tmp_path):
    study, _ = modules
    kept = study.ARMS["dsa-exact-kept"]
    config, data = kept.config(tmp_path, tmp_path, 2), kept.data(2)
    assert (data.seed, data.iuv, data.boxes) == (2, "exact", "misaligned")
    assert (data.identities, data.images) == (320, 8)
    assert config.seed == 2 and config.augment.drop_person == config.augment.drop_part == 0
    usual = study.ARMS["dsa"].config(tmp_path, tmp_path, 2)
    assert (usual.augment.drop_person, usual.augment.drop_part) == (0.3, 0.2)
    assert study.ARMS["csa"].config(tmp_path, tmp_path, 0).guide_input == "part-crops"


def write_run(folder, arm, seed, **features):
    record = {
        "arm": arm,
        "seed": seed,
        "data": "misaligned-mild",
        "date": "2026-01-02",
        "cpu_seconds": 9.0,
        "machine": {"cpu": "a processor", "torch": "2"},
        "last_epoch": {"norm/f": 1.0},
        "features": {name: {"mAP": x, "rank1": x} for name, x in features.items()},
    }
    (folder / f"{arm}-{seed}.json").write_text(json.dumps(record))


@pytest.fixture
def results(tmp_path):
    """Three seeds of two arms, one of them with a seed more than the other."""
    (tmp_path / "runs").mkdir()
    for seed, (two, dsa) in enumerate([(0.50, 0.54), (0.60, 0.61), (0.70, 0.73)]):
        write_run(tmp_path / "runs", "two-branch", seed, mf=two)
        write_run(tmp_path / "runs", "dsa", seed, mf=dsa, fused=dsa + 0.1)
    begin = "<!-- made by run.py report -->"
    (tmp_path / "README.md").write_text(f"before\n{begin}\nold\n<!-- end -->\nafter\n")
    return tmp_path


def test_differences_are_taken_within_a_seed(modules, results, capsys):
    study, report = modules
    report.write(results, study.ARMS)
    page = (results / "README.md").read_text()
    assert page.startswith("before\n") and page.endswith("<!-- end -->\nafter\n") and "old" not in page
    assert "6 runs, 2026-01-02, a processor, torch 2; the longest took 9 s of a core." in page
    low, high = stats.t.interval(0.95, 2, loc=8 / 3, scale=stats.tstd([4, 1, 3]) / 3**0.5)
    row = next(line for line in page.splitlines() if "DSA - two-branch, f" in line)
    assert f"| +4.0, +1.0, +3.0 | +2.7 | 1.5 | {low:+.1f} to {high:+.1f} | undecided |" in row
    assert "| DSA: z - f | +10.0, +10.0, +10.0 | +10.0 | 0.0 |" in page.replace("beyond the plan. ", "")
    assert (results / "curves.png").stat().st_size > 1000
    report.write(results, study.ARMS)
    assert (results / "README.md").read_text() == page


def test_seeds_that_one_arm_lacks_do_not_count(modules, results, capsys):
    study, report = modules
    (results / "runs/dsa-1.json").unlink()
    report.write(results, study.ARMS)
    page = (results / "README.md").read_text()
    assert "| +4.0, +3.0 | +3.5 | 0.7 |  | not finished |" in page


def test_the_page_holds_the_tables_of_its_runs(modules, tmp_path, capsys):
    """What is in the repository is what the runs in it give."""
    study, report = modules
    folder = FOLDER
    (tmp_path / "runs").symlink_to(folder / "runs")
    (tmp_path / "README.md").write_text((folder / "README.md").read_text())
    report.write(tmp_path, study.ARMS)
    assert (tmp_path / "README.md").read_text() == (folder / "README.md").read_text()
