"""The report of small runs: complete, bare, damaged. What is in the page, not how it looks."""

import base64
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dsareid.data.iuv import write_iuv
from dsareid.data.store.pack import pack
from dsareid.densepose import textures
from dsareid.ground.errors import DSAError
from dsareid.models.options import NetworkConfig
from dsareid.report import group_results, write_report
from dsareid.runs.config import OptimConfig, TrainConfig
from dsareid.runs.folder import RunFolder
from dsareid.runs.records import Answer, EvaluatedAt, Evaluation, RankList, Row

VOID = {"meta", "img", "source", "br"}


class Page(HTMLParser):
    """Collects what a page refers to and checks that its tags close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.images = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.references += [attributes[k] for k in ("src", "href", "srcset") if k in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def row(name, value):
    return Row(name=name, mAP=value, mINP=value / 2, cmc=[min(1.0, value + 0.01 * k) for k in range(50)])


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    draw = np.random.default_rng(0)
    for split in ("bounding_box_train", "query", "bounding_box_test"):
        (root / split).mkdir(parents=True)
        (root / "iuv" / split).mkdir(parents=True)
        for k in range(5):
            image = draw.integers(0, 256, (48, 32, 3)).astype(np.uint8)
            iuv = draw.integers(0, 25, (48, 32, 3)).astype(np.uint8)
            identity = k + 11 if split == "bounding_box_train" else k + 1
            stem = f"{identity:04d}_c{k + 1}s1_000001_00"
            Image.fromarray(image).save(root / split / f"{stem}.jpg")
            write_iuv(root / "iuv" / split / f"{stem}.png", iuv)
    return root


@pytest.fixture
def bare_run(tmp_path, data):
    run = tmp_path / "my <run>"
    run.mkdir()
    network, optim = NetworkConfig(width=1 / 8), OptimConfig(rate=0.01)
    config = TrainConfig(
        data=data, out=run, height=48, width=32, dsap_size=8, epochs=3, network=network, optim=optim
    )
    RunFolder(run).write_config(config)
    return run


@pytest.fixture
def full_run(bare_run, data):
    names = sorted(path.name for path in (data / "query").iterdir())
    answers = [
        Answer(name=f"bounding_box_test/{name}", identity=str(k), camera=str(k), distance=k / 7, right=k == 1)
        for k, name in enumerate(names)
    ]
    evaluation = Evaluation(
        data=str(data),
        dataset="own data",
        protocol="",
        synthetic=False,
        features="mf",
        reranked=False,
        model="dsa",
        checkpoint=EvaluatedAt(epoch=2, step=40),
        queries=1234,
        skipped=3,
        gallery=5678,
        rows=[row("DSA-reID", 0.4321)],
        baselines=[row("colour histograms", 0.2), row("chance", 0.01)],
        rank_lists=[RankList(query=f"query/{names[0]}", identity="1", camera="1", ap=0.875, gallery=answers)],
    )
    change(bare_run, evaluation)
    change(bare_run, evaluation, features="fused", rows=[row("DSA-reID, fused", 0.6)])
    steps = [
        {
            "step": s,
            "learning_rate": 1e-3,
            "loss": 9 / s,
            "loss/id_f": 5 / s,
            "norm/f": 2.0,
            "norm/d": 3.0,
            "accuracy/fused": 0.5,
            "images_per_second": 99.0,
        }
        for s in range(1, 41)
    ]
    (bare_run / "log.jsonl").write_text("\n".join(map(json.dumps, steps)) + "\n")
    return bare_run


def change(run, evaluation=None, **changes):
    """Write an evaluation, or the first one of the run, with changes; as on its own data and protocol."""
    folder = RunFolder(run)
    changed = (evaluation or folder.evaluations()[0]).model_copy(update=changes)
    folder.write_evaluation(changed, {"dataset": changed.dataset, "protocol": changed.protocol})


def read(path):
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_nothing_is_said_of_cameras_that_are_not_known(full_run, data):
    assert "by the query's own camera" in read(write_report(full_run))[0]
    (first, *others) = RunFolder(full_run).evaluations()[0].rank_lists
    answers = [answer.model_copy(update={"camera": None}) for answer in first.gallery]
    unknown = first.model_copy(update={"camera": None, "identity": "anna", "gallery": answers})
    change(full_run, rank_lists=[unknown, *others])
    text = read(write_report(full_run))[0]
    assert "person anna" in text
    assert "<br>camera" not in text and "another camera" not in text and "own camera" not in text


def test_a_full_page(full_run, data):
    path = write_report(full_run)
    assert path == full_run / "report.html"
    text, page = read(path)
    for expected in (
        "43.2",
        "DSA-reID, fused",
        "colour histograms",
        "chance",
        "1,234",
        "5,678",
        "AP 87.5",
        "✓",
        "✗",
        "Learning rate",
        "Size of the features",
        "Training accuracy",
        "optim.rate",
        "head left",
        "my &lt;run&gt;",
    ):
        assert expected in text, expected
    assert text.count('class="shot right"') == 1 and text.count('class="shot wrong"') == 4
    assert "no image" not in text and "dsareid eval" not in text and "synthetic" not in text
    assert len(page.images) == 1 + 6 + 1 + 5 + 3 * 26  # CMC, curves, query, answers, sheets
    assert all(image["alt"] for image in page.images)
    assert path.stat().st_size < 4 << 20


def test_maps_by_bodypix_stand_beside_the_others(full_run, tiny_bodypix, monkeypatch):
    """Where the estimator's weights are at hand; elsewhere nothing is fetched and nothing said."""
    assert "BodyPix" not in read(write_report(full_run))[0]
    monkeypatch.setenv("DSAREID_BODYPIX", str(tiny_bodypix))
    textures.default_estimator.cache_clear()
    text, page = read(write_report(full_run))
    textures.default_estimator.cache_clear()
    assert "BodyPix estimates from the image alone" in text
    assert len(re.findall(r"estimated: masks' IoU \d\.\d\d, equal parts\s+\d\.\d\d", text)) == 3
    assert len(page.images) == 1 + 6 + 1 + 5 + 3 * 27


def test_the_page_needs_no_other_file(full_run):
    text, page = read(write_report(full_run))
    assert page.references and all(r.startswith("data:image/") for r in page.references)
    assert "url(" not in text and "@import" not in text and "<script" not in text
    for reference in page.references:
        assert base64.b64decode(reference.partition(",")[2], validate=True)


def test_a_bare_run_says_what_is_missing(bare_run):
    text, _ = read(write_report(bare_run))
    assert "has not been evaluated yet" in text
    assert re.search(r"dsareid eval &#39;.*my &lt;run&gt;&#39; --data \S*data", text)
    assert "log.jsonl" in text and "head left" in text


def test_synthetic_is_said(bare_run, data):
    (data / "synth.json").write_text("{}")
    text, _ = read(write_report(bare_run))
    assert "<b>synthetic</b>" in text and "rendered, not photographed" in text


def test_data_elsewhere_and_gone(full_run, data):
    moved = data.rename(data.with_name("moved"))
    text, _ = read(write_report(full_run))
    assert text.count("no image") == 6 and "is not there" in text and "--data ROOT" in text
    text, _ = read(write_report(full_run, moved))
    assert "no image" not in text and "head left" in text


def test_synthetic_is_said_when_the_data_are_gone(full_run, data, caplog):
    change(full_run, synthetic=True)
    data.rename(data.with_name("gone"))
    text, _ = read(write_report(full_run))
    assert "<b>synthetic</b>" in text
    assert "The data set" in caplog.text


def test_a_store_in_place_of_the_folder(full_run, data, tmp_path):
    (data / "synth.json").write_text("{}")
    expected, _ = read(write_report(full_run))
    pack(data, tmp_path / "store")
    data.rename(tmp_path / "gone")
    text, page = read(write_report(full_run, tmp_path / "store"))
    assert "no image" not in text and "head left" in text and "<b>synthetic</b>" in text
    assert page.images == Page(expected).images


def test_a_damaged_store_is_said(full_run, data, tmp_path):
    (pack(data, tmp_path / "store").path / "iuv.npy").unlink()
    text, _ = read(write_report(full_run, tmp_path / "store"))
    assert "images cannot be shown: " in text and "iuv.npy" in text and "43.2" in text


def test_another_data_set_to_look_at(full_run, data, tmp_path):
    """The rank lists are of the evaluation's data set, the sheets of the training's."""
    other = data.rename(tmp_path / "evaluated")
    change(full_run, data=str(other))
    text, _ = read(write_report(full_run))
    assert "no image" not in text and f"{data} is not there" in text and "head left" not in text


def test_a_data_set_without_iuv(full_run, data):
    for path in (data / "iuv" / "bounding_box_train").iterdir():
        path.unlink()
    text, _ = read(write_report(full_run))
    assert "No DSAP-images can be made" in text and "43.2" in text


def test_an_evaluation_that_training_has_overtaken(full_run):
    with (full_run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 90, "loss": 0.1}) + "\n")
    text, _ = read(write_report(full_run))
    assert "The table shows step 40; the training has continued to step 90." in text


def test_a_run_that_is_matched_by_its_guide_alone(full_run):
    """As one of the DSAG-Stream alone is; and with other features its row joins the table."""
    change(full_run, features="guide", rows=[row("DSAP-images alone", 0.123)])
    text, _ = read(write_report(full_run))
    assert "43.2" in text and "DSAP-images alone" in text
    (full_run / "evaluation.json").unlink()
    (full_run / "evaluation-fused.json").unlink()
    text, _ = read(write_report(full_run))
    assert "12.3" in text and "43.2" not in text and "not been evaluated" not in text


def test_the_protocol_is_named(full_run):
    change(full_run, protocol="trial")
    text, _ = read(write_report(full_run))
    assert "protocol trial" in text and "no such protocol" in text


OTHERS = {
    "checkpoint": {"checkpoint": EvaluatedAt(epoch=9, step=99)},
    "protocol": {"protocol": "multi-query"},
    "data": {"data": "elsewhere"},
}


@pytest.mark.parametrize("other", OTHERS)
def test_evaluations_of_something_else_have_a_table_of_their_own(full_run, other):
    _, fused = RunFolder(full_run).evaluations()
    change(full_run, fused, **OTHERS[other])
    tables = group_results(RunFolder(full_run).evaluations())
    names = [[row.name for row in table.rows] for table in tables]
    baselines = ["colour histograms", "chance"]
    assert names == [["DSA-reID", *baselines], ["DSA-reID, fused", *baselines]]
    text, _ = read(write_report(full_run))
    assert text.count('class="headline"') == 2 and text.count("DSA-reID, fused") and tables[1].title in text


def test_every_evaluation_is_shown(full_run):
    """Re-ranked ones too, in the same table, and where there is no plain one."""
    ranked = [row("DSA-reID, re-ranked", 0.7), row("DSA-reID", 0.4321)]
    change(full_run, reranked=True, rows=ranked)
    assert (full_run / "evaluation-reranked.json").exists()
    (table,) = group_results(RunFolder(full_run).evaluations())
    own = ["DSA-reID", "DSA-reID, re-ranked", "DSA-reID, fused"]
    assert [row.name for row in table.rows] == [*own, "colour histograms", "chance"]
    for name in ("evaluation.json", "evaluation-fused.json"):
        (full_run / name).unlink()
    text, _ = read(write_report(full_run))
    assert "re-ranked" in text and "70.0" in text and "not been evaluated" not in text


@pytest.mark.parametrize(
    "lines",
    [
        '{"step": 1, "loss": 2.0}\n{"step": 2, "lo',  # cut short
        '{"step": 1, "loss": NaN}\n{"step": 2, "loss": 3.0}\n[1]\nnull\n{"loss": 1}\n',
        '{"step": 1, "loss": 1.0, "new/thing": "words", "loss/x": null}\n',
        "",
    ],
)
def test_logs_of_every_kind(bare_run, lines):
    (bare_run / "log.jsonl").write_text(lines)
    text, _ = read(write_report(bare_run))
    assert ("<h3>Loss</h3>" in text) == bool(lines)


def test_a_long_log_stays_small(bare_run):
    lines = [json.dumps({"step": s, "loss": math.sin(s) + 2, "loss/a": 1.0}) for s in range(50_000)]
    (bare_run / "log.jsonl").write_text("\n".join(lines))
    assert write_report(bare_run).stat().st_size < 1 << 20


def test_no_run_folder(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DSAError, match="not a run's folder.*config.json"):
            write_report(folder)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, content",
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("evaluation.json", '{"rows": []}'),
        ("evaluation.json", "\x00"),
    ],
)
def test_damaged_files_are_named(full_run, name, content):
    (full_run / name).write_text(content)
    with pytest.raises(DSAError, match=name):
        write_report(full_run)
    assert not (full_run / "report.html").exists()
