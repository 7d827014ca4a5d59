"""dsareid reproduce on miniature data: every row starts, trains, is evaluated; and it goes on."""

import csv
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from dsareid.commands.main import main
from dsareid.data.iuv import write_iuv
from dsareid.engine.learner import Learner
from dsareid.engine.loop import Interrupted
from dsareid.engine.presets import PRESETS
from dsareid.ground.errors import DSAError
from dsareid.models.options import NetworkConfig
from dsareid.reproduce import run as module
from dsareid.reproduce.recipes import TABLES
from dsareid.reproduce.run import reproduce
from dsareid.runs.config import load_config

SMALL = {
    "epochs": 1,
    "height": 64,
    "width": 32,
    "dsap_size": 8,
    "identities": 2,
    "images": 2,
    "device": "cpu",
    "network": NetworkConfig(width=1 / 8, head_width=1 / 8, depths=(1, 1, 1, 1)),
}


@pytest.fixture
def small_presets(monkeypatch):
    monkeypatch.setitem(PRESETS, "demo", PRESETS["demo"] | SMALL)


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_every_table(tiny_data, tmp_path, capsys, small_presets, table):
    out = tmp_path / "out"
    status = main(
        [
            "reproduce",
            table,
            "--data",
            str(tiny_data),
            "--out",
            str(out),
            "--preset",
            "demo",
            "--device",
            "cpu",
        ]
    )
    printed, errors = capsys.readouterr()
    assert status == 0, errors
    rows = [row for row in TABLES[table] if not row.network.pretrained]
    text = (out / f"{table}.txt").read_text()
    assert text.rstrip() in printed and all(row.name in text for row in rows)
    with (out / f"{table}.csv").open() as file:
        lines = list(csv.DictReader(file))
    ours = [line for line in lines if line["network"]]
    assert [line["row"] for line in ours] == [row.name for row in rows for _ in range(4)]
    assert all(0 < float(line["mean"]) <= 100 for line in ours)
    page = (out / f"{table}.html").read_text()
    assert all(row.name in page for row in rows) and "http" not in page.replace("http://www.w3.org", "")
    assert ("paper" in lines[0]) == any(row.paper for row in rows)
    assert len(list(out.glob("*/seed-0/checkpoint.pt"))) == len({row.network for row in rows})


def test_tables_share_networks_and_nothing_is_done_twice(tiny_data, tmp_path, capsys, monkeypatch):
    reproduce("table5", tiny_data, tmp_path, "demo", changes=SMALL)
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    reproduce("table5", tiny_data, tmp_path, "demo", changes=SMALL)
    monkeypatch.undo()
    trained = []
    original = module.train
    monkeypatch.setattr(module, "train", lambda c, **k: trained.append(c.out.parent.name) or original(c, **k))
    reproduce("table4", tiny_data, tmp_path, "demo", changes=SMALL)
    assert trained == ["baseline-re-ls", "csa"]


def test_it_goes_on_where_it_was_stopped(tiny_data, tmp_path, monkeypatch):
    """By Ctrl-C in the third step of the second network, of eight steps each."""
    changes = SMALL | {"epochs": 2}
    steps, original = [], Learner.step

    def step(self, *arguments, **options):
        steps.append(self.config.out)
        if len(steps) == 8 + 3:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Learner, "step", step)
    with pytest.raises(Interrupted, match="dsa/seed-0; the same command resumes"):
        reproduce("table5", tiny_data, tmp_path, "demo", changes=changes, seeds=2)
    assert "-" in (tmp_path / "table5.txt").read_text().splitlines()[4]
    made = reproduce("table5", tiny_data, tmp_path, "demo", changes=changes, seeds=2)
    assert [steps.count(run) for run in dict.fromkeys(steps)] == [8] * 4
    assert all(len(cell.own) == 2 for line in made.lines for cell in line.cells.values())
    assert "Not finished" not in (tmp_path / "table5.txt").read_text()


def test_an_unfinished_table_says_so(tiny_data, tmp_path, monkeypatch):
    done, original = [], module._train_and_match

    def only_one(task, store):
        if done:
            raise Interrupted("stopped")
        done.append(task)
        original(task, store)

    monkeypatch.setattr(module, "_train_and_match", only_one)
    with pytest.raises(Interrupted):
        reproduce("table5", tiny_data, tmp_path, "demo", changes=SMALL)
    assert "Not finished: 1 of 2 rows lack runs." in (tmp_path / "table5.txt").read_text()


def test_spread_and_seeds(tiny_data, tmp_path):
    made = reproduce("dsap-alone", tiny_data, tmp_path, "demo", changes=SMALL, seeds=2)
    (line,) = made.lines
    configs = [load_config(tmp_path / f"dsap-alone/seed-{seed}/config.json") for seed in (0, 1)]
    assert [config.seed for config in configs] == [0, 1]
    cell = line.cells["mAP"]
    assert cell.mean == pytest.approx(sum(cell.own) / 2)
    assert cell.spread == pytest.approx(abs(cell.own[0] - cell.own[1]) / 2**0.5)


def test_a_run_of_other_data_or_settings_is_not_touched(tiny_data, own_data, tmp_path):
    reproduce("dsap-alone", tiny_data, tmp_path, "demo", changes=SMALL)
    for data, config, word in (
        (own_data, SMALL, "data"),
        (tiny_data, SMALL | {"epochs": 2}, "epochs"),
    ):
        with pytest.raises(DSAError, match=f"seed-0: its {word} is .* choose another"):
            reproduce("dsap-alone", data, tmp_path, "demo", changes=config)


def test_finished_runs_are_known_without_their_checkpoints(tiny_data, own_data, tmp_path, monkeypatch):
    """And still not taken for those of other data, nor of files that have changed."""
    reproduce("dsap-alone", own_data, tmp_path, "demo", changes=SMALL)
    (tmp_path / "dsap-alone/seed-0/checkpoint.pt").unlink()
    monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained again"))
    reproduce("dsap-alone", own_data, tmp_path, "demo", changes=SMALL)
    with pytest.raises(DSAError, match="its epochs is 1, but 2"):
        reproduce("dsap-alone", own_data, tmp_path, "demo", changes=SMALL | {"epochs": 2})
    path = next((own_data / "bounding_box_train").iterdir())
    Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    with pytest.raises(DSAError, match="before its files changed"):
        reproduce("dsap-alone", own_data, tmp_path, "demo", changes=SMALL)


def test_methods_that_the_paper_prints_beside_its_own(tiny_data, tmp_path):
    reproduce("table2", tiny_data, tmp_path, "demo", changes=SMALL)
    text = (tmp_path / "table2.txt").read_text()
    assert all(name in text for name in ("PCB+RPP", "MGN", "Mancs", "SPReID")) and "86.9" in text
    assert "MGN" in (tmp_path / "table2.html").read_text()
    assert "MGN,,,rank1,,,,95.7000" in (tmp_path / "table2.csv").read_text()
    assert "Not finished" not in text


def test_the_papers_figures_stand_beside_real_data_alone(own_data, tmp_path):
    made = reproduce("table5", own_data, tmp_path / "a", "demo", changes=SMALL)
    text = (tmp_path / "a/table5.txt").read_text()
    assert made.has_paper and "87.6" in text
    assert "The preset demo is not the paper's" in text
    assert "bounding_box_train has 16 images of 4 identities instead of 12,936 images of 751" in text
    (own_data / "synth.json").write_text("{}")
    made = reproduce("table5", own_data, tmp_path / "b", "demo", changes=SMALL)
    text = (tmp_path / "b/table5.txt").read_text()
    assert not made.has_paper and "87.6" not in text
    assert "the paper's figures, of photographs, are left out" in text
    assert "paper" not in (tmp_path / "b/table5.csv").read_text()


def cuhk01(root):
    """486 + 5 identities, so that the split of 485 leaves some to train on; tiny images."""
    draw = np.random.default_rng(0)
    for folder in (root / "campus", root / "iuv/campus"):
        folder.mkdir(parents=True)
    for identity in range(1, 491):
        for shot in range(1, 5):
            name = f"{identity:04d}{shot:03d}.png"
            pixels = draw.integers(0, 256, (2, 32, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels[0]).save(root / "campus" / name)
            write_iuv(root / "iuv/campus" / name, pixels[1] % 25)
    return root


@pytest.mark.slow
def test_pre_training_and_fine_tuning(tiny_data, tmp_path, caplog):
    root = cuhk01(tmp_path / "CUHK01")
    plain = reproduce("table2", root, tmp_path / "out", "demo", changes=SMALL)
    assert len(plain.lines) == 1 and plain.dataset == "CUHK01" and plain.protocol == "485-s0"
    text = (tmp_path / "out/table2.txt").read_text()
    assert "on CUHK01 by 485-s0" in text and "does not say by which split" in text
    assert "identities instead of 1,944 images of 486" in text
    assert "`pretraining=ROOT` adds it" in caplog.text
    made = reproduce("table2", root, tmp_path / "out", "demo", changes=SMALL, pretraining=tiny_data)
    assert [line.cells["rank1"].paper for line in made.lines] == [88.6, 90.4]
    assert made.lines[0].cells["mAP"].paper is None and made.lines[1].cells["mAP"].own
    first, tuned = (
        load_config(tmp_path / "out" / x / "seed-0/config.json") for x in ("pre-trained", "dsa-fine-tuned")
    )
    assert first.data == tiny_data and tuned.data == root
    assert tuned.weights == str(tmp_path / "out/pre-trained/seed-0")
    assert tuned.optim.rate == pytest.approx(first.optim.rate / 10)
    reproduce(
        "table2", root, tmp_path / "out", "demo", changes=SMALL, pretraining=tiny_data
    )  # and is not done again


def test_bad_input(tiny_data, own_data, tmp_path):
    with pytest.raises(DSAError, match="`table` must be one of table2, .*, not 'table9'"):
        reproduce("table9", tiny_data, tmp_path, "demo", changes=SMALL)
    with pytest.raises(DSAError, match="`seeds` must be at least 1"):
        reproduce("table3", tiny_data, tmp_path, "demo", changes=SMALL, seeds=0)
    with pytest.raises(DSAError, match="no row of table3 is pre-trained"):
        reproduce("table3", tiny_data, tmp_path, "demo", changes=SMALL, pretraining=own_data)
    shutil.rmtree(own_data / "query")
    with pytest.raises(DSAError, match="query"):
        reproduce("table5", own_data, tmp_path / "new", "demo", changes=SMALL)
    next((own_data / "iuv/bounding_box_test").iterdir()).unlink()
    with pytest.raises(DSAError, match="no IUV map of bounding_box_test"):
        reproduce("table3", own_data, tmp_path / "new", "demo", changes=SMALL)
    with pytest.raises(DSAError, match="no such folder"):
        reproduce(
            "table2", tiny_data, tmp_path / "new", "demo", changes=SMALL, pretraining=tmp_path / "nothing"
        )
    assert not (tmp_path / "new").exists()
