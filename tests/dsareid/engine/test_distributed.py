"""Training in several processes, as torchrun starts them, against training in one."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dsareid.data.batch import AugmentConfig
from dsareid.engine import TrainConfig, train
from dsareid.engine.loop import Trainer
from dsareid.ground.distributed import Processes, own_device, rank_and_world
from dsareid.ground.errors import DSAError
from dsareid.runs.config import NetworkConfig, OptimConfig
from dsareid.runs.folder import choose_device

SETTINGS = """
--epochs 2 --height 64 --width 32 --dsap-size 8 --identities 2 --images 2 --weights none --device cpu
--network.width 0.125 --network.head-width 0.125 --network.depths 1 1 1 1 --batchnorm frozen
--optim.rate 1e-3 --optim.warm-up-epochs 1 --augment.pad 2
""".split()


def torchrun(arguments, count=2, **environment) -> subprocess.Popen:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", count]
    return subprocess.Popen(
        list(map(str, [*start, *arguments])),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def run(arguments, count=2, **environment) -> tuple[int, str, str]:
    process = torchrun(arguments, count, **environment)
    out, err = process.communicate()
    return process.returncode, out, err


def config_for(data: Path, out: Path, **changes) -> TrainConfig:
    config = TrainConfig(
        data=data,
        out=out,
        epochs=2,
        height=64,
        width=32,
        dsap_size=8,
        identities=2,
        images=2,
        weights="none",
        device="cpu",
        batchnorm="frozen",
        network=NetworkConfig(width=1 / 8, head_width=1 / 8, depths=(1, 1, 1, 1)),
        optim=OptimConfig(rate=1e-3, warm_up_epochs=1),
        augment=AugmentConfig(pad=2),
    )
    return dataclasses.replace(config, **changes)


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# Trains a run and keeps what the gradients of its last step were.
GRADIENTS = """
import sys
from pathlib import Path
import torch
from dsareid.commands.train import build
from dsareid.engine.loop import Trainer
import tyro

def run(self, original=Trainer.run):
    original(self)
    if self.processes.first:
        found = {name: value.grad for name, value in self.model.named_parameters()}
        torch.save(found, Path(sys.argv[1]))

Trainer.run = run
tyro.cli(build(sys.argv[2:]), args=sys.argv[2:])
"""


@pytest.mark.parametrize("options", [(), ("--guidance", "distill", "--optim.warm-up-epochs", "0")])
def test_two_processes_compute_the_gradients_of_one(tiny_data, tmp_path, options):
    """The same global batch, BatchNorm frozen, triplets of the whole batch; one step, as rounding grows."""
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    gradients, losses = [], []
    for count in (1, 2):
        out = tmp_path / f"run{count}"
        arguments = [*SETTINGS, "--data", tiny_data, "--out", out, *options]
        arguments += ["--epochs", 1, "--accumulate", 100]
        status, _, err = run([script, tmp_path / f"{count}.pt", *arguments], count)
        assert status == 0, err
        gradients.append(torch.load(tmp_path / f"{count}.pt"))
        losses.append(log_of(out)[-1])
    assert len(losses[0]) > 8 and losses[0].keys() == losses[1].keys()
    for name in losses[0]:
        if name != "images_per_second":
            assert losses[0][name] == pytest.approx(losses[1][name], rel=1e-4, abs=1e-6), name
    one, two = gradients
    for name, expected in one.items():
        size = expected.abs().max().clamp(min=1e-6)
        assert (two[name] - expected).abs().max() <= 1e-4 * size, name


def test_triplets_of_each_share_alone_are_others(tiny_data, tmp_path):
    """So that the test above tests something: with two processes there are no negatives in a share of one."""
    status, _, err = run(
        [
            "-m",
            "dsareid",
            "train",
            *SETTINGS,
            "--data",
            tiny_data,
            "--out",
            tmp_path / "run",
            "--loss.triplet-over",
            "process",
            "--epochs",
            1,
        ]
    )
    assert status == 0, err
    assert log_of(tmp_path / "run")[0]["loss/triplet_z_global"] == 0


def test_another_number_of_processes_goes_on(tiny_data, tmp_path):
    """Stopped in two processes, gone on with in one, and the reverse, it ends where a single run does."""
    whole = tmp_path / "whole"
    train(config_for(tiny_data, whole, epochs=4))
    for first, then in ((1, 2), (2, 1)):
        out = tmp_path / f"run{first}"
        arguments = ["-m", "dsareid", "train", *SETTINGS, "--data", tiny_data, "--out", out, "--epochs", 4]
        process = torchrun(arguments, first)
        while not (out / "checkpoint.pt").exists():  # the first epoch is done
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        process.communicate()
        stopped = torch.load(out / "checkpoint.pt", weights_only=True)["position"]
        status, _, err = run(["-m", "dsareid", "train", "--resume", "--out", out], then)
        assert status == 0, err
        assert [line["step"] for line in log_of(out)] == [line["step"] for line in log_of(whole)]
        assert 0 < stopped["step"] <= log_of(out)[-1]["step"]
        expected, got = ([line["loss"] for line in log_of(x)] for x in (whole, out))
        assert got == pytest.approx(expected, rel=0.02)


def test_a_process_that_dies_ends_all_with_its_message(tiny_data, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        "import sys\n"
        "from dsareid.commands.main import main\n"
        "from dsareid.engine.loop import Trainer\n"
        "from dsareid.ground.errors import DSAError\n"
        "def step(self, batches, count, rate, original=Trainer._step):\n"
        "    if self.processes.rank == 1 and self.position.step == 3:\n"
        "        raise DSAError('x.jpg: the disk is on fire')\n"
        "    return original(self, batches, count, rate)\n"
        "Trainer._step = step\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    out = tmp_path / "run"
    status, _, err = run([script, "train", *SETTINGS, "--data", tiny_data, "--out", out, "--epochs", 50])
    assert status != 0
    assert "dsareid train (process 1 of 2): error: x.jpg: the disk is on fire" in err
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_what_all_processes_say_is_said_once(tiny_data, tmp_path):
    """Here that the number of processes does not divide the batch."""
    out = tmp_path / "run"
    status, _, err = run(
        ["-m", "dsareid", "train", *SETTINGS, "--data", tiny_data, "--out", out, "--identities", 3]
    )
    assert status != 0 and not out.exists()
    assert err.count("a batch of 3 identities cannot be split evenly over 2 processes") == 1
    assert "Traceback (most recent call last):\n  File" not in err.split("error: a batch of 3")[0]


def test_commands_that_write_one_file_run_in_one_process(tmp_path):
    status, _, err = run(["-m", "dsareid", "synth", tmp_path / "out"])
    assert status != 0 and "start it without torchrun" in err and not (tmp_path / "out").exists()


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

    def step(self, *arguments, original=Trainer._step):
        values = original(self, *arguments)
        found[self.config.accumulate].append(torch.cat([p.grad.flatten() for p in self.model.parameters()]))
        return values

    monkeypatch.setattr(Trainer, "_step", step)
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
    with pytest.raises(DSAError, match="--batchnorm sync needs --device cuda, not cpu"):
        train(config_for(tiny_data, tmp_path / "run", batchnorm="sync"))
    assert not (tmp_path / "run").exists()


def test_shares_are_all_there_is():
    for world in (1, 2, 3, 7):
        for items in (0, 1, 5, 20):
            shares = [list(range(items))[Processes(rank, world).share(items)] for rank in range(world)]
            assert sum(shares, []) == list(range(items))


def test_an_environment_that_is_not_torchruns(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DSAError, match="as torchrun sets them, not '2', '2'"):
        rank_and_world()
    monkeypatch.setenv("RANK", "1")
    assert rank_and_world() == (1, 2) and own_device(choose_device("cpu")) == torch.device("cpu")


def test_evaluation_in_shares(tiny_data, tmp_path):
    """Three processes print and write what one does, also where there are two queries to share."""
    out = tmp_path / "run"
    train(config_for(tiny_data, out, epochs=1, batchnorm="batch"))
    figures = []
    for count in (1, 3):
        status, printed, err = run(["-m", "dsareid", "eval", out, "--device", "cpu"], count)
        assert status == 0, err
        assert printed.count("rank-10") == 1
        figures.append([row["mAP"] for row in json.loads((out / "evaluation.json").read_text())["rows"]])
    assert figures[0] == pytest.approx(figures[1])
