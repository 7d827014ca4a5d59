"""Networks of TensorFlow.js in torch: the same numbers, and whatever does not fit is named."""

import json

import numpy as np
import pytest
import torch
from tfjs_files import SHARD, GraphWriter, write_bodypix

from dsareid.densepose.estimators.tfjs import GraphModel, read_graph, read_weights
from dsareid.ground.errors import DSAError


def load(path, outputs):
    graph = read_graph(path)
    nodes = {node.name: node for node in graph.modelTopology.node}
    return GraphModel(nodes, read_weights(graph, path.parent), outputs)


def same_convolution(x, weight, bias, stride, dilation, depthwise):
    """TensorFlow's, in NumPy: x [H, W, C], weight [k, k, C, D] or [k, k, C, 1]."""
    kernel = weight.shape[0]
    reach = (kernel - 1) * dilation + 1
    sides = [-(-length // stride) for length in x.shape[:2]]
    pads = [max((n - 1) * stride + reach - length, 0) for n, length in zip(sides, x.shape[:2])]
    x = np.pad(x, [(pad // 2, pad - pad // 2) for pad in pads] + [(0, 0)])
    out = np.zeros((*sides, weight.shape[2] if depthwise else weight.shape[3]), np.float64)
    for row in range(sides[0]):
        for column in range(sides[1]):
            window = x[row * stride :, column * stride :][:reach:dilation, :reach:dilation]
            if depthwise:
                out[row, column] = (window * weight[..., 0]).sum((0, 1))
            else:
                out[row, column] = np.einsum("hwc,hwcd->d", window, weight)
    return out + bias


@pytest.mark.parametrize("stored", ["float32", "uint16", "uint8"])
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 2, 1), (3, 1, 2), (1, 1, 1), (5, 2, 1)])
@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("size", [(9, 7), (8, 10)])
def test_convolutions_are_those_of_tensorflow(tmp_path, stored, kernel, stride, dilation, depthwise, size):
    graph = GraphWriter(stored=stored)
    outputs = 3 if depthwise else 5
    graph.convolution("y", "sub_2", 3, outputs, kernel, stride, dilation, depthwise)
    weights = graph.write(tmp_path / "model.json")
    image = np.random.default_rng(1).normal(size=(*size, 3)).astype(np.float32)
    x = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.inference_mode():
        found = load(tmp_path / "model.json", ["y"])(x)["y"][0].permute(1, 2, 0).numpy()
    expected = same_convolution(image, weights["y/weights"], weights["y/bias"], stride, dilation, depthwise)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_only_what_the_outputs_need(tmp_path):
    write_bodypix(tmp_path)
    path = tmp_path / "model-stride16.json"
    heads = ("float_segments", "float_part_heatmaps", "float_part_offsets")
    network = load(path, heads)
    assert "float_heatmaps" not in {step.target for step in network.steps}
    with torch.inference_mode():
        found = network(torch.randn(2, 3, 33, 49))
    assert [tuple(found[name].shape) for name in heads] == [(2, 1, 3, 4), (2, 24, 3, 4), (2, 48, 3, 4)]
    assert found["float_part_offsets"].min() >= 0 and found["float_part_offsets"].max() <= 1
    assert set(found) == set(heads)


def test_a_value_with_two_readers_is_not_overwritten(tmp_path):
    graph = GraphWriter()
    x = graph.convolution("a", "sub_2", 3, 4)
    graph.operation("b", "Relu6", x)
    graph.convolution("c", x, 4, 2)
    graph.write(tmp_path / "model.json")
    image = torch.randn(1, 3, 8, 8)
    with torch.inference_mode():
        both = load(tmp_path / "model.json", ["b", "c"])(image)
        alone = load(tmp_path / "model.json", ["c"])(image)
    assert torch.equal(both["c"], alone["c"]) and both["b"].min() == 0


def changed(tmp_path, change):
    """A network whose model.json was changed."""
    write_bodypix(tmp_path)
    path = tmp_path / "model-stride16.json"
    content = json.loads(path.read_text())
    change(content, {node["name"]: node for node in content["modelTopology"]["node"]})
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "change, words",
    [
        (
            lambda content, nodes: nodes["b/relu"].update(op="Softplus"),
            "its operator Softplus .of b/relu. is not",
        ),
        (
            lambda content, nodes: nodes["b"]["input"].reverse(),
            "depends on itself|is missing|does not follow",
        ),
        (lambda content, nodes: nodes["b/relu1"].update(input=["d/relu"]), "depends on itself"),
        (lambda content, nodes: nodes["c"].update(name="other"), "it has no node c"),
        (
            lambda content, nodes: nodes["a/conv"]["attr"].update(padding={"s": "VkFMSUQ="}),
            "Conv2D a/conv is of a",
        ),
        (
            lambda content, nodes: content.update(format="layers-model"),
            "not a graph model of TensorFlow.js: format",
        ),
        (lambda content, nodes: content["weightsManifest"][0].update(paths=["../x"]), "not a graph model"),
        (lambda content, nodes: content["weightsManifest"][0]["weights"].pop(), "bytes, but by model.json"),
    ],
)
def test_graphs_that_do_not_fit(tmp_path, change, words):
    with pytest.raises(DSAError, match=words):
        load(changed(tmp_path, change), ["float_part_offsets"])


def test_shards_that_are_cut_short_or_missing(tmp_path):
    write_bodypix(tmp_path)
    shard = tmp_path / SHARD
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(DSAError, match=r"group1-shard1of1.bin: [\d,]+ bytes, but by model.json"):
        load(tmp_path / "model-stride16.json", ["float_segments"])
    shard.unlink()
    with pytest.raises(DSAError, match="group1-shard1of1.bin: cannot be read: No such file"):
        load(tmp_path / "model-stride16.json", ["float_segments"])


def test_weights_that_do_not_fit_each_other(tmp_path):
    def wider(content, nodes):
        weights = content["weightsManifest"][0]["weights"]
        (entry,) = [entry for entry in weights if entry["name"] == "b/weights"]
        entry["shape"] = [1, 1, 4, 16]

    with pytest.raises(DSAError, match="its weights do not fit each other"):
        load(changed(tmp_path, wider), ["float_segments"])
