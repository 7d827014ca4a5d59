"""Each examples/guide_*.py learns, and leaves a backbone that needs nothing of ours."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision.models import convnext_tiny, resnet18

from dsareid.data.iuv import write_iuv
from dsareid.data.torch_dataset import DSAPBatch

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("resnet18", "convnext", "timm_vit")


@pytest.fixture(autouse=True)
def as_scripts(monkeypatch):
    """They are imported as Python runs them, from their own folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def batches():
    """Eight times the same people, two of two colours, two images each."""
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([0, 0, 1, 1])
    image = torch.randn(4, 3, 64, 32, generator=generator) + 2 * label[:, None, None, None]
    dsap = torch.randn(4, 24, 3, 8, 8, generator=generator) - label[:, None, None, None, None]
    return 8 * [DSAPBatch(image, dsap, label, label, label)]


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    """Two people, four images each, in Market-1501's layout."""
    root, split = tmp_path_factory.mktemp("market"), "bounding_box_train"
    (root / "iuv" / split).mkdir(parents=True)
    (root / split).mkdir()
    rng = np.random.default_rng(0)
    for identity, shot in np.ndindex(2, 4):
        name = f"{split}/{identity + 1:04d}_c1s1_{shot:06d}_00.png"
        image, iuv = rng.integers(0, 256, (2, 64, 32, 3), dtype=np.uint8)
        iuv[..., 0] %= 25
        Image.fromarray(image).save(root / name)
        write_iuv(root / "iuv" / name, iuv)
    return root


def train(name, batches, **options):
    torch.manual_seed(0)
    return importlib.import_module(f"guide_{name}").train(batches, 2, "cpu", **options)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name, batches, capsys):
    backbone = train(name, batches)
    lines = capsys.readouterr().out.splitlines()
    total = [sum(map(float, re.findall(r" (\d+\.\d{3})", line))) for line in lines]
    assert len(total) == len(batches) and total[-1] < 0.7 * total[0]
    assert not backbone.training and not any("dsag" in x or "classify" in x for x in backbone.state_dict())


def test_the_trunk_is_a_plain_resnet18(batches):
    backbone, plain = train("resnet18", batches[:2]), resnet18(weights=None)
    plain.fc = torch.nn.Identity()
    plain.load_state_dict(backbone.trunk.state_dict())
    image = batches[0].image
    f_global, f_local = backbone(image)
    torch.testing.assert_close(plain.eval()(image), f_global)
    assert f_local.shape == (4, 8, 64)


def test_the_backbone_is_a_plain_convnext(batches):
    backbone, plain = train("convnext", batches[:2]), convnext_tiny(weights=None)
    plain.classifier[2] = torch.nn.Identity()
    plain.load_state_dict(backbone.state_dict())
    image = batches[0].image
    torch.testing.assert_close(plain.eval()(image), backbone(image))
    assert backbone(image).shape == (4, 768)


def test_a_convnext_is_taught_after_some_steps(batches, capsys):
    train("convnext", batches[:3], teach_after=2)
    lines = capsys.readouterr().out.splitlines()
    assert ["distill_global" in line for line in lines] == [False, False, True]


def test_the_vit_is_timms_own(batches):
    backbone = train("timm_vit", batches[:2])
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True)
    plain.load_state_dict(backbone.vit.state_dict())
    image = batches[0].image
    f_global, f_local = backbone(image)
    torch.testing.assert_close(plain.eval()(image), f_global)
    assert f_local.shape == (4, 8, 192)


def test_as_a_command(market, tmp_path):
    command = [sys.executable, EXAMPLES / "guide_resnet18.py", market, tmp_path / "resnet18.pth", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("step 10: loss ")
    state = torch.load(tmp_path / "resnet18.pth", weights_only=True)
    assert state["trunk.conv1.weight"].shape == (64, 3, 7, 7)


def test_batches_of_several_images_of_everyone(market):
    loader, identities = importlib.import_module("guide_batches").batches(str(market), epochs=3)
    assert identities == 2
    for batch in loader:
        assert batch.label.bincount().tolist() == [4, 4]
        assert batch.image.shape == (8, 3, 128, 64) and batch.dsap.shape == (8, 24, 3, 32, 32)
