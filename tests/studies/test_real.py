"""The study on real people, on people who are not real: its splits, its arms, its page."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from studies.real import colours, people, report, stages, where

FOLDER = Path(__file__).parents[2] / "studies/real"


def test_the_held_out_people_are_the_same_everywhere():
    found = people.held_out(set(range(1, 768)))
    assert len(found) == people.HELD_OUT == 100
    assert found == people.held_out(set(range(767, 0, -1)))
    assert sorted(found)[:5] == [9, 39, 49, 50, 51]


def test_the_tuning_split_holds_out_people_not_images(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(people, "HELD_OUT", 2)
    people.tuning_split(tiny_data, tmp_path / "tuning")
    before = [entry for entry in list_data(tiny_data).entries if entry.split == TRAIN]
    found = list_data(tmp_path / "tuning")
    assert len(found.entries) == len(before) and not found.without_map([TRAIN, QUERY, GALLERY])
    with (tmp_path / "tuning/data.csv").open() as file:
        rows = list(csv.DictReader(file))
    train, test = ({row["identity"] for row in rows if (row["split"] == "train") == x} for x in (True, False))
    assert len(test) == 2 and not train & test
    asked = [(row["identity"], row["camera"]) for row in rows if row["split"] == "query"]
    assert (
        len(asked)
        == len(set(asked))
        == len({(r["identity"], r["camera"]) for r in rows if r["split"] != "train"})
    )


def test_masked_pictures_show_the_person_alone(tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(people, "HELD_OUT", 2)
    people.tuning_split(tiny_data, tmp_path / "tuning")
    people.masked(tmp_path / "tuning", tmp_path / "masked")
    entries = {entry.name: entry for entry in list_data(tmp_path / "masked").entries}
    for entry in list_data(tmp_path / "tuning").entries:
        found = np.asarray(Image.open(tmp_path / "masked" / Path(entry.name).with_suffix(".png")))
        before = np.asarray(Image.open(tmp_path / "tuning" / entry.name).convert("RGB"))
        seen = people.read_iuv(tmp_path / "tuning" / entry.iuv)[..., 0] > 0
        assert np.array_equal(found[seen], before[seen]) and len(np.unique(found[~seen], axis=0)) == 1
        assert str(Path(entry.name).with_suffix(".png")) in entries


def test_sides_of_pku(tmp_path):
    for name in ("001/01_1.png", "001/02_5.png", "003/01_8.png"):
        (tmp_path / "pku" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16)).save(tmp_path / "pku" / name)
    people.pku_sides(tmp_path / "pku", tmp_path / "out")
    rows = list(csv.reader((tmp_path / "out/data.csv").open()))[1:]
    assert rows == [
        ["001/01_1.png", "001", "query", "1"],
        ["001/02_5.png", "001", "gallery", "2"],
        ["003/01_8.png", "003", "query", "1"],
    ]


@pytest.fixture
def trials_done(tmp_path, monkeypatch):
    """Finished trials: of each arm the second is best; pool is better than texture and takes 25 % longer than
    two-branch."""
    (tmp_path / "done/tuning").mkdir(parents=True)
    monkeypatch.setattr(stages, "RESULTS", tmp_path / "done")
    for arm in stages.COUNTED:
        for _ in range(2):  # the last trial is known once the first are finished
            for number, name in enumerate(stages.trials(arm)):
                score = 0.5 + 0.1 * (number == 1) + 0.01 * (arm == "pool")
                record = {"features": {"mf": {"mAP": score}}}
                (tmp_path / f"done/tuning/{arm}-{name}-0.json").write_text(json.dumps(record))
    forms = {name: {"seconds": 0.25, "ratio": 1.0, "once": 0.0} for name in stages.costed_arms()}
    forms["pool"]["ratio"] = 1.25
    (tmp_path / f"done/{stages.COSTS}").write_text(json.dumps({"steps": 100, "forms": forms}))


def test_counted_arms_have_the_best_trials(trials_done):
    arms = stages.counted_arms()
    assert arms["two-branch"] == stages.trials("two-branch")["0.002"]
    assert arms["pool-others"] == stages.trials("pool-others")["0.003-1.5"]
    assert stages.best_form() == "pool"
    assert arms["two-branch-long"].changes == {**arms["two-branch"].changes, "epochs": 10}
    counted, confirmed = (stages.STAGES[name].find_arms() for name in ("counted", "confirmed"))
    assert counted.keys() == confirmed.keys() == arms.keys()
    config = confirmed["pool"].config(Path("w"), Path("o"), Path("f"), 3)
    assert (config.protocol, config.data) == ("485-s3", Path("w/data/CUHK01"))


def test_trials_come_before_counted_runs(trials_done):
    assert list(stages.trials("texture")) == ["0.003-1", "0.003-4", "0.002-4"]
    (stages.RESULTS / "tuning/texture-0.002-4-0.json").unlink()
    with pytest.raises(SystemExit, match="texture-0.002-4-0.json: this trial is not finished"):
        stages.counted_arms()
    (stages.RESULTS / "tuning/pool-stripes-0.003-0.5-0.json").unlink()
    (stages.RESULTS / "tuning/texture-0.003-1-0.json").unlink()
    assert list(stages.trials("texture")) == ["0.003-1", "0.003-4"]


def test_an_arm_joins_once_its_trials_are_finished(trials_done):
    (stages.RESULTS / "tuning/pool-stripes-0.003-0.5-0.json").unlink()
    arms = stages.counted_arms()
    assert "pool-stripes" not in arms and {"pool", "pool-others", "two-branch-long"} < arms.keys()


def test_costs_come_before_counted_runs(trials_done):
    (stages.RESULTS / stages.COSTS).unlink()
    with pytest.raises(SystemExit, match="cost.json: costs are not measured; `cost` comes first"):
        stages.counted_arms()


def test_the_stages_are_those_of_the_plan():
    plan = (FOLDER / "PLAN.md").read_text()
    for name in stages.STAGES:
        assert f"| {name} |" in plan
    for fed in report.LADDER:
        assert {f"{form}-{fed}" for form in report.FUSED} <= stages.CEILING.keys()


@pytest.mark.parametrize("stage", stages.STAGES)
def test_every_arm_has_settings_that_go_together(stage, tmp_path, trials_done):
    for name, arm in stages.STAGES[stage].find_arms().items():
        config = arm.config(tmp_path, tmp_path / name, tmp_path / "weights.pt", 3)
        assert (config.seed, config.network.trunk) == (3, "mobilenetv2_100")
        assert (config.height, config.width, config.dsap_size) == (128, 64, 16)
        assert config.augment.drop_person == config.augment.drop_part == 0


def test_dotted_changes_reach_inside():
    arm = stages.Arm(stages.rate(0.5) | {"augment.erase": 0.125})
    config = arm.config(Path("a"), Path("b"), Path("c"), 0)
    assert (config.optim.rate, config.optim.warm_up_from, config.augment.erase) == (0.5, 0.005, 0.125)
    assert config.optim.schedule == "cosine"


def test_mean_colours_by_hand():
    pixels = colours.torch.zeros(1, 8, 4, 3, dtype=colours.torch.uint8)
    pixels[0, 0], pixels[0, 1] = 51, 102
    iuv = colours.torch.zeros_like(pixels)
    iuv[0, 0, :2, 0], iuv[0, 1, 0, 0] = 3, 4  # both hands
    found, seen = colours.stripes(pixels, iuv)
    assert seen.all() and found[0, 0, 0] == pytest.approx(0.2) and found[0, 2, 0] == 0
    found, seen = colours.masked_stripes(pixels, iuv)
    assert seen[0].tolist() == [True, True] + [False] * 6
    found, seen = colours.body_parts(pixels, iuv)
    assert seen[0].tolist() == [False, True] + [False] * 6 and found[0, 1, 0] == pytest.approx(0.8 / 3)
    found, seen = colours.parts(pixels, iuv)
    assert found[0, 2, 0] == pytest.approx(0.2) and found[0, 3, 0] == pytest.approx(0.4) and seen.sum() == 2


def test_the_distance_is_over_common_regions():
    values = colours.torch.tensor([[[1.0] * 3, [9.0] * 3], [[3.0] * 3, [0.0] * 3], [[5.0] * 3, [5.0] * 3]])
    seen = colours.torch.tensor([[True, False], [True, True], [False, True]])
    found = colours.distances(values, seen)
    assert found[0, 1] == pytest.approx(12) and found[1, 2] == pytest.approx(75)
    assert found[0, 2] == found.max()  # nothing in common


def test_the_page_holds_the_tables_of_its_runs(tmp_path, capsys):
    """What is in the repository is what the runs in it give."""
    shutil.copytree(FOLDER, tmp_path / "real")
    report.write(tmp_path / "real", list(stages.STAGES))
    assert (tmp_path / "real/README.md").read_text() == (FOLDER / "README.md").read_text()


def test_the_ladder_takes_differences_within_a_seed(tmp_path):
    def record(arm, seed, f, z):
        return {"arm": arm, "seed": seed, "features": {"mf": {"mAP": f}, "fused": {"mAP": z}}}

    runs = {
        "two-branch": {0: {"features": {"mf": {"mAP": 0.5}}}, 1: {"features": {"mf": {"mAP": 0.6}}}},
        "add-dsap": {0: record("add-dsap", 0, 0.52, 0.58), 1: record("add-dsap", 1, 0.61, 0.66)},
        "add-csa": {0: record("add-csa", 0, 0.5, 0.55)},
    }
    table = report._ladder(runs)
    assert "| what the alignment inside them is worth | add | +3.0 | +3.0 | +2.0 | +2.0 |" in table
    assert "| add-dsap | 1.5 ±0.7 | 7.0 ±1.4 | 0.21 |" in table


def test_the_counted_runs_become_tables(trials_done, tmp_path):
    """pool is the form; it is two points ahead of everything, on every query."""
    draw, folder = np.random.default_rng(0), tmp_path / "page"
    folder.mkdir()
    people = np.repeat(np.arange(20), 3)
    (folder / "where.json").write_text(json.dumps({x: draw.random(60).tolist() for x in where.NAMES}))
    runs = {}
    for arm in stages.counted_arms():
        runs[arm] = {}
        for seed in range(5):
            ap = np.linspace(0.2, 0.8, 60) + 0.001 * seed + 0.02 * (arm == "pool") * (1 + 0.01 * seed)
            runs[arm][seed] = {
                "features": {"mf": {"mAP": ap.mean(), "rank1": 0.5}},
                "queries": {
                    "people": " ".join(map(str, people)),
                    "mf": " ".join(f"{x:.5f}" for x in ap),
                },
                "changes": {"model": arm},
                "sides": dict.fromkeys(report.ANGLES, 0.5),
                "colours": 0.25,
                "data": "CUHK03",
                "date": "2026-01-02",
                "cpu_seconds": 60.0,
                "machine": {"cpu": "a processor", "torch": "2"},
                "last_epoch": {},
            }
    parts = "\n".join(report.counted_parts(folder, runs, runs))
    assert re.search(
        r"\| pool - two-branch-long \| (\+2.\d, ){4}\+2.\d \| \+2.0 \|.*\| \+2.0, the same sign \| won \|",
        parts,
    )
    assert re.search(r"\| pool - pool-others \|.*\| won \|", parts)
    assert re.search(r"\| texture - texture-others \|.*\| exploratory \|", parts)
    assert "| pool | 50.0 ±0.0 | 50.0 ±0.0 | 50.0 ±0.0 | 0.250 |" in parts and "(+2.0)" in parts
    assert (folder / report.WHERE).exists()
    assert "| back (20) | " in parts and parts.count("(+2.0)") >= 9  # pool, in each third
    heads = next(line for line in parts.splitlines() if line.startswith("| queries"))
    assert (
        heads
        == "| queries | two-branch-long | " + " | ".join(x for x in runs if x != "two-branch-long") + " |"
    )
    del runs["pool-others"][4], runs["two-branch-long"][0]
    unfinished = "\n".join(report.counted_parts(folder, runs, runs))
    assert " won " not in unfinished and unfinished.count(" not finished ") == 2 and "(+2.0)" in unfinished
    assert "+2.0, 4 of 5 splits" in unfinished
    runs["pool"][1]["changes"] = {"epochs": 11}
    with pytest.raises(ValueError, match="pool: its seeds have other settings"):
        report.counted_parts(folder, runs, {})
    runs["pool"][2]["queries"]["people"] = "1 2 3"
    with pytest.raises(ValueError, match="2 different lists of queries"):
        report.counted_parts(folder, runs, {})


def test_no_record_has_a_folder_of_a_machine():
    for path in FOLDER.rglob("*.json"):
        text = path.read_text()
        assert "/home" not in text and "/work" not in text and "/tmp" not in text
        json.loads(text)
