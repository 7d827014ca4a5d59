"""Precision, layout, accumulation, compilation and kinds of BatchNorm, against plain training."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import tiny_config

from dsareid.engine.learner import Learner
from dsareid.engine.loop import batch_config, train
from dsareid.evaluation.run_features import check_features
from dsareid.ground.errors import DSAError
from dsareid.runs.config import OptimConfig, TrainConfig
from dsareid.runs.folder import load_run
from dsareid.runs.network import build_model, load_pretrained


def config_for(data: Path, out: Path, **changes) -> TrainConfig:
    return tiny_config(data, out, **{"batchnorm": "frozen", **changes})


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bfloat16"},
        {"precision": "float16"},
        {"layout": "channels_last"},
        {"accumulate": 3},
        {"batchnorm": "batch", "accumulate": 2, "precision": "bfloat16", "layout": "channels_last"},
        {"batchnorm": "batch", "accumulate": 2, "precision": "float16", "guidance": "distill"},
    ],
    ids=str,
)
def test_options_compose(tiny_data, tmp_path, changes):
    """A few steps of each: finite, steps as accumulated, and the loss near that of plain training."""
    plain = {"batchnorm": changes.get("batchnorm", "frozen"), "guidance": changes.get("guidance", "add")}
    train(config_for(tiny_data, tmp_path / "plain", epochs=1, **plain))
    train(config_for(tiny_data, tmp_path / "run", epochs=1, **changes))
    first, found = (log_of(tmp_path / x) for x in ("plain", "run"))
    accumulate = changes.get("accumulate", 1)
    assert len(found) == -(-len(first) // accumulate)
    mean = sum(line["loss"] for line in first[:accumulate]) / accumulate
    assert found[0]["loss"] == pytest.approx(mean, rel=0.2)


@pytest.mark.parametrize(
    "guidance, guide_input",
    [
        ("gate", "masked-patches"),
        ("pool", "part-images"),
        ("pool", "others"),
        ("pool", "stripes"),
        ("texture", "part-images"),
        ("texture", "others"),
        ("texture", "pictures"),
    ],
)
def test_guidance_beyond_the_paper(tiny_data, tmp_path, guidance, guide_input):
    """Each trains, resumes to the same numbers, and leaves a network that needs images alone."""
    changes = {"guidance": guidance, "guide_input": guide_input, "batchnorm": "batch"}
    whole, halves = (config_for(tiny_data, tmp_path / x, epochs=2, **changes) for x in ("whole", "halves"))
    assert whole.needs_iuv == (guide_input not in ("stripes", "pictures"))
    train(whole)
    train(dataclasses.replace(halves, epochs=1))
    saved = json.loads((tmp_path / "halves" / "config.json").read_text())
    (tmp_path / "halves" / "config.json").write_text(json.dumps(saved | {"epochs": 2}))
    train(halves, resume=True)
    first, found = (log_of(tmp_path / x) for x in ("whole", "halves"))
    assert [line["loss"] for line in first] == [line["loss"] for line in found]
    assert {"pool": "loss/id_parts", "texture": "loss/texture"}.get(guidance, "norm/d") in first[0]
    run = load_run(tmp_path / "whole", "cpu")
    assert run.model.eval()(torch.zeros(1, 3, whole.height, whole.width)).shape[0] == 1


def test_a_run_with_pooled_parts_is_fine_tuned(tiny_data, tmp_path):
    """On other people: its classifiers are not taken over."""
    config = config_for(tiny_data, tmp_path / "first", epochs=1, guidance="pool")
    first = build_model(config, 7)
    build_and_load = build_model(config, 4)
    load_pretrained(build_and_load, first.state_dict(), "first")
    assert torch.equal(build_and_load.pooling.norm.weight, first.pooling.norm.weight)
    assert build_and_load.pooling.classify.weight.shape[1] == 4


def test_other_maps_are_other_targets(own_data, tmp_path):
    """A resumed run of guidance texture must find the same textures."""
    config = config_for(own_data, tmp_path / "run", epochs=1, guidance="texture")
    train(config)
    for path in (own_data / "iuv" / "bounding_box_train").glob("0004*.png"):  # all in one colour
        Image.new("RGB", Image.open(path).size).save(path)  # nobody
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(saved | {"epochs": 2}))
    with pytest.raises(DSAError, match="do not have the same pixels"):
        train(dataclasses.replace(config, epochs=2), resume=True)


def test_other_peoples_maps_need_other_people(tiny_data, tmp_path):
    config = config_for(tiny_data, tmp_path, guidance="pool", guide_input="others")
    assert batch_config(config, torch.device("cpu")).batch >= 2 * config.images
    with pytest.raises(DSAError, match="would be made of other people's maps"):
        check_features(config, "guide")


def test_a_guidance_goes_by_its_own_inputs(tmp_path):
    for guidance, wrong in (("add", "others"), ("pool", "part-crops"), ("texture", "stripes")):
        with pytest.raises(DSAError, match=f"`guidance={guidance}` takes `guide_input` part-images"):
            TrainConfig(tmp_path, tmp_path, guidance=guidance, guide_input=wrong)
    with pytest.raises(DSAError, match="`guidance=pool` needs two streams"):
        TrainConfig(tmp_path, tmp_path, model="two-branch", guidance="pool")


@pytest.mark.compiles
def test_compiled(tiny_data, tmp_path):
    """Together with all others; the same loss as without, for the first steps."""
    rest = {"epochs": 1, "layout": "channels_last", "accumulate": 2, "precision": "bfloat16"}
    for name, compile in (("plain", False), ("compiled", True)):
        train(config_for(tiny_data, tmp_path / name, compile=compile, **rest))
    plain, compiled = ([line["loss"] for line in log_of(tmp_path / x)] for x in ("plain", "compiled"))
    assert compiled == pytest.approx(plain, rel=0.05)
    state = torch.load(tmp_path / "compiled" / "checkpoint.pt", weights_only=True)["model"]
    assert "mf.trunk.conv1.weight" in state  # not under a wrapper's name


def test_an_accumulated_gradient_is_the_mean_of_its_batches(tiny_data, tmp_path, monkeypatch):
    found = {1: [], 3: []}

    def step(self, *arguments, original=Learner.step, **options):
        values = original(self, *arguments, **options)
        found[self.config.accumulate].append(torch.cat([p.grad.flatten() for p in self.model.parameters()]))
        return values

    monkeypatch.setattr(Learner, "step", step)
    still = OptimConfig(rate=0, warm_up_from=0)  # so that all steps are of the same weights
    for accumulate in found:
        train(config_for(tiny_data, tmp_path / f"{accumulate}", epochs=1, accumulate=accumulate, optim=still))
    single, grouped = found.values()
    assert len(grouped) == -(-len(single) // 3)
    for i, gradient in enumerate(grouped):
        mean = torch.stack(single[3 * i : 3 * i + 3]).mean(0)
        assert torch.allclose(gradient, mean, atol=1e-5 * float(mean.abs().max()), rtol=1e-4)


def test_frozen_batchnorm_keeps_its_statistics(tiny_data, tmp_path):
    train(config_for(tiny_data, tmp_path / "run", epochs=1))
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["model"]
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    assert means and not any(mean.any() for mean in means)


def test_synchronised_batchnorm_is_for_cuda(tiny_data, tmp_path):
    with pytest.raises(DSAError, match="`batchnorm=sync` needs `device=cuda`, not cpu"):
        train(config_for(tiny_data, tmp_path / "run", batchnorm="sync"))
    assert not (tmp_path / "run").exists()
