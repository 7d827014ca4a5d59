"""Every exported form against its run, and files that are something else."""

import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from runs import HEIGHT, WIDTH, make_run
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dsareid.commands.main import main
from dsareid.ground.errors import DSAError
from dsareid.inference.embedder import embed
from dsareid.inference.export import export
from dsareid.inference.settings import METADATA
from dsareid.models.options import MEAN, STD
from dsareid.runs.folder import load_run

pytestmark = pytest.mark.slow

FORMS = [("m.safetensors", "float32"), ("m.onnx", "float32"), ("m.pt2", "float32"), ("b.pt2", "bfloat16")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The folder with the run in every form; read only."""
    folder = tmp_path_factory.mktemp("exported")
    for name, precision in FORMS:
        export(run, folder / name, precision)
    return folder


def load(path):
    return embed(path, "cpu", trust=True)


def random_images(count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=generator)


def expected_features(run, images):
    """By the run's whole model, and the normalisation that is written down in the documentation."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    with torch.inference_mode():
        return load_run(run, "cpu").model((images.permute(0, 3, 1, 2) / 255 - mean) / std)


@pytest.mark.parametrize("name, precision", FORMS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_features_are_those_of_the_run(run, exported, name, precision, count):
    images = random_images(count)
    embedder = load(exported / name)
    found, expected = embedder(images), expected_features(run, images)
    assert found.dtype == torch.float32 and found.shape == (count, 512) and embedder.dimension == 512
    tolerance = 1e-5 if precision == "float32" else 5e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(found.view(count, 2, 256).norm(dim=2), torch.ones(count, 2))
    assert torch.equal(found, embedder(images.numpy()))


def test_one_identity_for_all_forms(run, exported, tmp_path):
    model = load(run).model
    assert len(model) == 16
    assert {load(exported / name).model for name, _ in FORMS} == {model}
    assert load(make_run(tmp_path / "again")).model == model
    assert load(make_run(tmp_path / "other", seed=1)).model != model


@pytest.mark.parametrize(
    "changes, size",
    [
        ({"model": "two-branch"}, 512),
        ({"model": "baseline"}, 256),
        ({"model": "dsa-local"}, 256),
        ({"guidance": "concat"}, 512),
        ({"guidance": "distill", "classifier": "batchnorm"}, 512),
        ({"classifier": "bnneck"}, 512),
        ({"model": "baseline", "classifier": "bnneck"}, 256),
    ],
)
def test_other_networks(tmp_path, changes, size):
    run = make_run(tmp_path / "run", **changes)
    written = export(run, tmp_path / "m.safetensors")
    names = load_file(tmp_path / "m.safetensors")
    assert any(name.startswith("classify_") for name in names) == (changes.get("classifier") == "bnneck")
    assert not any(name.endswith("1.weight") and name.startswith("classify_") for name in names)
    export(run, tmp_path / "m.pt2")
    for path in (run, tmp_path / "m.safetensors", tmp_path / "m.pt2"):
        embedder, images = load(path), random_images(3)
        assert embedder.model == written.model and embedder(images).shape == (3, size)
        torch.testing.assert_close(embedder(images), expected_features(run, images), rtol=0, atol=1e-5)


def test_only_what_inference_uses_is_written(run, exported):
    names = load_file(exported / "m.safetensors").keys()
    assert names and all(name.startswith("mf.") for name in names)
    with zipfile.ZipFile(exported / "m.pt2") as archive:
        config = json.loads(archive.read("archive/data/weights/model_weights_config.json"))["config"]
        assert not [name for name in config if "classify" in name or "dsag" in name]
        text = archive.read("archive/models/model.json").decode()
    assert ".py" not in text and ".py" not in (exported / "m.onnx").read_bytes().decode("latin1")


def test_onnx_for_others(exported):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model = onnx.load(exported / "m.onnx")
    onnx.checker.check_model(model)
    assert "normalised inside" in model.doc_string
    settings = json.loads({x.key: x.value for x in model.metadata_props}[METADATA])
    assert (settings["height"], settings["width"]) == (HEIGHT, WIDTH) and "normalised" in settings["image"]
    session = onnxruntime.InferenceSession(exported / "m.onnx")
    shapes = {"image": ["batch", HEIGHT, WIDTH, 3], "features": ["batch", 512]}
    assert {x.name: x.shape for x in (*session.get_inputs(), *session.get_outputs())} == shapes
    values = (*model.graph.input, *model.graph.output, *model.graph.value_info)
    assert {x.dim_param for value in values for x in value.type.tensor_type.shape.dim} == {"", "batch"}
    images = random_images(4)
    (found,) = session.run(["features"], {"image": images.numpy()})
    assert found.shape == (4, 512)


def test_pt2_for_others(exported):
    extra = {METADATA: ""}
    network = torch.export.load(exported / "m.pt2", extra_files=extra).module()
    assert json.loads(extra[METADATA])["dimension"] == 512
    assert network(random_images(7)).shape == (7, 512)


def test_command(run, tmp_path, capsys):
    assert main(["export", str(run), str(tmp_path / "m.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "MB, model " in out and "differ from those of" in out


@pytest.mark.parametrize(
    "name, extra, words",
    [
        ("m.pth", [], "must end in .safetensors, .onnx or .pt2, not '.pth'"),
        ("m", [], "must end in"),
        ("m.onnx", ["--precision", "bfloat16"], "--precision bfloat16 works with .pt2 only"),
        ("no/m.safetensors", [], "cannot write"),
    ],
)
def test_what_cannot_be_exported(run, tmp_path, capsys, name, extra, words):
    assert main(["export", str(run), str(tmp_path / name), *extra]) == 1
    assert words in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_runs_that_cannot_be_exported(run, tmp_path):
    guide = make_run(tmp_path / "guide", model="dsap")
    with pytest.raises(DSAError, match="guide: model dsap has no MF-Stream"):
        export(guide, tmp_path / "m.onnx")
    with pytest.raises(DSAError, match="not a run's folder"):
        export(tmp_path, tmp_path / "m.onnx")
    mixed = shutil.copytree(run, tmp_path / "mixed")
    shutil.copy(guide / "checkpoint.pt", mixed)
    with pytest.raises(DSAError, match="checkpoint.pt: holds another model"):
        export(mixed, tmp_path / "m.onnx")


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_without_the_packages_of_onnx(run, exported, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DSAError, match=rf"{package} is missing: pip install onnx onnxruntime onnxscript"):
        export(run, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
    if package == "onnxruntime":
        with pytest.raises(DSAError, match=r"m.onnx: onnxruntime is missing: pip install onnxruntime"):
            load(exported / "m.onnx")


def test_a_file_that_differs_gets_no_name(run, tmp_path, monkeypatch):
    monkeypatch.setattr("dsareid.inference.export._TOLERANCE", {"float32": -1.0})
    with pytest.raises(DSAError, match="m.safetensors: not written: its features differ"):
        export(run, tmp_path / "m.safetensors")
    assert not list(tmp_path.iterdir())


# ---- files from outside ----


def test_onnxruntime_that_cannot_start_cuda(exported, monkeypatch):
    """It lists CUDA, and then computes on the CPU with no more than a warning."""
    onnxruntime = pytest.importorskip("onnxruntime")
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr("dsareid.inference.formats.onnx.choose_device", lambda device: torch.device("cuda:0"))
    with pytest.raises(DSAError, match=r'm.onnx: onnxruntime cannot start CUDA on cuda:0: .*`device="cpu"`'):
        embed(exported / "m.onnx", "auto")


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".pt2"])
@pytest.mark.parametrize("content", [b"", b"no model", b"\0" * 100, b"PK\5\6" + b"\0" * 18])
def test_files_that_are_no_models(tmp_path, suffix, content):
    path = tmp_path / f"m{suffix}"
    path.write_bytes(content)
    with pytest.raises(DSAError, match=f"m{suffix}: "):
        load(path)


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx", "m.pt2"])
def test_files_cut_short(exported, tmp_path, name):
    whole = (exported / name).read_bytes()
    for length in (1000, len(whole) // 2, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(DSAError, match=name):
            load(tmp_path / name)


def test_paths_that_are_no_models(tmp_path):
    (tmp_path / "m.txt").write_text("")
    for name, words in (("m.txt", "not a model; expected a run"), ("m.onnx", "no such file"), (".", "run")):
        with pytest.raises(DSAError, match=words):
            load(tmp_path / name)


def settings_of(exported):
    with safe_open(exported / "m.safetensors", "pt") as file:
        return json.loads(file.metadata()[METADATA])


@pytest.mark.parametrize(
    "changes, words",
    [
        (None, "holds no settings of dsareid"),
        ({"height": 1 << 40}, "height"),
        ({"depths": [1, 1, 1]}, "depths"),
        ({"depths": [1, 1, 1, 10**9]}, "depths"),
        ({"network_width": 1e9}, "network_width"),
        ({"branches": "all"}, "branches"),
        ({"version": 2}, "version"),
        ({"network_width": 0.25}, "mf.*must be float32 .*, but is"),
        ({"depths": [1, 1, 1, 2]}, "mf.*but is missing"),
        ({"branches": "global"}, "mf.*must be float32 absent"),
        ({"model": "0" * 16}, "altered since it was written"),
        ({"height": 128}, "altered since it was written"),
    ],
)
def test_safetensors_with_other_settings(exported, tmp_path, changes, words):
    text = None if changes is None else json.dumps(settings_of(exported) | changes)
    save_file(load_file(exported / "m.safetensors"), tmp_path / "m.safetensors", text and {METADATA: text})
    with pytest.raises(DSAError, match=words):
        load(tmp_path / "m.safetensors")


def test_safetensors_with_another_weight(exported, tmp_path):
    weights = load_file(exported / "m.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, tmp_path / "m.safetensors", {METADATA: json.dumps(settings_of(exported))})
    with pytest.raises(DSAError, match="altered since it was written"):
        load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "changes, words",
    [
        (None, "its input must be float32 or float16"),  # so it is somebody else's
        ({"height": 128}, "input and output must be"),
        ({"dimension": 4096}, "input and output must be"),
    ],
)
def test_onnx_with_other_settings(exported, tmp_path, changes, words):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported / "m.onnx")
    del model.metadata_props[:]
    if changes is not None:
        onnx.helper.set_model_props(model, {METADATA: json.dumps(settings_of(exported) | changes)})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(DSAError, match=words):
        load(tmp_path / "m.onnx")


def rewritten(exported, tmp_path, change) -> object:
    """m.pt2 with `change` applied to its files, by their names."""
    with zipfile.ZipFile(exported / "m.pt2") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    with zipfile.ZipFile(tmp_path / "m.pt2", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return tmp_path / "m.pt2"


def edit(name, old, new):
    def change(files):
        assert old in files[f"archive/{name}"]
        files[f"archive/{name}"] = files[f"archive/{name}"].replace(old, new)

    return change


MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


@pytest.mark.parametrize(
    "change, words",
    [
        (edit(MODEL, b'"graph_module"', b'"no_module"'), "not readable as a .pt2 file"),
        (edit(WEIGHTS, b'"sizes"', b'"seizes"'), "not readable as a .pt2 file"),
        (lambda files: files.pop("archive/extra/dsareid"), "holds no settings of dsareid"),
        (edit("extra/dsareid", b'"height":64', b'"height":96'), "its graph does not take uint8"),
        (edit("extra/dsareid", b'"dimension":512', b'"dimension":513'), "its features must be .*513"),
    ],
)
def test_pt2_with_other_contents(exported, tmp_path, change, words):
    path = rewritten(exported, tmp_path, change)
    with pytest.raises(DSAError, match=words):
        load(path)


def test_rewriting_alone_changes_nothing(exported, tmp_path):
    load(rewritten(exported, tmp_path, lambda files: None))


def test_pt2_is_loaded_only_where_it_is_trusted(run, exported, tmp_path, capsys):
    with pytest.raises(DSAError, match="m.pt2: a .pt2 file can run code when it is loaded"):
        embed(exported / "m.pt2", "cpu")
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    photo, folder = str(tmp_path / "a.png"), str(tmp_path)
    for command in (["extract", "{}", folder, f"{folder}/out"], ["search", "{}", photo, folder]):
        arguments = [argument.format(exported / "m.pt2") for argument in command]
        assert main([*arguments, "--device", "cpu"]) == 1
        assert "or --trust, if you trust the file's origin" in capsys.readouterr().err
        assert main([*arguments, "--device", "cpu", "--trust"]) == 0


def test_settings_that_are_no_text(run, tmp_path):
    """Damaged bytes in an ONNX file's metadata are an error of ours."""
    export(run, tmp_path / "a.onnx")
    data = (tmp_path / "a.onnx").read_bytes()
    at = data.index(b"dsareid MF-Stream")
    (tmp_path / "b.onnx").write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    with pytest.raises(DSAError, match="b.onnx: "):
        embed(tmp_path / "b.onnx", "cpu")


# ---- for trackers ----


def test_torchreids_convention(run, tmp_path):
    """As boxmot feeds it: RGB, 0..1, ImageNet's mean and standard deviation, NCHW."""
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export(run, tmp_path / "t.onnx", convention="torchreid").deviation < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "t.onnx")
    (image,), (features,) = session.get_inputs(), session.get_outputs()
    assert (image.type, image.shape) == ("tensor(float)", ["batch", 3, HEIGHT, WIDTH])
    for count in (1, 7, 64):
        images = random_images(count)
        mean, std = (np.array(x, np.float32)[:, None, None] for x in (MEAN, STD))
        given = (images.numpy().transpose(0, 3, 1, 2).astype(np.float32) / 255 - mean) / std
        (found,) = session.run([features.name], {image.name: given})
        expected = expected_features(run, images)
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(load(tmp_path / "t.onnx")(images), expected, rtol=0, atol=1e-5)
    assert load(tmp_path / "t.onnx").model == load(run).model


def test_ultralytics_convention(run, tmp_path):
    """As ultralytics feeds it: RGB, 0..1, stretched to a square of the height."""
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export(run, tmp_path / "u.onnx", convention="ultralytics").deviation < 1e-5
    session = onnxruntime.InferenceSession(tmp_path / "u.onnx")
    (image,) = session.get_inputs()
    assert (image.type, image.shape) == ("tensor(float)", ["batch", 3, HEIGHT, HEIGHT])
    # Crops without fine detail lose nothing by being stretched and squeezed.
    coarse = random_images(3)[:, ::16, ::16].permute(0, 3, 1, 2).float()
    smooth = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bilinear").round()
    given = torch.nn.functional.interpolate(smooth / 255, (HEIGHT, HEIGHT), mode="bilinear")
    found = torch.from_numpy(session.run(None, {image.name: given.numpy()})[0])
    expected = expected_features(run, smooth.permute(0, 2, 3, 1).to(torch.uint8))
    assert torch.cosine_similarity(found, expected).min() > 0.99
    with pytest.raises(DSAError, match="takes crops stretched to squares, for ultralytics"):
        load(tmp_path / "u.onnx")


def test_conventions_are_for_onnx(run, tmp_path, capsys):
    for suffix in (".pt2", ".safetensors"):
        assert main(["export", str(run), str(tmp_path / f"m{suffix}"), "--convention", "torchreid"]) == 1
        assert f"--convention torchreid works with .onnx only, not with {suffix}" in capsys.readouterr().err
