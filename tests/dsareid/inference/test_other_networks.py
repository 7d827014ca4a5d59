"""Other people's networks: ONNX files and models by name, against the same arithmetic written out."""

import json
import logging

import numpy as np
import pytest
import torch
from other_onnx import WEIGHTS, write_onnx
from PIL import Image
from runs import make_run
from tiny_market import make_data

from dsareid.commands.main import main
from dsareid.ground.errors import DSAError
from dsareid.inference.embedder import embed
from dsareid.inference.feature_folder import HEADER, open_features
from dsareid.inference.settings import Facts

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper  # noqa: E402

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZE = {"height": 64, "width": 32}


def random_images(count):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 64, 32, 3), dtype=torch.uint8, generator=generator)


def expected(images, mean=MEAN, std=STD, bgr=False):
    pixels = (images.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    means = pixels.mean((1, 2))
    features = (means.flip(1) if bgr else means) @ torch.from_numpy(WEIGHTS).double()
    return (features / features.norm(dim=1, keepdim=True)).float()


@pytest.mark.parametrize(
    "made, stated",
    [
        ({}, {}),
        ({"shape": ("n", 3, "h", "w")}, SIZE),
        ({"shape": (1, 3, 64, 32)}, {}),  # one image at a time
        ({"shape": (4, 3, 64, 32)}, {}),  # four: the last batch is filled up
        ({"shape": ("n", 64, 32, 3), "layout": "NHWC"}, {}),
        ({"shape": ("n", "h", "w", "c"), "layout": "NHWC"}, {**SIZE, "layout": "NHWC"}),
        ({}, {"channels": "BGR"}),
        ({"outputs": ("logits", "features")}, {"output": "logits"}),
        ({"keep": True}, {}),
    ],
)
def test_onnx(tmp_path, made, stated):
    path = write_onnx(tmp_path / "m.onnx", **made)
    embedder, images = embed(path, facts=Facts(mean=MEAN, std=STD, **stated)), random_images(7)
    found = embedder(images)
    torch.testing.assert_close(found, expected(images, bgr=stated.get("channels") == "BGR"))
    assert embedder.dimension == 5
    torch.testing.assert_close(embedder(images, batch_size=3), found)
    assert torch.allclose(found.norm(dim=1), torch.ones(7))


def test_half_precision(tmp_path):
    path = write_onnx(tmp_path / "m.onnx", kind=TensorProto.FLOAT16)
    found = embed(path, facts=Facts(mean=MEAN, std=STD))(random_images(3))
    torch.testing.assert_close(found, expected(random_images(3)), rtol=0, atol=2e-3)


def test_what_is_not_stated_is_said(tmp_path, caplog):
    path = write_onnx(tmp_path / "m.onnx")
    with caplog.at_level(logging.WARNING, "dsareid"):
        found = embed(path)(random_images(2))
    assert f"{path}: mean and std not stated: ImageNet's are taken" in caplog.text
    torch.testing.assert_close(
        found, expected(random_images(2), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )


def test_facts_belong_to_the_identity(tmp_path):
    path = write_onnx(tmp_path / "m.onnx")
    facts = Facts(mean=MEAN, std=STD)
    model = embed(path, facts=facts).model
    assert (
        embed(path, facts=Facts(mean=MEAN, std=STD, channels="RGB", **SIZE)).model == model
    )  # the same, said
    others = [{"channels": "BGR"}, {"mean": (0.4, 0.5, 0.61)}, {"std": (1, 1, 1)}]
    models = {embed(path, facts=facts.model_copy(update=change)).model for change in others}
    models.add(embed(write_onnx(tmp_path / "o.onnx", keep=True), facts=facts).model)
    assert len(models) == 4 and model not in models


@pytest.mark.parametrize(
    "made, stated, message",
    [
        (
            {"shape": ("n", 3, "h", "w")},
            {},
            "how large its images are: state `input=HEIGHTxWIDTH`",
        ),
        ({"shape": ("n", 3, "h", "w")}, {"height": 64}, "does not say how large"),
        ({}, {"height": 128, "width": 64}, "takes images of height 64, not 128"),
        ({}, {"layout": "NHWC"}, "expected 3 channels in layout NHWC"),
        (
            {"shape": ("n", 64, 32, 3), "layout": "NHWC"},
            {"layout": "NCHW"},
            "expected 3 channels in layout NCHW",
        ),
        ({"kind": TensorProto.UINT8}, {}, "its input must be float32 or float16"),
        ({"outputs": ("a", "b")}, {}, "has 2 outputs: name the features', `output=a` or another"),
        ({}, {"output": "b"}, "has no such output; it has features"),
        ({}, {"weights": "w.pth"}, "`weights`: .* has its own"),
        ({}, {"mean": (float("inf"), 0, 0)}, "a feature that is zero or not finite"),
    ],
)
def test_onnx_that_does_not_do(tmp_path, made, stated, message):
    path = write_onnx(tmp_path / "m.onnx", **made)
    with pytest.raises(DSAError, match=message):
        embed(path, facts=Facts(**{"mean": MEAN, "std": STD, **stated}))


def test_weights_in_another_file(tmp_path):
    """Two networks with one graph would have one identity."""
    model = onnx.load(write_onnx(tmp_path / "m.onnx"))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(WEIGHTS, "weights"))
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0, location="w.bin")
    with pytest.raises(DSAError, match="its weights lie in another file"):
        embed(tmp_path / "split.onnx")


def test_our_own_know_their_input(tmp_path):
    run = make_run(tmp_path / "run")
    with pytest.raises(DSAError, match="knows its own input: leave out `height`, `mean`"):
        embed(run, facts=Facts(height=64, mean=MEAN))
    from dsareid.inference.export import export

    export(run, tmp_path / "m.onnx")
    with pytest.raises(DSAError, match="knows its own input: leave out `channels`"):
        embed(tmp_path / "m.onnx", facts=Facts(channels="RGB"))
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(DSAError, match="not readable as ONNX"):
        embed(tmp_path / "broken.onnx", facts=Facts(channels="RGB"))
    with pytest.raises(DSAError, match="no such file"):
        embed(tmp_path / "typo.onnx", facts=Facts(channels="RGB"))
    assert embed(run, remembered=Facts(channels="BGR")).model == embed(run).model  # said of another network


# ---- by name ----


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of weights of small networks, as training elsewhere leaves them: for 7 people."""
    timm, models = pytest.importorskip("timm"), pytest.importorskip("torchvision.models")
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    networks = {
        "timm:mobilenetv2_050": timm.create_model("mobilenetv2_050", num_classes=7),
        "torchvision:shufflenet_v2_x0_5": models.shufflenet_v2_x0_5(num_classes=7),
    }
    for name, network in networks.items():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_mean.normal_(0, 0.1)
        torch.save({"state_dict": network.state_dict()}, folder / f"{name.partition(':')[2]}.pth")
    return folder, {name: network.eval() for name, network in networks.items()}


@pytest.mark.parametrize("name", ["timm:mobilenetv2_050", "torchvision:shufflenet_v2_x0_5"])
def test_by_name(weights, name):
    folder, networks = weights
    file = str(folder / f"{name.partition(':')[2]}.pth")
    embedder = embed(name, facts=Facts(**SIZE, weights=file, mean=MEAN, std=STD))
    images, network = random_images(3), networks[name]
    pixels = ((images / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
    seen = []
    last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
    hook = last.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    with torch.inference_mode():
        network(pixels)
    hook.remove()
    found = embedder(images)
    torch.testing.assert_close(found, torch.nn.functional.normalize(seen[0]), rtol=1e-4, atol=1e-5)
    again = embed(name, facts=Facts(**SIZE, weights=file, mean=MEAN, std=STD))
    assert again.model == embedder.model


def test_timm_knows_its_mean(weights):
    folder, _ = weights
    facts = Facts(**SIZE, weights=str(folder / "mobilenetv2_050.pth"))
    assert embed("timm:mobilenetv2_050", facts=facts).settings.facts.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    "name, stated, message",
    [
        ("timm:mobilenetv2_05", {}, "timm has no model 'mobilenetv2_05'; similar: mobilenetv2_0"),
        ("torchvision:resnet", {}, "torchvision has no model 'resnet'; similar: resnet"),
        ("torchvision:shufflenet_v2_x0_5", {"weights": "mobilenetv2_050.pth"}, "not the weights of this"),
        ("timm:mobilenetv2_050", {"weights": "missing.pth"}, "no such file"),
        ("timm:mobilenetv2_050", {"output": "x"}, "has one output"),
        ("torchvision:shufflenet_v2_x0_5", {"height": None}, "does not say how large its images are"),
    ],
)
def test_names_that_do_not_do(weights, name, stated, message):
    folder, _ = weights
    facts = {**SIZE, "weights": f"{name.partition(':')[2]}.pth", **stated}
    with pytest.raises(DSAError, match=message):
        embed(name, facts=Facts(**{**facts, "weights": str(folder / facts["weights"])}))


def test_another_size_than_the_network_takes(tmp_path):
    """Its graph has free axes, but only one size does."""
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["features"]),
    ]
    weights = np.random.default_rng(1).normal(size=(3 * 64 * 32, 5)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["m", 5])],
        [
            helper.make_tensor("weights", TensorProto.FLOAT, weights.shape, weights.flatten()),
            helper.make_tensor("shape", TensorProto.INT64, (2,), [-1, 3 * 64 * 32]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    assert embed(tmp_path / "m.onnx", facts=Facts(**SIZE))(random_images(3)).shape == (3, 5)
    with pytest.raises(DSAError, match="does not take NCHW images of 50x32: .*Reshape"):
        embed(tmp_path / "m.onnx", facts=Facts(height=50, width=32))
    model.graph.input[0].type.tensor_type.shape.dim.pop()
    onnx.save(model, tmp_path / "three.onnx")
    with pytest.raises(DSAError, match="expected one input of images, 4 axes, not image"):
        embed(tmp_path / "three.onnx")
    with pytest.raises(DSAError, match=r"expected features \(B, D\) of 2 images, not \[1, 5\]"):
        embed(tmp_path / "m.onnx", facts=Facts(height=32, width=32))


# ---- the commands ----


def test_extract_rank_and_search(tmp_path, capsys):
    path, data = write_onnx(tmp_path / "m.onnx"), make_data(tmp_path / "market")
    facts = "--mean 0.4 0.5 0.6 --std 0.2 0.25 0.3 --input 64x32".split()
    for split in ("query", "bounding_box_test"):
        assert main(["extract", str(path), str(data / split), str(tmp_path / split), *facts]) == 0
    features = tmp_path / "bounding_box_test"
    header = json.loads((features / HEADER).read_text())
    assert header["facts"]["mean"] == [0.4, 0.5, 0.6] and "output of m.onnx" in header["features"]
    opened = open_features(features)
    pixels = np.stack([np.asarray(Image.open(data / "bounding_box_test" / file)) for file in opened.files])
    assert np.allclose(opened.features, expected(torch.from_numpy(pixels)), atol=1e-5)
    assert main(["rank", str(tmp_path / "query"), str(features)]) == 0
    # The facts are saved beside the features, so they need not be stated again.
    assert main(["search", str(path), str(data / "query"), str(features)]) == 0
    first = capsys.readouterr().out
    assert main(["search", str(path), str(data / "query"), str(data / "bounding_box_test"), *facts]) == 0
    assert first.split("mAP")[-1].count("0005") and capsys.readouterr().out.count("rank")
    assert main(["search", str(path), str(data / "query"), str(features), "--channels", "BGR"]) == 1
    assert "features of model" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--input", "64"], "--input must be HEIGHTxWIDTH, such as 256x128, not '64'"),
        (["--input", "8x8"], "--height: "),
        (["--std", "0", "1", "1"], "--std"),
    ],
)
def test_wrong_options(tmp_path, capsys, options, message):
    path, data = write_onnx(tmp_path / "m.onnx"), make_data(tmp_path / "market")
    assert main(["extract", str(path), str(data), str(tmp_path / "out"), *options]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
