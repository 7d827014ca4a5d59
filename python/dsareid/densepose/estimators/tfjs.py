"""Reading a network of TensorFlow.js (model.json and its shards) into a torch module.

The graphs of BodyPix 2.0 need few operators; any other is refused by name. Values are NHWC there and NCHW
here. Nodes that the requested outputs do not need are left out, a BiasAdd becomes the bias of its
convolution, and each value is freed after its last use.
"""

import base64
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from dsareid.ground.errors import DSAError, first_line
from dsareid.ground.files import read_json

_SAME = base64.b64encode(b"SAME").decode()
_Digits = Annotated[str, Field(pattern=r"^[1-9]\d?$")]
_FOUR_NUMBERS = TypeAdapter(
    dict[Literal["list"], dict[Literal["i"], Annotated[list[_Digits], Field(min_length=4, max_length=4)]]]
)
_Side = Annotated[int, Field(ge=0, le=1 << 20)]


class Quantization(BaseModel):
    """How the numbers of a weight are stored: value = stored * scale + min."""

    min: float
    scale: float
    dtype: Literal["uint8", "uint16"]


class WeightEntry(BaseModel):
    """A weight, in the order of the shards."""

    name: str
    shape: list[_Side]
    dtype: Literal["float32", "int32"]
    quantization: Quantization | None = None

    @property
    def stored(self) -> np.dtype:
        """The type of the stored numbers."""
        return np.dtype(self.quantization.dtype if self.quantization else self.dtype).newbyteorder("<")


class WeightGroup(BaseModel):
    """Weights that follow each other in some shards."""

    paths: list[Annotated[str, Field(pattern=r"^[\w.-]+$")]]
    weights: list[WeightEntry]


class GraphNode(BaseModel):
    """An operation of the graph."""

    name: str
    op: str
    input: list[str] = []
    attr: dict[str, Any] = {}

    def numbers(self, attribute: str) -> list[int]:
        """A list of four small whole numbers, such as strides; 1, 1, 1, 1 if it is not there.

        Raises:
            DSAError: it is something else.
        """
        if attribute not in self.attr:
            return [1, 1, 1, 1]
        try:
            return [int(text) for text in _FOUR_NUMBERS.validate_python(self.attr[attribute])["list"]["i"]]
        except ValidationError as error:
            raise DSAError(f"its {attribute} of {self.name} are not four numbers") from error


class Topology(BaseModel):
    """The operations, in any order."""

    node: list[GraphNode]


class GraphFile(BaseModel):
    """What model.json holds of a graph model."""

    format: Literal["graph-model"] = "graph-model"
    modelTopology: Topology
    weightsManifest: list[WeightGroup]


class SameConvolution(nn.Module):
    """A convolution with TensorFlow's padding SAME, which puts the odd pixel right and below."""

    def __init__(self, weight: Tensor, stride: int, dilation: int, groups: int):
        super().__init__()
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last), requires_grad=False)
        self.bias: nn.Parameter | None = None
        self.stride, self.dilation, self.groups = stride, dilation, groups

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, ceil(H / stride), ceil(W / stride))."""
        pads = []
        for size, kernel in zip(reversed(x.shape[2:]), reversed(self.weight.shape[2:])):
            reach = (kernel - 1) * self.dilation + 1
            pad = max((math.ceil(size / self.stride) - 1) * self.stride + reach - size, 0)
            pads += [pad // 2, pad - pad // 2]
        if any(pads):
            x = F.pad(x, pads)
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Clamp(nn.Module):
    """Values cut off at bounds."""

    def __init__(self, least: float | None = None, most: float | None = None):
        super().__init__()
        self.least, self.most = least, most
        self.in_place = False

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return torch.clamp(x, self.least, self.most, out=x if self.in_place else None)


class Step(NamedTuple):
    """A module that makes one value of another."""

    module: nn.Module
    source: str
    target: str


class GraphModel(nn.Module):
    """A graph of TensorFlow.js as a module, for the requested outputs.

    Args:
        nodes: by name.
        weights: by name, float32, in TensorFlow's layouts.
        outputs: names of nodes.

    Raises:
        DSAError: an output that is not there, an operator that is not supported, weights that do not fit.
    """

    def __init__(self, nodes: Mapping[str, GraphNode], weights: Mapping[str, Tensor], outputs: Sequence[str]):
        super().__init__()
        self.outputs, self.input = tuple(outputs), ""
        self.steps: list[Step] = []
        for node in _in_order(nodes, outputs):
            self._add(node, weights)
        self.layers = nn.ModuleList(step.module for step in self.steps)
        readers = Counter(step.source for step in self.steps)
        for step in self.steps:
            if isinstance(step.module, Clamp):
                step.module.in_place = readers[step.source] == 1 and step.source not in (*outputs, self.input)
        last = {step.source: number for number, step in enumerate(self.steps)}
        self._dropped = [step.source if last[step.source] == k else "" for k, step in enumerate(self.steps)]
        try:
            with torch.inference_mode():
                self(torch.zeros(1, 3, 33, 33))
        except RuntimeError as error:
            raise DSAError(f"its weights do not fit each other: {first_line(error)}") from error

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> each output, (B, C, h, w). A value is freed after its last use."""
        values = {self.input: x}
        for step, dropped in zip(self.steps, self._dropped):
            values[step.target] = step.module(values[step.source])
            if dropped and dropped not in self.outputs:
                del values[dropped]
        return {name: values[name] for name in self.outputs}

    def _add(self, node: GraphNode, weights: Mapping[str, Tensor]) -> None:
        if node.op == "Placeholder":
            self.input = node.name
            return
        if not node.input:
            raise DSAError(f"its {node.op} {node.name} has no input")
        source, name = map(_bare, (*node.input, "")[:2])
        if node.op == "BiasAdd":
            self._add_bias(source, node.name, _weight(weights, name, 1))
        elif node.op in ("Conv2D", "DepthwiseConv2dNative"):
            module = _convolution(node, _weight(weights, name, 4))
            self.steps.append(Step(module, source, node.name))
        elif node.op in _CLAMPS:
            bound = float(_weight(weights, name, 0)) if name else 0.0
            self.steps.append(Step(_CLAMPS[node.op](bound), source, node.name))
        else:
            raise DSAError(f"its operator {node.op} (of {node.name}) is not supported")

    def _add_bias(self, source: str, target: str, bias: Tensor) -> None:
        """Make a BiasAdd the bias of the convolution before it."""
        place = next((k for k, step in enumerate(self.steps) if step.target == source), None)
        module = None if place is None else self.steps[place].module
        if place is None or not isinstance(module, SameConvolution) or module.bias is not None:
            raise DSAError(f"its BiasAdd {target} does not follow a convolution")
        module.bias = nn.Parameter(bias, requires_grad=False)
        self.steps[place] = self.steps[place]._replace(target=target)


_CLAMPS: dict[str, Callable[[float], Clamp]] = {
    "Relu6": lambda _: Clamp(0.0, 6.0),
    "Minimum": lambda bound: Clamp(most=bound),
    "Maximum": lambda bound: Clamp(least=bound),
}


def read_graph(path: Path) -> GraphFile:
    """Read model.json.

    Raises:
        DSAError: it cannot be read, is no JSON, or no graph model of TensorFlow.js.
        FileNotFoundError, NotADirectoryError: there is none.
    """
    return read_json(path, GraphFile, "a graph model of TensorFlow.js")


def read_weights(graph: GraphFile, folder: Path) -> dict[str, Tensor]:
    """The weights of a graph, float32, by name.

    Raises:
        DSAError: a shard that is missing, cut short or longer than the manifest says.
    """
    weights: dict[str, Tensor] = {}
    for group in graph.weightsManifest:
        data, place = b"".join(_read_shard(folder / path) for path in group.paths), 0
        expected = sum(math.prod(entry.shape) * entry.stored.itemsize for entry in group.weights)
        if len(data) != expected:
            raise DSAError(
                f"{folder}: {', '.join(group.paths)}: {len(data):,} bytes, but by model.json {expected:,}"
            )
        for entry in group.weights:
            values = np.frombuffer(data, entry.stored, math.prod(entry.shape), place).astype(np.float32)
            place += len(values) * entry.stored.itemsize
            if entry.quantization:
                values = values * np.float32(entry.quantization.scale) + np.float32(entry.quantization.min)
            weights[entry.name] = torch.from_numpy(values.reshape(entry.shape))
    return weights


def _read_shard(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error


def _in_order(nodes: Mapping[str, GraphNode], outputs: Sequence[str]) -> list[GraphNode]:
    """The nodes that the outputs need, without constants, each after its inputs."""
    order: dict[str, GraphNode] = {}
    pending = list(reversed(outputs))
    entered: set[str] = set()
    while pending:
        name = pending[-1]
        if name not in nodes:
            raise DSAError(f"it has no node {name}")
        left = [x for x in map(_bare, nodes[name].input) if x not in order and not _is_control(x)]
        left = [x for x in left if x not in nodes or nodes[x].op != "Const"]
        if name not in order and left and name in entered:
            raise DSAError(f"its node {name} depends on itself")
        if left:
            entered.add(name)
            pending += left
        else:
            order[pending.pop()] = nodes[name]
    return list(order.values())


def _bare(name: str) -> str:
    return name.partition(":")[0]


def _is_control(name: str) -> bool:
    return name.startswith("^")


def _weight(weights: Mapping[str, Tensor], name: str, dimensions: int) -> Tensor:
    if name not in weights or weights[name].dim() != dimensions:
        raise DSAError(f"its weight {name} is missing, or not of {dimensions} dimensions")
    return weights[name]


def _convolution(node: GraphNode, weight: Tensor) -> SameConvolution:
    strides, dilations = node.numbers("strides"), node.numbers("dilations")
    padding = node.attr.get("padding", {})
    dilation = max(dilations)
    # The graph of stride 8 has them in front, [2, 2, 1, 1], and means both directions all the same.
    known = ([1, dilation, dilation, 1], [dilation, dilation, 1, 1])
    if padding != {"s": _SAME} or len({*strides[1:3]}) != 1 or dilations not in known:
        raise DSAError(f"its {node.op} {node.name} is of a kind that is not supported")
    if node.op == "Conv2D":
        return SameConvolution(weight.permute(3, 2, 0, 1), strides[1], dilation, 1)
    height, width, channels, multiplier = weight.shape
    weight = weight.permute(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return SameConvolution(weight, strides[1], dilation, channels)
