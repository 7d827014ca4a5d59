"""Small networks in the files of TensorFlow.js, with the operators and heads of BodyPix."""

import json

import numpy as np

SHARD = "group1-shard1of1.bin"


class GraphWriter:
    """Collects nodes and weights, and writes model.json with one shard."""

    def __init__(self, seed=0, stored="uint16"):
        self.draw, self.stored = np.random.default_rng(seed), stored
        self.nodes = [{"name": "sub_2", "op": "Placeholder", "attr": {}}]
        self.weights = []  # name, float32 values

    def constant(self, name, shape, scale=1.0):
        self.nodes.insert(0, {"name": name, "op": "Const", "attr": {}})
        self.weights.append((name, (scale * self.draw.normal(size=shape)).astype(np.float32)))
        return name

    def convolution(self, name, source, inputs, outputs, kernel=1, stride=1, dilation=1, depthwise=False):
        """A convolution with its bias; returns the name of its value."""
        shape = (kernel, kernel, inputs, 1 if depthwise else outputs)
        weight = self.constant(
            f"{name}/weights", shape, (2 / (kernel * kernel * (1 if depthwise else inputs))) ** 0.5
        )
        attributes = {
            "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
            "dilations": {"list": {"i": ["1", str(dilation), str(dilation), "1"]}},
            "padding": {"s": "U0FNRQ=="},
        }
        op = "DepthwiseConv2dNative" if depthwise else "Conv2D"
        self.nodes.append({"name": f"{name}/conv", "op": op, "input": [source, weight], "attr": attributes})
        bias = self.constant(f"{name}/bias", (outputs,), 0.5)
        self.nodes.append({"name": name, "op": "BiasAdd", "input": [f"{name}/conv", bias], "attr": {}})
        return name

    def operation(self, name, op, *inputs):
        self.nodes.append({"name": name, "op": op, "input": list(inputs), "attr": {}})
        return name

    def write(self, path):
        """model.json at `path`, its shard beside it; returns the weights as a reader must see them."""
        entries, data, read = [], b"", {}
        for name, values in self.weights:
            entry = {"name": name, "shape": list(values.shape), "dtype": "float32"}
            stored = values
            if self.stored != "float32":
                low, scale = float(values.min()), float(np.ptp(values) or 1) / np.iinfo(self.stored).max
                stored = np.round((values - low) / scale).astype(self.stored)
                entry["quantization"] = {"min": low, "scale": scale, "dtype": self.stored}
                read[name] = stored.astype(np.float32) * np.float32(scale) + np.float32(low)
            else:
                read[name] = values
            entries.append(entry)
            data += stored.tobytes()
        (path.parent / SHARD).write_bytes(data)
        content = {
            "format": "graph-model",
            "modelTopology": {"node": self.nodes, "library": {}, "versions": {}},
            "weightsManifest": [{"paths": [SHARD], "weights": entries}],
        }
        path.write_text(json.dumps(content))
        return read


def write_bodypix(folder, seed=0, stored="uint16"):
    """A network of stride 16 with BodyPix's heads, of a few channels."""
    graph = GraphWriter(seed, stored)
    x = graph.operation("a/relu", "Relu6", graph.convolution("a", "sub_2", 3, 8, kernel=3, stride=2))
    for name in ("b", "c", "d"):
        x = graph.convolution(f"{name}/depthwise", x, 8, 8, kernel=3, stride=2, depthwise=True)
        x = graph.operation(f"{name}/relu1", "Relu6", x)
        x = graph.operation(f"{name}/relu", "Relu6", graph.convolution(name, x, 8, 8))
    graph.convolution("float_segments", x, 8, 1)
    graph.convolution("float_part_heatmaps", x, 8, 24)
    graph.convolution("float_heatmaps", x, 8, 17)
    graph.convolution("float_long_offsets", x, 8, 34)
    offsets = graph.convolution("add_1", x, 8, 48)
    for name, value in (("one", 1.0), ("zero", 0.0)):
        graph.constant(name, ())
        graph.weights[-1] = (name, np.float32(value))
    graph.operation("clip", "Minimum", offsets, "one")
    graph.operation("float_part_offsets", "Maximum", "clip", "zero")
    folder.mkdir(parents=True, exist_ok=True)
    return graph.write(folder / "model-stride16.json")
