"""Training on a tiny data set: it learns, resumes bit for bit, and says what is wrong."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from runs import ARGUMENTS, NETWORK, tiny_config

from dsareid.data.augment import AugmentConfig
from dsareid.data.store.pack import pack
from dsareid.engine import loop
from dsareid.engine.learner import Learner, Readings
from dsareid.engine.loop import Interrupted, train
from dsareid.ground.errors import DSAError
from dsareid.models.options import NetworkConfig
from dsareid.runs.config import OptimConfig, TrainConfig, load_config, save_config
from dsareid.runs.folder import load_run
from dsareid.runs.network import build_model, load_pretrained

OPTIM = OptimConfig(rate=1e-3, warm_up_epochs=1, schedule="cosine")
AUGMENT = AugmentConfig(pad=2, drop_person=0.2, drop_part=0.2)


def config_for(data, out, **changes) -> TrainConfig:
    return tiny_config(data, out, **{"epochs": 3, "optim": OPTIM, "augment": AUGMENT, **changes})


def checkpoint(run):
    return torch.load(run / "checkpoint.pt", weights_only=True)


def assert_same_state(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same_state(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        for x, y in zip(a, b, strict=True):
            assert_same_state(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b


def losses_of(run):
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole_run(tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(config_for(tiny_data, out))
    return out


def test_a_run_leaves_what_it_promises(whole_run, tiny_data):
    assert load_config(whole_run / "config.json") == config_for(tiny_data, whole_run)
    lines = [json.loads(line) for line in (whole_run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert {
        "loss",
        "learning_rate",
        "images_per_second",
        "norm/f",
        "norm/d",
        "accuracy/fused",
        "loss/id_f_global",
        "loss/triplet_z_local",
    } <= lines[0].keys()
    assert any((whole_run / "tensorboard").iterdir())
    run = load_run(whole_run, "cpu")
    assert run.epoch == 3 and run.step == len(lines) and not run.model.training
    assert run.model(torch.zeros(1, 3, 64, 32)).shape == (1, 512)
    assert not [path for path in whole_run.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("model", ["two-branch", "baseline"])
def test_other_models_need_no_maps(own_data, tmp_path, model):
    for path in (own_data / "iuv").rglob("*.png"):
        path.unlink()
    train(config_for(own_data, tmp_path / "run", model=model, epochs=1))
    assert load_run(tmp_path / "run", "cpu").config.model == model


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "dsa-global"},
        {"model": "dsa-local"},
        {"model": "dsap"},
        {"guidance": "concat"},
        {"guidance": "distill"},
        {"guide_input": "part-crops"},
        {"guidance": "distill", "guide_input": "image-patches"},
    ],
    ids=str,
)
def test_every_kind_of_network_trains_and_resumes(tiny_data, tmp_path, changes):
    """Stopped in its second epoch, which is after the warm-up, it ends where an uninterrupted run does."""
    whole, stopped = (config_for(tiny_data, tmp_path / x, epochs=2, **changes) for x in ("whole", "stopped"))
    train(whole)
    with stop_after(3), pytest.raises(Interrupted):
        train(stopped)
    train(stopped, resume=True)
    assert losses_of(whole.out) == losses_of(stopped.out)
    assert_same_state(checkpoint(whole.out)["model"], checkpoint(stopped.out)["model"])
    logged = json.loads((whole.out / "log.jsonl").read_text().splitlines()[-1])
    teaches = changes.get("guidance") == "distill"
    assert ("loss/distill_global" in logged) == ("accuracy/guide" in logged) == teaches


def test_a_run_that_starts_from_another(whole_run, tiny_data, tmp_path):
    """All weights but the classifiers' are those of the other run; of another network they are refused."""
    config = config_for(tiny_data, tmp_path / "tuned", weights=str(whole_run), seed=7)
    model = build_model(config, 9)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    theirs = checkpoint(whole_run)["model"]
    load_pretrained(model, theirs, "whole run")
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if name.startswith("classify_") else theirs[name])
    train(config)
    for wrong in ({"model": "two-branch"}, {"network": dataclasses.replace(NETWORK, width=1 / 4)}):
        other = dataclasses.replace(config, out=tmp_path / "other", **wrong)
        with pytest.raises(DSAError, match="that run's network is another than this one"):
            train(other)
        assert not other.out.exists()


def test_the_loss_falls(tiny_data, tmp_path):
    plain = AugmentConfig(pad=0, flip=0, erase=0)
    train(config_for(tiny_data, tmp_path / "run", epochs=12, augment=plain))
    values = losses_of(tmp_path / "run")
    assert sum(values[-6:]) < 0.5 * sum(values[:6])


def stop_after(step):
    """Make training believe that Ctrl-C was pressed during the given step."""
    original, calls = Learner.step, []

    def wrapped(self, *arguments, **options):
        values = original(self, *arguments, **options)
        calls.append(values)
        if len(calls) == step:
            os.kill(os.getpid(), signal.SIGINT)
        return values

    return mock.patch.object(Learner, "step", wrapped)


@pytest.mark.parametrize("step", [2, 4, 5, 9])
def test_resume_is_bit_for_bit_the_uninterrupted_run(whole_run, tiny_data, tmp_path, step):
    config = config_for(tiny_data, tmp_path / "run")
    with stop_after(step), pytest.raises(Interrupted, match="resume the run in .*/run with `resume=True`"):
        train(config)
    stopped = checkpoint(tmp_path / "run")
    assert stopped["position"]["step"] == step
    train(config, resume=True)
    assert_same_state(checkpoint(tmp_path / "run"), checkpoint(whole_run))
    assert losses_of(tmp_path / "run") == losses_of(whole_run)


def test_resume_after_a_kill_between_checkpoint_and_log(whole_run, tiny_data, tmp_path):
    """Log lines beyond the checkpoint, one of them torn, are dropped and written again."""
    config = config_for(tiny_data, tmp_path / "run")
    with stop_after(5), pytest.raises(Interrupted):
        train(config)
    with open(tmp_path / "run/log.jsonl", "a") as log:
        log.write('{"step": 6, "loss": 1.0}\n{"step": 7, "lo')
    train(config, resume=True)
    assert losses_of(tmp_path / "run") == losses_of(whole_run)


def test_resuming_a_finished_run_does_nothing(whole_run, tiny_data):
    before = checkpoint(whole_run)
    train(config_for(tiny_data, whole_run), resume=True)
    assert_same_state(checkpoint(whole_run), before)


def test_seeds_reproduce_and_differ(whole_run, tiny_data, tmp_path):
    train(config_for(tiny_data, tmp_path / "same"))
    assert losses_of(tmp_path / "same") == losses_of(whole_run)
    train(config_for(tiny_data, tmp_path / "other", seed=1))
    assert losses_of(tmp_path / "other") != losses_of(whole_run)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tiny_data, tmp_path):
    original, calls = Learner.step, []

    def poison(self, batches, *arguments, **options):
        calls.append(batches)
        if len(calls) == 6:
            batches = (batch._replace(image=batch.image * float("nan")) for batch in batches)
        return original(self, batches, *arguments, **options)

    with mock.patch.object(Learner, "step", poison):
        with pytest.raises(DSAError, match=r"not finite in epoch 2, batch 2 \(step 6\).*id_f_global nan"):
            train(config_for(tiny_data, tmp_path / "run"))
    assert checkpoint(tmp_path / "run")["position"]["epoch"] == 1


@pytest.fixture
def one_step_ahead(monkeypatch):
    """Values are read one step later, as on a GPU."""
    monkeypatch.setattr(loop, "_STEPS_AHEAD", {"cpu": 1})


def test_values_that_are_read_a_step_later_are_the_same(one_step_ahead, whole_run, tiny_data, tmp_path):
    train(config_for(tiny_data, tmp_path / "run"))
    here, there = (
        [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (tmp_path / "run", whole_run)
    )
    for line in (*here, *there):
        assert line.pop("images_per_second") > 0
    assert here == there
    assert_same_state(checkpoint(tmp_path / "run"), checkpoint(whole_run))


@pytest.mark.parametrize(
    "step, words", [(5, "epoch 2, batch 1"), (6, "epoch 2, batch 2"), (8, "epoch 2, batch 4")]
)
def test_a_loss_that_is_read_a_step_later_is_of_its_own_step(
    one_step_ahead, tiny_data, tmp_path, step, words
):
    """Also that of the last step of an epoch, before its checkpoint is written."""
    original, calls = Learner.step, []

    def poison(self, *arguments, **options):
        calls.append(self)
        names, values = original(self, *arguments, **options)
        return Readings(names, values * (float("nan") if len(calls) == step else 1))

    with mock.patch.object(Learner, "step", poison):
        with pytest.raises(DSAError, match=rf"not finite in {words} \(step {step}\)"):
            train(config_for(tiny_data, tmp_path / "run"))
    assert checkpoint(tmp_path / "run")["position"]["epoch"] == 1


def test_an_existing_run_is_not_overwritten(whole_run, tiny_data):
    with pytest.raises(DSAError, match="resume it"):
        train(config_for(tiny_data, whole_run))


def test_resume_without_a_run(tiny_data, tmp_path):
    with pytest.raises(DSAError, match="no checkpoint to resume from"):
        train(config_for(tiny_data, tmp_path / "run"), resume=True)


def test_resume_with_other_settings(whole_run, tiny_data):
    with pytest.raises(DSAError, match="seed was 0 .* now 1"):
        train(config_for(tiny_data, whole_run, seed=1), resume=True)


def test_resume_on_another_training_set(whole_run, own_data, tmp_path):
    for path in (own_data / "bounding_box_train").glob("0001_*"):
        path.unlink()
    config = dataclasses.replace(config_for(own_data, whole_run))
    with pytest.raises(DSAError, match="4 identities, but .* has 3"):
        train(config, resume=True)


def test_resume_on_other_images_of_the_same_identities(whole_run, own_data):
    next((own_data / "bounding_box_train").glob("0001_*")).unlink()
    with pytest.raises(DSAError, match=r"trained on 16 images, but the 15 images of .* do not have the same"):
        train(config_for(own_data, whole_run), resume=True)


def test_resume_on_other_pixels(whole_run, own_data):
    path = next((own_data / "bounding_box_train").glob("0001_*"))
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    with pytest.raises(DSAError, match=r"but the 16 images of .* do not have the same pixels"):
        train(config_for(own_data, whole_run), resume=True)


def test_a_run_can_be_resumed_from_a_store_of_its_data(whole_run, own_data, tmp_path):
    """Pixels count, not where they lie or when they were written."""
    store = pack(own_data, tmp_path / "store").path
    train(config_for(store, whole_run), resume=True)


def test_a_checkpoint_of_another_model(whole_run, tiny_data, tmp_path):
    (tmp_path / "run").mkdir()
    other = config_for(tiny_data, tmp_path / "run", model="two-branch")
    save_config(other, tmp_path / "run/config.json")
    (tmp_path / "run/checkpoint.pt").write_bytes((whole_run / "checkpoint.pt").read_bytes())
    with pytest.raises(DSAError, match=r"another model .* is unexpected$"):
        load_run(tmp_path / "run", "cpu")


def test_a_checkpoint_with_other_contents(whole_run, tmp_path):
    (tmp_path / "config.json").write_bytes((whole_run / "config.json").read_bytes())
    for change in ({"model": 5}, {"identities": "many"}, {"position": {}}):
        torch.save(checkpoint(whole_run) | change, tmp_path / "checkpoint.pt")
        with pytest.raises(DSAError, match="not a checkpoint of dsareid"):
            load_run(tmp_path, "cpu")


def test_a_log_that_cannot_be_kept(tiny_data, tmp_path):
    (tmp_path / "run/log.jsonl").mkdir(parents=True)
    with pytest.raises(DSAError, match="log.jsonl"):
        train(config_for(tiny_data, tmp_path / "run"))


@pytest.mark.parametrize("content", [b"", b"hello\n", b"no checkpoint", "half"])
def test_a_broken_checkpoint(whole_run, tmp_path, content):
    (tmp_path / "config.json").write_bytes((whole_run / "config.json").read_bytes())
    whole = (whole_run / "checkpoint.pt").read_bytes()
    (tmp_path / "checkpoint.pt").write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(DSAError, match="not a readable checkpoint"):
        load_run(tmp_path, "cpu")


def test_a_pickle_that_would_run_code_is_refused(whole_run, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    (tmp_path / "config.json").write_bytes((whole_run / "config.json").read_bytes())
    torch.save({"model": Evil()}, tmp_path / "checkpoint.pt")
    with pytest.raises(DSAError, match="not a readable checkpoint"):
        load_run(tmp_path, "cpu")
    assert not (tmp_path / "touched").exists()


def test_no_run_and_damaged_settings(tmp_path):
    with pytest.raises(DSAError, match="not a run's folder"):
        load_run(tmp_path)
    (tmp_path / "config.json").write_text('{"data": "x", "out": "y", "epochs": "many"}')
    with pytest.raises(DSAError, match="epochs"):
        load_run(tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(tiny_data, tmp_path):
    from dsareid.runs import folder as run_module

    config = config_for(tiny_data, tmp_path / "run")
    real, calls = torch.save, []

    def save(state, path):
        calls.append(path)
        if len(calls) == 2:
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
        real(state, path)

    with mock.patch.object(run_module.torch, "save", save):
        with pytest.raises(DSAError, match=r"cannot write .*checkpoint.pt \(is the disk full\?\)"):
            train(config)
    assert checkpoint(tmp_path / "run")["position"]["epoch"] == 1
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"device": "tpu"}, "`device` must be"),
        ({"device": "cuda:99"}, "CUDA devices"),
        ({"identities": 5}, "4 identities, but a batch needs 5"),
    ],
)
def test_bad_settings(tiny_data, tmp_path, changes, words):
    with pytest.raises(DSAError, match=words):
        train(config_for(tiny_data, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"epochs": 0}, "`epochs` must be at least 1, not 0"),
        ({"seed": -1}, "`seed`"),
        ({"dsap_size": 10}, "`dsap_size` must be a multiple of 4"),
        ({"images": 1}, "`images`"),
        ({"network": NetworkConfig(width=0.001)}, "`network.width`"),
        ({"network": NetworkConfig(head_width=0.13)}, "`network.head_width` must be a multiple of 1/32"),
        ({"network": NetworkConfig(depths=(1, 0, 1, 1))}, "`network.depths`"),
        ({"optim": OptimConfig(rate=float("nan"))}, "`optim.rate`"),
        ({"optim": OptimConfig(halve_every=0)}, "`optim.halve_every`"),
        ({"augment": AugmentConfig(pad=-1)}, "`augment.pad`"),
        ({"augment": AugmentConfig(flip=7)}, r"`augment.flip` must be 0..1"),
    ],
)
def test_settings_out_of_range(tmp_path, changes, words):
    with pytest.raises(DSAError, match=words):
        config_for(tmp_path, tmp_path, **changes)


def test_ctrl_c_of_the_command_leaves_a_usable_checkpoint(tiny_data, tmp_path):
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "dsareid",
        "train",
        *ARGUMENTS,
        "--epochs",
        "1000",
        "--data",
        str(tiny_data),
        "--out",
        str(run),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (run / "checkpoint.pt").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    assert "/run with --resume\n" in stderr
    assert load_run(run, "cpu").step > 0


def as_eight_modules(state: dict) -> dict:
    """A state dict as older versions wrote it: a module for each of the eight classifiers of f_L."""
    head, old = "classify_f_local.", {}
    for name, value in state.items():
        if not name.startswith(head):
            old[name] = value
            continue
        parts = value.expand(8) if value.dim() == 0 else value.reshape(8, -1) if value.dim() == 1 else value
        old |= {f"{head}{part}.{name.removeprefix(head)}": parts[part].clone() for part in range(8)}
    return old


def test_a_run_of_an_older_version_is_evaluated_but_not_resumed(whole_run, tiny_data, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole_run, run)
    state = checkpoint(run)
    now = state["model"]
    state["model"] = as_eight_modules(now)
    assert "classify_f_local.7.0.weight" in state["model"] and len(state["model"]) > len(now)
    torch.save(state, run / "checkpoint.pt")
    loaded = load_run(run, "cpu").model.state_dict()
    assert loaded.keys() == now.keys() and all(torch.equal(loaded[name], x) for name, x in now.items())
    with pytest.raises(DSAError, match="an older version wrote it.*`weights="):
        train(config_for(tiny_data, run), resume=True)
    train(config_for(tiny_data, tmp_path / "new", weights=str(run), epochs=1))
