"""Weights inside TorchScript archives, which are read and not run."""

import pickle
import shutil
import zipfile

import pytest
import torch
from torch import nn
from zoo_files import script_of

from dsareid.densepose.estimators.rcnn_file import read_weights
from dsareid.densepose.estimators.script_file import STEMS
from dsareid.ground.errors import DSAError

STEM = STEMS[0]

WEIGHTS = {
    STEM: torch.arange(12.0).reshape(2, 3, 2, 1),
    "backbone.bottom_up.res2.0.conv1.norm.running_var": torch.tensor([1.5, 2.5]),
    "roi_heads.densepose_head.body_conv_fcn1.bias": torch.arange(3.0),
}

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")


class Around(nn.Module):
    """A model inside something, with settings beside it, as predictors have them."""

    def __init__(self, model):
        super().__init__()
        self.model, self.sizes, self.names, self.scale = model, [800, 1333], {"a": 1}, 0.5

    def forward(self, x: torch.Tensor):
        return x * self.scale + self.sizes[0] + self.names["a"]


def saved(path, module):
    torch.jit.save(torch.jit.script(module.eval()), path)
    return path


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_have_their_names_and_types(tmp_path, inside, kind):
    model = script_of(WEIGHTS)
    path = saved(tmp_path / "m.pt", (Around(model) if inside else model).to(kind))
    found = read_weights(path)
    assert sorted(found) == sorted(WEIGHTS)
    for name, value in WEIGHTS.items():
        assert found[name].dtype == kind and torch.equal(found[name], value.to(kind))


def test_views_keep_their_strides(tmp_path):
    whole = torch.arange(24.0)
    model = script_of(WEIGHTS | {STEM: whole[4:].reshape(5, 4).T})
    assert torch.equal(read_weights(saved(tmp_path / "m.pt", model))[STEM], whole[4:].reshape(5, 4).T)


def test_what_has_no_names_is_refused(tmp_path):
    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = nn.Conv2d(1, 1, 1)

        def forward(self, x: torch.Tensor):
            return self.backbone(x)

    frozen = torch.jit.freeze(torch.jit.script(Stem().eval()))
    torch.jit.save(frozen, tmp_path / "frozen.pt")
    saved(tmp_path / "other.pt", Stem())
    for name in ("frozen.pt", "other.pt"):
        with pytest.raises(
            DSAError, match=rf"{name}: a TorchScript archive without {STEM}: it is no model of"
        ):
            read_weights(tmp_path / name)


def rewritten(source, out, **members):
    """The archive with other contents of members; None leaves one out."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = members.get(
                info.filename.partition("/")[2].replace(".", "_").replace("/", "_"), old.read(info)
            )
            if content is not None:
                new.writestr(info.filename, content, info.compress_type)
    return out


class Runs:
    def __reduce__(self):
        return shutil.rmtree, ("/nowhere",)


def test_a_pickle_that_would_run_code_is_refused_unrun(tmp_path):
    path = saved(tmp_path / "m.pt", script_of(WEIGHTS))
    bad = rewritten(path, tmp_path / "bad.pt", data_pkl=pickle.dumps({"a": Runs()}, protocol=2))
    with pytest.raises(
        DSAError, match=r"bad.pt: it names shutil.rmtree, which is no module or tensor; nothing"
    ):
        read_weights(bad)


def test_damaged_archives(tmp_path):
    path = saved(tmp_path / "m.pt", script_of(WEIGHTS))
    with zipfile.ZipFile(path) as archive:
        whole = archive.read("m/data.pkl")
    (tmp_path / "short.pt").write_bytes(path.read_bytes()[:-50])
    rewritten(path, tmp_path / "cut.pt", data_pkl=whole[:-20])
    rewritten(path, tmp_path / "few.pt", data_0=b"\0\0\0\0")
    rewritten(path, tmp_path / "none.pt", data_0=None)
    rewritten(path, tmp_path / "big.pt", byteorder=b"big")
    for name in ("short", "cut", "few", "none", "big"):
        with pytest.raises(DSAError, match=rf"{name}.pt: not readable as a file of torch"):
            read_weights(tmp_path / f"{name}.pt")


def test_light_models_begin_with_another_name(tmp_path):
    weights = {STEMS[1]: torch.zeros(2, 3, 3, 3)}
    assert sorted(read_weights(saved(tmp_path / "m.pt", Around(script_of(weights))))) == [STEMS[1]]


def test_a_tensor_larger_than_its_numbers(tmp_path):
    path = saved(tmp_path / "m.pt", script_of({STEM: torch.zeros(1).expand(1000, 1000)}))
    with pytest.raises(DSAError, match=r"a tensor of \[1000, 1000\] on 1 numbers"):
        read_weights(path)


def test_modules_inside_themselves_come_to_an_end(tmp_path):
    path = saved(tmp_path / "m.pt", script_of(WEIGHTS))
    looped = b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00aq\x01h\x00sb."
    with pytest.raises(DSAError, match="more than 65,536 attributes"):
        read_weights(rewritten(path, tmp_path / "loop.pt", data_pkl=looped))
