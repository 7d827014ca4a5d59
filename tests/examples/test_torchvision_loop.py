"""examples/torchvision_loop.py runs and learns."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dsareid.data.iuv import write_iuv

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[2] / "examples/torchvision_loop.py"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two people of two colours, four images each."""
    root = tmp_path_factory.mktemp("market")
    for folder in ("bounding_box_train", "iuv/bounding_box_train"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for identity, shot in np.ndindex(2, 4):
        name = f"bounding_box_train/{identity + 1:04d}_c1s1_{shot:06d}_00.png"
        image = rng.integers(0, 60, (64, 32, 3), dtype=np.uint8)
        image[..., 2 * identity] += 150
        iuv = rng.integers(0, 256, (64, 32, 3), dtype=np.uint8)
        iuv[..., 0] %= 25
        Image.fromarray(image).save(root / name)
        write_iuv(root / "iuv" / name, iuv)
    return root


def losses(output):
    return [float(x) for x in re.findall(r"^epoch \d+: loss (\d+\.\d{3})$", output, re.MULTILINE)]


def test_one_epoch(data):
    command = [sys.executable, EXAMPLE, data, "--epochs", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(losses(done.stdout)) == 1 and "epoch 1: 100%" in done.stderr


def test_it_learns(data, capsys):
    spec = importlib.util.spec_from_file_location("torchvision_loop", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    network = module.train(str(data), 4)
    values = losses(capsys.readouterr().out)
    assert len(values) == 4 and values[-1] < 0.7 * values[0]
    assert network(torch.zeros(2, 3, 128, 64)).shape == (2, 512)
