"""Training in several processes, as torchrun starts them, against training in one."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks
import torch
from runs import tiny_config

from dsareid.engine.loop import train
from dsareid.ground.distributed import ProcessGroup, choose_device, own_device, rank_and_world
from dsareid.ground.errors import DSAError
from dsareid.runs.config import TrainConfig
from dsareid.runs.records import read_evaluation

SETTINGS = """
--epochs 2 --height 64 --width 32 --dsap-size 8 --identities 2 --images 2 --weights none --device cpu
--network.width 0.125 --network.head-width 0.125 --network.depths 1 1 1 1 --batchnorm frozen
--optim.rate 1e-3 --optim.warm-up-epochs 1 --augment.pad 2
""".split()

DSAREID = ("-m", "dsareid")


def config_for(data: Path, out: Path, **changes) -> TrainConfig:
    """SETTINGS, for training in this process."""
    return tiny_config(data, out, **{"batchnorm": "frozen", **changes})


def arguments_for(data: Path, out: Path, *more: object) -> list[object]:
    """The same, for the command."""
    return ["train", *SETTINGS, "--data", data, "--out", out, *more]


def log_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# Trains a run and keeps what the gradients of its last step were.
GRADIENTS = """
import sys
from pathlib import Path
import torch
from dsareid.commands.main import main
from dsareid.engine.learner import Learner
from dsareid.ground.distributed import current_group

def step(self, *arguments, original=Learner.step, **options):
    values = original(self, *arguments, **options)
    if current_group().is_rank_0:
        found = {name: value.grad for name, value in self.model.named_parameters()}
        torch.save(found, Path(sys.argv[1]))
    return values

Learner.step = step
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.processes
@pytest.mark.parametrize("options", [(), ("--guidance", "distill", "--optim.warm-up-epochs", "0")])
def test_two_processes_compute_the_gradients_of_one(tiny_data, tmp_path, options):
    """The same global batch, BatchNorm frozen, triplets of the whole batch; one step, as rounding grows."""
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    gradients, losses = [], []
    for count in (1, 2):
        out, kept = tmp_path / f"run{count}", tmp_path / f"{count}.pt"
        arguments = arguments_for(tiny_data, out, *options, "--epochs", 1, "--accumulate", 100)
        status, _, err = ranks.run([script, kept, *arguments], count)
        assert status == 0, err
        gradients.append(torch.load(kept))
        losses.append(log_of(out)[-1])
    assert len(losses[0]) > 8 and losses[0].keys() == losses[1].keys()
    for name in losses[0]:
        if name != "images_per_second":
            assert losses[0][name] == pytest.approx(losses[1][name], rel=1e-4, abs=1e-6), name
    one, two = gradients
    for name, expected in one.items():
        size = expected.abs().max().clamp(min=1e-6)
        assert (two[name] - expected).abs().max() <= 1e-4 * size, name


@pytest.mark.processes
def test_triplets_of_each_share_alone_are_others(tiny_data, tmp_path):
    """So that the test above tests something: with two processes there are no negatives in a share of one."""
    script, out = tmp_path / "shares.py", tmp_path / "run"
    script.write_text(
        "import sys\n"
        "from dsareid.commands.main import main\n"
        "from dsareid.ground.distributed import ProcessGroup\n"
        "from dsareid.models import losses\n"
        "losses.current_group = ProcessGroup\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    status, _, err = ranks.run([script, *arguments_for(tiny_data, out, "--epochs", 1)])
    assert status == 0, err
    assert log_of(out)[0]["loss/triplet_z_global"] == 0


@pytest.fixture(scope="module")
def whole_run(tiny_data, tmp_path_factory):
    """Four epochs, in one process, without a stop."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(config_for(tiny_data, out, epochs=4))
    return out


def wait_for_first_epoch(out: Path, running) -> None:
    while not (out / "checkpoint.pt").exists():
        assert running(), "it ended before its first epoch did"
        time.sleep(0.01)


def assert_ends_as(whole: Path, out: Path, stopped: dict) -> None:
    """The resumed run has the log of the whole one."""
    assert [line["step"] for line in log_of(out)] == [line["step"] for line in log_of(whole)]
    assert 0 < stopped["step"] <= log_of(out)[-1]["step"]
    expected, got = ([line["loss"] for line in log_of(x)] for x in (whole, out))
    assert got == pytest.approx(expected, rel=0.02)


def position_of(out: Path) -> dict:
    return torch.load(out / "checkpoint.pt", weights_only=True)["position"]


@pytest.mark.processes
def test_two_processes_resume_what_one_began(tiny_data, tmp_path, whole_run):
    out = tmp_path / "run"
    began = ranks.start([*DSAREID, *arguments_for(tiny_data, out, "--epochs", 4)], 1)
    wait_for_first_epoch(out, began.running)
    began.interrupt()
    began.ended()
    stopped = position_of(out)
    status, _, err = ranks.run([*DSAREID, "train", "--resume", "--out", out])
    assert status == 0, err
    assert_ends_as(whole_run, out, stopped)


def torchrun(*arguments: object) -> subprocess.Popen:
    """Two processes, started by torchrun itself."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    command = list(map(str, [*start, *arguments]))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.processes
def test_one_process_resumes_what_torchrun_began(tiny_data, tmp_path, whole_run):
    out = tmp_path / "run"
    process = torchrun(*DSAREID, *arguments_for(tiny_data, out, "--epochs", 4))
    wait_for_first_epoch(out, lambda: process.poll() is None)
    process.send_signal(signal.SIGINT)
    process.communicate()
    stopped = position_of(out)
    status, _, err = ranks.run([*DSAREID, "train", "--resume", "--out", out], 1)
    assert status == 0, err
    assert_ends_as(whole_run, out, stopped)


@pytest.mark.processes
def test_a_process_that_dies_ends_all_with_its_message(tiny_data, tmp_path):
    script = tmp_path / "dies.py"
    script.write_text(
        "import sys\n"
        "from dsareid.commands.main import main\n"
        "from dsareid.engine.learner import Learner\n"
        "from dsareid.ground.distributed import current_group\n"
        "from dsareid.ground.errors import DSAError\n"
        "calls = []\n"
        "def step(self, *arguments, original=Learner.step, **options):\n"
        "    calls.append(arguments)\n"
        "    if current_group().rank == 1 and len(calls) == 4:\n"
        "        raise DSAError('x.jpg: the disk is on fire')\n"
        "    return original(self, *arguments, **options)\n"
        "Learner.step = step\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    out = tmp_path / "run"
    process = torchrun(script, *arguments_for(tiny_data, out, "--epochs", 50))
    _, err = process.communicate()
    assert process.returncode != 0
    assert "dsareid train (process 1 of 2): error: x.jpg: the disk is on fire" in err
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


@pytest.mark.processes
def test_what_all_processes_say_is_said_once(tiny_data, tmp_path):
    """Here that the number of processes does not divide the batch."""
    out = tmp_path / "run"
    status, _, err = ranks.run([*DSAREID, *arguments_for(tiny_data, out, "--identities", 3)])
    assert status != 0 and not out.exists()
    assert err.count("a batch of 3 identities cannot be split evenly over 2 processes") == 1
    assert "Traceback (most recent call last):\n  File" not in err.split("error: a batch of 3")[0]


@pytest.mark.processes
def test_commands_that_write_one_file_run_in_one_process(tmp_path):
    status, _, err = ranks.run([*DSAREID, "synth", tmp_path / "out"])
    assert status != 0 and "start it without torchrun" in err and not (tmp_path / "out").exists()


@pytest.mark.processes
def test_evaluation_in_shares(tiny_data, tmp_path):
    """Three processes print and write what one does, also where there are two queries to share."""
    out = tmp_path / "run"
    train(config_for(tiny_data, out, epochs=1, batchnorm="batch"))
    figures = []
    for count in (1, 3):
        status, printed, err = ranks.run([*DSAREID, "eval", out, "--device", "cpu"], count)
        assert status == 0, err
        assert printed.count("rank-10") == 1
        figures.append([row.mAP for row in read_evaluation(out / "evaluation.json").rows])
    assert figures[0] == pytest.approx(figures[1])


def test_shares_are_all_there_is():
    for world in (1, 2, 3, 7):
        for items in (0, 1, 5, 20):
            shares = [list(range(items))[ProcessGroup(rank, world).share(items)] for rank in range(world)]
            assert sum(shares, []) == list(range(items))


def test_an_environment_that_is_not_torchruns(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DSAError, match="as torchrun sets them, not '2', '2'"):
        rank_and_world()
    monkeypatch.setenv("RANK", "1")
    assert rank_and_world() == (1, 2) and own_device(choose_device("cpu")) == torch.device("cpu")
