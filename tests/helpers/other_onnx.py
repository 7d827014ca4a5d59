"""An ONNX file as somebody else might write one."""

import numpy as np
import onnx
from onnx import TensorProto, helper

WEIGHTS = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def write_onnx(
    path, shape=("n", 3, 64, 32), layout="NCHW", kind=TensorProto.FLOAT, outputs=("features",), keep=False
):
    """A network that takes the mean over height and width, and multiplies by WEIGHTS."""
    axes = [layout.index("H"), layout.index("W")]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], [outputs[0] if not keep else "flat"]),
    ]
    if keep:
        nodes.append(helper.make_node("Unsqueeze", ["flat", "axes"], [outputs[0]]))
    nodes += [helper.make_node("Neg", [outputs[0]], [name]) for name in outputs[1:]]
    constants = [helper.make_tensor("weights", TensorProto.FLOAT, (3, 5), WEIGHTS.flatten())]
    constants += [helper.make_tensor("axes", TensorProto.INT64, (2,), [2, 3])] * keep
    out = [shape[0], 5, 1, 1] if keep else [shape[0], 5]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("image", kind, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, out) for name in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path
