"""Trunks of timm: what they are, their weights, and the way through every command."""

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from dsareid.commands.main import main
from dsareid.engine.presets import preset
from dsareid.ground.errors import DSAError
from dsareid.inference.feature_folder import open_features
from dsareid.models import DSAReID
from dsareid.models.options import MEAN, STD, NetworkConfig
from dsareid.models.trunks import TimmTrunk, build_trunk
from dsareid.runs.config import TrainConfig
from dsareid.runs.network import build_model, load_initial_weights

NAMES = ("test_convnext", "test_vit", "test_resnet", "mobilenetv2_100")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stage", ["sixteenth", "whole"])
def test_a_map_of_a_sixteenth(name, stage):
    trunk = build_trunk(name, 1.0, (3, 4, 6), stage).eval()
    assert trunk(torch.zeros(2, 3, 128, 64)).shape == (2, trunk.channels, 8, 4)
    assert trunk(torch.zeros(1, 3, 96, 48)).shape == (1, trunk.channels, 6, 3)


def test_it_is_timms_own_with_its_own_normalisation():
    """Cut behind the stage of stride 16, and fed as timm feeds it."""
    trunk = TimmTrunk("mobilenetv2_100", "sixteenth").eval()
    whole = timm.create_model("mobilenetv2_100", features_only=True).eval()
    assert len(trunk.body.blocks) < len(whole.blocks)
    whole.load_state_dict(trunk.body.state_dict(), strict=False)
    image = torch.rand(2, 3, 64, 32)
    ours = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert torch.allclose(trunk(ours), whole(ours)[3], atol=1e-6)
    vit = TimmTrunk("test_vit", "sixteenth").eval()
    assert vit.body.model.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    assert torch.allclose(vit(ours), vit.body(2 * image - 1)[-1], atol=1e-5)


@pytest.mark.parametrize("size", [(64, 32), (65, 31)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_strided_depthwise_convolution_is_the_same_in_training(size, precision):
    """In bfloat16 on CPUs it is computed in another way, which gives the same numbers and gradients."""
    torch.manual_seed(0)
    trunk = TimmTrunk("mobilenetv2_100", "whole")
    layers = [x for x in trunk.modules() if type(x).__name__ == "_StridedDepthwise"]
    assert [layer.in_channels for layer in layers] == [96, 144, 192]  # the last stage's stride is gone
    for layer in layers[:2]:
        channels = layer.in_channels
        plain = torch.nn.Conv2d(channels, channels, 3, 2, 1, groups=channels, bias=False)
        plain.load_state_dict(layer.state_dict())
        found = []
        for one in (layer.train(), plain):
            x = torch.randn(2, channels, *size, generator=torch.manual_seed(1)).requires_grad_()
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                out = one(x)
            out.float().square().sum().backward()
            found.append((out.float(), x.grad, one.weight.grad))
        for ours, theirs in zip(*found):
            assert (ours - theirs).norm() <= (1e-6 if precision == torch.float32 else 1e-2) * theirs.norm()
        assert torch.equal(layer.eval()(x), plain(x))


@pytest.mark.parametrize("name", ["mobilenetv2_100", "test_resnet"])
def test_no_convolution_is_dilated(name):
    """Where timm takes the last stride out, it dilates; without that the weights are the same."""
    trunk = TimmTrunk(name, "whole")
    theirs = timm.create_model(name, features_only=True, output_stride=16)
    dilated = [x for x in theirs.modules() if isinstance(x, torch.nn.Conv2d) and x.dilation != (1, 1)]
    ours = [x for x in trunk.modules() if isinstance(x, torch.nn.Conv2d)]
    assert dilated and all(x.dilation == (1, 1) and x.padding[0] == x.kernel_size[0] // 2 for x in ours)
    assert trunk.body.state_dict().keys() <= theirs.state_dict().keys()


def test_the_small_preset():
    config = preset("small", "data", "out")
    assert config.network.trunk == "mobilenetv2_100" and config.title == "DSA-reID (mobilenetv2_100)"
    model = DSAReID(5, trunk="mobilenetv2_100", trunk_stage="whole", head_width=config.network.head_width)
    assert model.dsag.conv3[0].conv1.weight.shape == (24 * 16, 16, 3, 3)  # a full register for each part
    assert model.eval()(torch.zeros(1, 3, 128, 64)).shape == (1, 1024)
    other = preset("small", "data", "out", trunk="resnet50").network
    assert (other.trunk, other.trunk_stage, other.width, other.depths) == (
        "resnet50",
        "sixteenth",
        1,
        (3, 4, 6, 1),
    )
    assert preset("small", "data", "out", trunk="test_vit").network.trunk_stage == "whole"


def test_heads_and_guide_are_scaled_to_the_trunk():
    model = DSAReID(5, trunk="mobilenetv2_100").eval()  # 96 channels: 3/32 of ResNet-50's
    assert model(torch.zeros(1, 3, 64, 32)).shape == (1, 2 * 192)
    assert model.guide(torch.zeros(1, 24, 3, 16, 16)).shape == (1, 2 * 192)
    assert DSAReID(5, trunk="mobilenetv2_100", head_width=2).eval()(torch.zeros(1, 3, 64, 32)).shape[1] == 768
    assert DSAReID(5, trunk="test_convnext", head_width=1 / 32).mf.trunk.head_width(1 / 32) == 1 / 32
    alone = DSAReID(5, trunk="mobilenetv2_100", streams="dsag").eval()  # as wide as beside that trunk
    assert alone(None, torch.zeros(1, 24, 3, 16, 16)).shape == (1, 2 * 192) and alone.mf is None
    config = preset("demo", "data", "out", trunk="test_vit")
    assert config.network == NetworkConfig(
        trunk="test_vit", head_width=0.5, depths=(3, 4, 6, 2), classifier="batchnorm", zero_init=True
    )
    assert config.title == "DSA-reID (test_vit)"


def test_what_is_refused():
    with pytest.raises(
        DSAError, match="`network.trunk=test_vitt`: timm .* has no such model; similar: test_vit"
    ):
        build_trunk("test_vitt", 1.0, (3, 4, 6), "sixteenth")
    for changes in ({"width": 0.5}, {"depths": (1, 1, 1, 1)}):
        with pytest.raises(DSAError, match="`network.trunk=test_vit` has its own sizes"):
            NetworkConfig(trunk="test_vit", **changes)
    with pytest.raises(DSAError, match="`network.trunk_stage=whole` is only for timm trunks"):
        NetworkConfig(trunk_stage="whole")


def test_timm_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(DSAError, match=r"`network.trunk` needs timm: pip install timm"):
        build_trunk("test_vit", 1.0, (3, 4, 6), "sixteenth")


# ---- weights ----


def model_of(name, seed=0, **changes):
    config = TrainConfig(
        data="data", out="out", seed=seed, model="two-branch", network=NetworkConfig(trunk=name, **changes)
    )
    return build_model(config, 3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["plain", "prefix", "safetensors", "teacher"])
def test_weights_by_timms_names(name, form, tmp_path):
    torch.manual_seed(1)
    whole = timm.create_model(name)
    state = whole.state_dict()
    path = tmp_path / ("a.safetensors" if form == "safetensors" else "a.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        named = {f"module.{k}": v for k, v in state.items()} if form == "prefix" else state
        torch.save({"epoch": 3, "teacher": named} if form == "teacher" else named, path)
    model = model_of(name)
    load_initial_weights(model, str(path))
    expected = TimmTrunk(name, "sixteenth", state).eval()
    image = torch.rand(1, 3, 64, 32)
    assert torch.equal(model.mf.trunk.eval()(image), expected(image))
    other = model_of(name, seed=5)
    load_initial_weights(other, str(path))
    assert torch.equal(other.mf.trunk.eval()(image), expected(image))  # nothing stays random


def test_weights_in_torchvisions_order(tmp_path, caplog):
    caplog.set_level("INFO", "dsareid")
    torch.manual_seed(1)
    theirs = mobilenet_v2(weights=None).eval()
    torch.save(theirs.features.state_dict(), tmp_path / "a.pth")
    model = model_of("mobilenetv2_100")
    load_initial_weights(model, str(tmp_path / "a.pth"))
    assert "the names are not timm's: tensors are matched by order" in caplog.text
    image = torch.rand(1, 3, 64, 32)
    with torch.inference_mode():
        expected = theirs.features[:14](image)  # up to the last block of stride 16
        assert torch.allclose(model.mf.trunk.eval()(image), expected, atol=1e-5)


def test_weights_whose_positions_are_of_another_size(tmp_path):
    torch.save(timm.create_model("test_vit", img_size=(256, 128)).state_dict(), tmp_path / "a.pth")
    with pytest.raises(DSAError, match=r"pos_embed must be real numbers \[1, 101, 64\], not \[1, 129, 64\]"):
        load_initial_weights(model_of("test_vit"), str(tmp_path / "a.pth"))


CONVNEXT = timm.create_model("test_convnext").state_dict()
RENAMED = {f"layers.{k}.{name.rpartition('.')[2]}": v for k, (name, v) in enumerate(CONVNEXT.items())}


@pytest.mark.parametrize(
    "content, words",
    [
        (timm.create_model("test_resnet").state_dict(), "not the weights of this trunk: it holds 'conv1"),
        (
            {"a": CONVNEXT, "model": CONVNEXT, "net": CONVNEXT},
            "several networks .no prefix in model; no prefix in",
        ),
        (
            {k: v for k, v in CONVNEXT.items() if "stages.1" not in k},
            "of the trunk are missing, the first stages_1",
        ),
        (
            CONVNEXT | {"stages.0.blocks.7.norm.weight": torch.zeros(3)},
            "the weights of another network: this trunk has no stages.0.blocks.7",
        ),
        (
            CONVNEXT | {"stem.0.weight": torch.zeros(3)},
            r"stem.0.weight must be real numbers \[.*\], not \[3\]",
        ),
        (CONVNEXT | {"stem.0.bias": CONVNEXT["stem.0.bias"] * 1j}, "stem.0.bias must be real numbers"),
        (
            CONVNEXT | {"stem.0.weight": CONVNEXT["stem.0.weight"].to_sparse()},
            "stem.0.weight must be real numbers",
        ),
        (dict(sorted(RENAMED.items(), key=lambda x: x[0][::-1])), "not the weights of this trunk: it holds"),
        ([1], "not the weights of this trunk: no state dict in it"),
    ],
)
def test_weights_that_do_not_fit(content, words, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(DSAError, match=words):
        load_initial_weights(model_of("test_convnext"), str(tmp_path / "a.pth"))


def test_safetensors_keep_no_order(tmp_path):
    """By their order BatchNorm's bias would become its weight."""
    state = mobilenet_v2(weights=None).features.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(DSAError, match="not the weights of this trunk: it holds"):
        load_initial_weights(model_of("mobilenetv2_100"), str(tmp_path / "a.safetensors"))


def test_a_teacher_goes_before_its_student(tmp_path):
    other = {name: torch.zeros_like(value) for name, value in CONVNEXT.items()}
    torch.save({"student": other, "teacher": CONVNEXT}, tmp_path / "a.pth")
    model = model_of("test_convnext")
    load_initial_weights(model, str(tmp_path / "a.pth"))
    assert torch.equal(model.mf.trunk.body.stem_0.weight, CONVNEXT["stem.0.weight"])


def test_trunks_that_cannot_be_used():
    with pytest.raises(DSAError, match="`network.trunk=levit_128s` does not take images of 64x32"):
        build_model(
            TrainConfig(
                data="data",
                out="out",
                height=64,
                width=32,
                model="two-branch",
                network=NetworkConfig(trunk="levit_128s"),
            ),
            3,
        )
    with pytest.raises(DSAError, match="the stride of its last stage cannot be removed; use"):
        build_trunk("swin_tiny_patch4_window7_224", 1.0, (3, 4, 6), "whole")


def test_a_download_that_fails(monkeypatch):
    create = timm.create_model

    def offline(*arguments, pretrained=False, **options):
        if pretrained:
            raise OSError("no network")
        return create(*arguments, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        DSAError, match="timm cannot fetch the weights of test_vit .no network.*`weights=FILE`"
    ):
        load_initial_weights(model_of("test_vit"), "imagenet")


# ---- through every command ----


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "mobilenetv2_100"])
def test_every_command(name, tiny_data, tmp_path, capsys):
    run = tmp_path / "run"
    weights = tmp_path / "start.pth"
    state = mobilenet_v2(weights=None).features if name == "mobilenetv2_100" else timm.create_model(name)
    torch.save(state.state_dict(), weights)
    small = "--preset demo --epochs 2 --identities 2 --images 2 --height 64 --width 32 --device cpu".split()
    trunk = ["--network.trunk", name, "--weights", str(weights)]
    assert main(["train", "--data", str(tiny_data), "--out", str(run), *small, *trunk]) == 0
    assert json.loads((run / "config.json").read_text())["network"]["trunk"] == name
    assert main(["eval", str(run)]) == 0 and f"DSA-reID ({name})" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0 and f"({name})" in (run / "report.html").read_text()
    features = {}
    for form in ("run", "model.safetensors", "model.onnx", "model.pt2"):
        model = tmp_path / form
        trust = ["--trust"] if form.endswith("pt2") else []
        if form != "run":
            assert main(["export", str(run), str(model)]) == 0
        out = tmp_path / f"features-{form}"
        assert (
            main(["extract", str(model), str(tiny_data / "query"), str(out), "--device", "cpu", *trust]) == 0
        )
        features[form] = open_features(out).features
    for form, found in features.items():
        assert np.allclose(found, features["run"], atol=1e-5), form
    image = str(next((tiny_data / "query").iterdir()))
    found = [
        "search",
        str(tmp_path / "model.safetensors"),
        image,
        str(tmp_path / "features-run"),
        "--device",
        "cpu",
    ]
    assert main(found) == 0 and "1    0.0000" in capsys.readouterr().out
    assert main(["describe", "--preset", "demo", "--network.trunk", name, "--batch-size", "2"]) == 0
    assert "trunk body" in capsys.readouterr().out
