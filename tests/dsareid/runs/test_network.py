import argparse
import logging
import zipfile
from unittest import mock

import pytest
import torch
from safetensors.torch import save_file

from dsareid.ground.errors import DSAError
from dsareid.models import DSAReID
from dsareid.runs.network import load_initial_weights

SMALL = {"width": 1 / 8, "head_width": 1 / 8, "depths": (1, 1, 1, 1)}


def state_of(model):
    state = {
        k: torch.randn_like(v) if v.is_floating_point() else v for k, v in model.mf.trunk.state_dict().items()
    }
    state |= {f"layer4.{k}": v.clone() for k, v in model.mf.head_g.state_dict().items()}
    return state | {"fc.weight": torch.zeros(3, 3)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("branches", ["global", "both"])
def test_from_a_file(tmp_path, suffix, branches):
    model = DSAReID(3, streams="mf", branches=branches, **SMALL)
    state = state_of(DSAReID(3, streams="mf", branches="global", **SMALL))
    path = tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else save_file)(state, path)
    head = {k: v.clone() for k, v in model.mf.head_g.state_dict().items()}
    load_initial_weights(model, str(path))
    assert torch.equal(model.mf.trunk.conv1.weight, state["conv1.weight"])
    loaded = model.mf.head_g.state_dict()["0.conv1.weight"]
    expected = state["layer4.0.conv1.weight"] if branches == "global" else head["0.conv1.weight"]
    assert torch.equal(loaded, expected)


def test_files_without_the_counters_of_batchnorm(tmp_path):
    """State dicts from before torch 0.4.1, as torchvision's older ones, have none."""
    state = state_of(DSAReID(3, streams="mf", branches="global", **SMALL))
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, tmp_path / "old.pth")
    model = DSAReID(3, streams="mf", branches="global", **SMALL)
    load_initial_weights(model, str(tmp_path / "old.pth"))
    assert torch.equal(model.mf.trunk.conv1.weight, state["conv1.weight"])
    assert model.mf.trunk.bn1.num_batches_tracked == 0


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "model.",
        "backbone.",
        "base.",
        "encoder_q.",
        "module.backbone.",
        "module.encoder_q.",
        "backbone.0.",
        "layer1.",
    ],
)
def test_names_with_a_prefix(tmp_path, caplog, prefix):
    caplog.set_level(logging.INFO, "dsareid")
    state = state_of(DSAReID(3, streams="mf", branches="global", **SMALL))
    path = tmp_path / "weights.pth"
    torch.save(
        {f"{prefix}{name}": value for name, value in state.items()} | {"head.weight": torch.zeros(2)}, path
    )
    model = DSAReID(3, streams="mf", branches="global", **SMALL)
    load_initial_weights(model, str(path))
    assert torch.equal(model.mf.trunk.layer3[0].conv2.weight, state["layer3.0.conv2.weight"])
    assert torch.equal(model.mf.head_g[0].conv3.weight, state["layer4.0.conv3.weight"])
    assert caplog.messages == [f"{path}: the weights are {prefix}conv1.weight, ..."]


@pytest.mark.parametrize("key", ["state_dict", "model", "net", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_with_other_things_beside(tmp_path, caplog, key, prefix):
    caplog.set_level(logging.INFO, "dsareid")
    state = state_of(DSAReID(3, streams="mf", branches="global", **SMALL))
    named = {f"{prefix}{name}": value for name, value in state.items()} | {"steps": 7, 3: torch.zeros(1)}
    beside = {"epoch": 3, "arch": "resnet50", "best": 0.5, "optimizer": {"state": {0: torch.zeros(2)}}}
    torch.save({**beside, key: named}, tmp_path / "weights.pth.tar")
    model = DSAReID(3, streams="mf", branches="both", **SMALL)
    load_initial_weights(model, str(tmp_path / "weights.pth.tar"))
    assert torch.equal(model.mf.trunk.conv1.weight, state["conv1.weight"])
    (line,) = caplog.messages
    assert line.endswith(f"the weights are {prefix}conv1.weight, ... in its {key}")
    torch.save({**beside, "model": {"state_dict": named}}, tmp_path / "deeper.pth")
    load_initial_weights(model, str(tmp_path / "deeper.pth"))
    assert caplog.messages[1].endswith("in its model.state_dict")


def test_plain_names_say_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "dsareid")
    model = DSAReID(3, streams="mf", branches="global", **SMALL)
    torch.save(state_of(model), tmp_path / "weights.pth")
    load_initial_weights(model, str(tmp_path / "weights.pth"))
    assert not caplog.messages


def test_the_whole_network_of_a_run(tmp_path):
    model, other = (DSAReID(3, **SMALL) for _ in range(2))
    torch.save({"model": other.state_dict(), "position": {"epoch": 1}}, tmp_path / "checkpoint.pt")
    load_initial_weights(model, str(tmp_path / "checkpoint.pt"))
    assert torch.equal(model.mf.trunk.conv1.weight, other.mf.trunk.conv1.weight)


def test_several_networks_are_named_and_none_is_taken(tmp_path):
    model = DSAReID(3, streams="mf", branches="global", **SMALL)
    state, before = state_of(model), model.mf.trunk.conv1.weight.clone()
    both = {f"module.{which}.{k}": v for which in ("encoder_q", "encoder_k") for k, v in state.items()}
    torch.save({"state_dict": both}, tmp_path / "moco.pth")
    with pytest.raises(DSAError) as caught:
        load_initial_weights(model, str(tmp_path / "moco.pth"))
    for which in ("encoder_q", "encoder_k"):
        assert f"module.{which}.conv1.weight, ... in its state_dict" in str(caught.value)
    torch.save({"model": state, "net": state}, tmp_path / "two.pth")
    with pytest.raises(DSAError, match="several networks .* in its model; .* in its net"):
        load_initial_weights(model, str(tmp_path / "two.pth"))
    assert torch.equal(model.mf.trunk.conv1.weight, before)


def other_width():
    return state_of(
        DSAReID(3, streams="mf", branches="global", width=1 / 4, head_width=1 / 8, depths=(1,) * 4)
    )


@pytest.mark.parametrize(
    "content, words",
    [
        (
            lambda state: {"features.0.weight": torch.zeros(3)},
            "no conv1.weight .* it holds 'features.0.weight'$",
        ),
        (
            lambda state: {"epoch": 1, "state_dict": {"conv1.0.weight": torch.zeros(3)}},
            "its state_dict holds 'conv1.0.weight'$",
        ),
        (
            lambda state: {"epoch": 1, "weights_of": state},
            "no conv1.weight .* it holds 'epoch', 'weights_of'$",
        ),
        (lambda state: {}, "it holds nothing"),
        (lambda state: state["conv1.weight"], "expected a state dict, names to tensors, not Tensor"),
        (
            lambda state: {"module." + k: v for k, v in other_width().items()},
            "conv1.weight must be .8, 3, 7, 7., not",
        ),
        (
            lambda state: {k: v for k, v in state.items() if k != "layer2.0.bn2.bias"},
            "layer2.0.bn2.bias is missing",
        ),
        (
            lambda state: state | {"layer1.1.conv1.weight": torch.zeros(1)},
            "layer1.1.conv1.weight is unexpected",
        ),
        (lambda state: state | {"bn1.weight": 3}, "bn1.weight must be .8., not int"),
        (
            lambda state: state | {"bn1.weight": state["bn1.weight"].to_sparse()},
            "plain real numbers, not .*sparse",
        ),
        (
            lambda state: state | {"bn1.weight": state["bn1.weight"].to("meta")},
            "plain real numbers, not .*meta",
        ),
        (
            lambda state: state | {"bn1.weight": state["bn1.weight"] + 1j},
            "plain real numbers, not torch.complex64",
        ),
    ],
)
def test_what_is_in_the_way_is_named(tmp_path, content, words):
    state = state_of(DSAReID(3, streams="mf", branches="global", **SMALL))
    torch.save(content(state), tmp_path / "weights.pth")
    with pytest.raises(DSAError, match=f"(?s)weights.pth`: .*{words}"):
        load_initial_weights(DSAReID(3, streams="mf", **SMALL), str(tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    "beside, kind",
    [
        (argparse.Namespace(lr=1), "argparse.Namespace"),
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
def test_objects_that_could_run_code_are_named(tmp_path, beside, kind):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "args": beside}, tmp_path / "weights.pth")
    with pytest.raises(
        DSAError, match=rf"weights.pth`: not readable as weights: it holds an object \({kind}\)"
    ):
        load_initial_weights(DSAReID(3, streams="mf", **SMALL), str(tmp_path / "weights.pth"))


def test_a_dict_that_holds_itself(tmp_path):
    state = {"epoch": 1}
    state["model"] = state
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(DSAError, match="not the weights of a ResNet-50: no conv1.weight"):
        load_initial_weights(DSAReID(3, streams="mf", **SMALL), str(tmp_path / "weights.pth"))


def test_none_changes_nothing():
    model = DSAReID(3, streams="mf", **SMALL)
    before = model.mf.trunk.conv1.weight.clone()
    load_initial_weights(model, "none")
    assert torch.equal(model.mf.trunk.conv1.weight, before)


def test_bad_files(tmp_path):
    model = DSAReID(3, streams="mf", **SMALL)
    with pytest.raises(DSAError, match="no such file"):
        load_initial_weights(model, str(tmp_path / "missing.pth"))
    for name in ("broken.pth", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
        with pytest.raises(DSAError, match="not readable as weights"):
            load_initial_weights(model, str(tmp_path / name))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DSAError, match="state dict"):
        load_initial_weights(model, str(tmp_path / "list.pth"))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(DSAError, match="not the weights of a ResNet-50"):
        load_initial_weights(model, str(tmp_path / "other.pth"))


def test_no_internet_is_said_and_never_passed_over():
    target = "torchvision.models.ResNet50_Weights.get_state_dict"
    with mock.patch(target, side_effect=OSError("no route to host")):
        with pytest.raises(DSAError, match="random weights: `weights=none`"):
            load_initial_weights(DSAReID(3, streams="mf", **SMALL), "imagenet")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    torch.save({"conv1.weight": torch.zeros(4)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
            for name in plain.namelist():
                bomb.writestr(name, bytes(1 << 24) if name.endswith("data/0") else plain.read(name))
    with pytest.raises(DSAError, match="`weights`: .*bomb.pth: its .* is compressed"):
        load_initial_weights(DSAReID(3, streams="mf", **SMALL), str(tmp_path / "bomb.pth"))
