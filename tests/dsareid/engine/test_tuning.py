"""The forms of convolutions, measured once and kept. Times are made up here, or of this machine's CPU."""

import json

import pytest
import torch
from runs import tiny_config

from dsareid.data.batch import Batch
from dsareid.engine import tuning
from dsareid.engine.learner import Learner
from dsareid.engine.tuning import choose_forms, measured, noted
from dsareid.models.branch import BranchConv2d
from dsareid.models.branch_forms import FORMS

CPU = torch.device("cpu")


def network() -> torch.nn.Sequential:
    return torch.nn.Sequential(BranchConv2d(24, 3, 4, 5), torch.nn.ReLU(), BranchConv2d(24, 4, 8, 3, 2))


@pytest.fixture
def layers():
    model = network()
    with noted(model) as found:
        model(torch.randn(2, 72, 8, 8))
    model(torch.randn(1, 72, 6, 6))  # after the block nothing is noted
    return found


def test_what_each_layer_gets_is_noted(layers):
    first, second = layers.values()
    assert (first.shape, second.shape) == ((2, 72, 8, 8), (2, 96, 8, 8))
    assert (first.needs_gradient, second.needs_gradient) == (False, True)
    assert first.dtype == torch.float32 and not first.channels_last
    x = first._replace(channels_last=True).made(CPU)
    assert x.is_contiguous(memory_format=torch.channels_last) and not x.requires_grad


def test_forms_that_run_and_agree_are_timed(layers, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("out of memory")

    forms = {**FORMS, "patches": fails, "wrong": lambda *x: FORMS["grouped"](*x) * 2}
    monkeypatch.setattr(tuning, "FORMS", forms)
    for layer, given in layers.items():
        seconds = measured(layer, given, CPU, torch.bfloat16)
        assert seconds.keys() == FORMS.keys() - {"patches"} and min(seconds.values()) > 0
        assert layer.weight.grad is None


def test_the_fastest_is_chosen_and_kept(layers, tmp_path, monkeypatch, caplog):
    file = tmp_path / "cache/convolutions.json"
    times = iter([{"grouped": 2.0, "pairs": 1.0}, {"grouped": 1.0, "patches": 3.0}])
    monkeypatch.setattr(tuning, "measured", lambda *words: next(times))
    with caplog.at_level("INFO", "dsareid"):
        choose_forms(layers, CPU, torch.float32, file)
    assert [layer.form for layer in layers] == ["pairs", "grouped"]
    assert "measured 2 convolutions" in caplog.text and len(json.loads(file.read_text())) == 1
    for layer in layers:
        layer.form = None
    caplog.clear()
    choose_forms(layers, CPU, torch.float32, file)  # nothing is measured
    assert [layer.form for layer in layers] == ["pairs", "grouped"] and not caplog.text
    monkeypatch.setattr(tuning, "measured", lambda *words: {"planes": 1.0})
    choose_forms(layers, CPU, torch.bfloat16, file)  # another type is another layer
    assert [layer.form for layer in layers] == ["planes", "planes"]


@pytest.mark.parametrize("content", ["{", '{"a": 1}', '{"cpu": {"x": {"grouped": "fast"}}}'])
def test_a_damaged_table_is_made_anew(layers, tmp_path, caplog, content):
    file = tmp_path / "convolutions.json"
    file.write_text(content)
    choose_forms(layers, CPU, torch.float32, file)
    assert f"{file}: not a table of convolutions" in caplog.text
    assert all(layer.form in FORMS for layer in layers) and json.loads(file.read_text())


def test_a_form_of_another_version_is_measured_again(layers, tmp_path, monkeypatch):
    file = tmp_path / "convolutions.json"
    monkeypatch.setattr(tuning, "measured", lambda *words: {"magic": 0.1})
    choose_forms(layers, CPU, torch.float32, file)
    monkeypatch.setattr(tuning, "measured", lambda *words: {"pairs": 1.0})
    choose_forms(layers, CPU, torch.float32, file)
    assert {layer.form for layer in layers} == {"pairs"}


def test_without_a_place_for_the_table_it_goes_on(layers, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    choose_forms(layers, CPU, torch.float32, tmp_path / "file/convolutions.json")
    assert "the next run measures the convolutions again" in caplog.text
    assert all(layer.form in FORMS for layer in layers)


def step(learner: Learner) -> None:
    image, dsap = torch.randn(4, 3, 64, 32), torch.randn(4, 24, 3, 8, 8)
    learner.step(iter([Batch(image, dsap, torch.tensor([0, 0, 1, 1]))]), 1e-4, teaching=False)


def test_a_learner_measures_in_its_first_step(tmp_path, monkeypatch):
    """On a GPU; here it is told to."""
    learner = Learner(tiny_config(tmp_path, tmp_path), 2, CPU)
    assert not learner._measures
    learner._measures = True
    chosen = []
    monkeypatch.setattr(
        "dsareid.engine.learner.choose_forms", lambda layers, *words: chosen.append(len(layers))
    )
    step(learner)
    step(learner)
    assert chosen == [sum(isinstance(x, BranchConv2d) for x in learner.model.modules())]


def test_a_setting_fixes_the_form(tmp_path):
    learner = Learner(tiny_config(tmp_path, tmp_path, convolution="pairs"), 2, CPU)
    forms = {x.form for x in learner.model.modules() if isinstance(x, BranchConv2d)}
    assert forms == {"pairs"} and not learner._measures
    step(learner)


def test_what_cannot_be_measured_is_said_and_not_kept(layers, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(tuning, "measured", lambda *words: {})
    file = tmp_path / "convolutions.json"
    choose_forms(layers, CPU, torch.float32, file)
    assert {layer.form for layer in layers} == {"grouped"} and not file.exists()
    assert caplog.text.count("no form could be measured") == 2
