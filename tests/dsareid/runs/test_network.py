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
        with pytest.raises(DSAError, match="or `weights=none`"):
            load_initial_weights(DSAReID(3, streams="mf", **SMALL), "imagenet")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path):
    torch.save({"conv1.weight": torch.zeros(4)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain:
        with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb:
            for name in plain.namelist():
                bomb.writestr(name, bytes(1 << 24) if name.endswith("data/0") else plain.read(name))
    with pytest.raises(DSAError, match="`weights`: .*bomb.pth: its .* is compressed"):
        load_initial_weights(DSAReID(3, streams="mf", **SMALL), str(tmp_path / "bomb.pth"))
