"""Files like those of detectron2's DensePose zoo, with random weights: names and shapes are the zoo's.

studies/rcnn compares them with detectron2's own models.
"""

import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

VARIANTS = {  # of projects/DensePose/configs: densepose_rcnn_<name>
    f"R_{depth}_FPN{deeplab}{confidence}": {
        "depth": depth,
        "deeplab": bool(deeplab),
        "uv": {"1": 1, "2": 3}.get(confidence[3:4], 0),
        "weighted": "M" in confidence,
        "legacy": confidence.endswith("legacy"),
    }
    for depth in (50, 101)
    for deeplab in ("", "_DL")
    for confidence in ("_s1x", "_WC1_s1x", "_WC1M_s1x", "_WC2_s1x", "_WC2M_s1x", "_s1x_legacy")
    if not (deeplab and confidence == "_s1x_legacy")
}
MOBILE = {  # of DensePoseFnL's configs: <name>.yaml
    "mobile_parsing_rcnn_b_s3x": {"mobile": True},
    "mobile_parsing_rcnn_b_wc2m_s3x": {"mobile": True, "uv": 3, "weighted": True},
}

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def zoo_shapes(depth=50, deeplab=False, uv=0, weighted=False, legacy=False, mobile=False) -> Shapes:
    """Name and shape of every weight of a model. `uv`: how many heads say how sure U and V are."""
    if mobile:
        yield from _mobile(uv, weighted)
        return
    yield from _trunk(3, 4, 23 if depth == 101 else 6, 3)
    for level, width in zip(range(2, 6), (256, 512, 1024, 2048)):
        yield from _layer(f"backbone.fpn_lateral{level}", 256, width, 1)
        yield from _layer(f"backbone.fpn_output{level}", 256, 256, 3)
    rpn = "proposal_generator.rpn_head"
    yield from _layer(f"{rpn}.conv", 256, 256, 3)
    yield from _layer(f"{rpn}.objectness_logits", 3, 256, 1)
    yield from _layer(f"{rpn}.anchor_deltas", 12, 256, 1)
    for name, out, width in (
        ("box_head.fc1", 1024, 256 * 7 * 7),
        ("box_head.fc2", 1024, 1024),
        ("box_predictor.cls_score", 2, 1024),
        ("box_predictor.bbox_pred", 4, 1024),
    ):
        yield f"roi_heads.{name}.weight", (out, width)
        yield f"roi_heads.{name}.bias", (out,)
    if not legacy:
        for level, places in (("p2", (0,)), ("p3", (0,)), ("p4", (0, 2)), ("p5", (0, 2, 4))):
            for place in places:
                yield from _layer(f"roi_heads.decoder.{level}.{place}", 256, 256, 3)
        yield from _layer("roi_heads.decoder.predictor", 256, 256, 1)
    yield from _head("roi_heads.densepose_head", deeplab)
    yield from _predictor(512, 15 if legacy else 2, uv, weighted)


def _predictor(width: int, coarse: int, uv: int, weighted: bool) -> Shapes:
    heads = {"ann_index": coarse, "index_uv": 25, "u": 25, "v": 25}
    heads |= dict(list({"sigma_2": 25, "kappa_u": 25, "kappa_v": 25}.items())[:uv])
    heads |= {"fine_segm_confidence": 1, "coarse_segm_confidence": 1} if weighted else {}
    for name, count in heads.items():
        yield f"roi_heads.densepose_predictor.{name}_lowres.weight", (width, count, 4, 4)
        yield f"roi_heads.densepose_predictor.{name}_lowres.bias", (count,)


def _mobile(uv: int, weighted: bool) -> Shapes:
    """DensePoseFnL's: spnasnet_100 by timm's names, a BiFPN, heads of 64 channels."""
    trunk = "backbone.bottom_up"
    yield f"{trunk}.conv_stem.weight", (32, 3, 3, 3)
    yield from _norm(f"{trunk}.bn1", 32)
    yield from _block(f"{trunk}.blocks.0.0", (("conv_dw", 32, 1, 3), ("conv_pw", 16, 32, 1)))
    before = 16
    for stage, (out, kernels, widths) in enumerate(
        (
            (24, "333", (48, 72, 72)),
            (40, "5333", (144, 120, 120, 120)),
            (80, "5333", (240, 240, 240, 240)),
            (96, "5555", (480, 288, 288, 288)),
            (192, "5555", (576, 1152, 1152, 1152)),
            (320, "3", (1152,)),
        ),
        1,
    ):
        for k, (kernel, width) in enumerate(zip(map(int, kernels), widths)):
            convs = ("conv_pw", width, before, 1), ("conv_dw", width, 1, kernel), ("conv_pwl", out, width, 1)
            yield from _block(f"{trunk}.blocks.{stage}.{k}", convs)
            before = out
    for level, width in ((5, 1152), (4, 288), (3, 120), (2, 72)):
        yield from _layer(f"backbone.l{level}", 64, width, 1)
    for name in ("p4_tr", "p3_tr", "down_p2", "down_p3", "down_p4", "p5_out", "p4_out", "p3_out", "p2_out"):
        yield f"backbone.{name}.0.0.weight", (64, 1, 3, 3)
        yield f"backbone.{name}.0.1.weight", (64, 64, 1, 1)
        yield from _norm(f"backbone.{name}.1", 64)
        yield f"backbone.{name}.1.num_batches_tracked", ()
    for name in ("p4_tr", "p3_tr", "p5_out", "p4_out", "p3_out", "p2_out"):
        yield f"backbone.fuse_{name}.weight", (3 if name in ("p4_out", "p3_out") else 2,)
        yield f"backbone.fuse_{name}.eps", ()
    yield from _layer("proposal_generator.rpn_head.conv", 64, 64, 3)
    yield from _layer("proposal_generator.rpn_head.objectness_logits", 3, 64, 1)
    yield from _layer("proposal_generator.rpn_head.anchor_deltas", 12, 64, 1)
    for k in (1, 2):
        yield from _layer(f"roi_heads.box_head.conv{k}", 64, 64, 3)
    for name, out in (("cls_score", 2), ("bbox_pred", 4)):
        yield f"roi_heads.box_predictor.{name}.weight", (out, 64 * 7 * 7)
        yield f"roi_heads.box_predictor.{name}.bias", (out,)
    head = "roi_heads.densepose_head"
    for k in range(5):
        place = 1 if k == 4 else 0
        yield from _layer(f"{head}.ASPP.convs.{k}.{place}", 64, 64, 3 if k in (1, 2, 3) else 1)
    yield from _layer(f"{head}.ASPP.project.0", 64, 5 * 64, 1)
    for k in range(1, 5):
        yield from _layer(f"{head}.body_conv_fcn{k}", 64, 64, 3)
    yield from _predictor(64, 2 if weighted else 15, uv, weighted)


def _block(name: str, convs: tuple[tuple[str, int, int, int], ...]) -> Shapes:
    for number, (conv, out, width, side) in enumerate(convs, 1):
        yield from _layer(f"{name}.{conv}", out, width, side, bias=False)
        yield from _norm(f"{name}.bn{number}", out)


def _norm(name: str, width: int) -> Shapes:
    for number in ("weight", "bias", "running_mean", "running_var"):
        yield f"{name}.{number}", (width,)


def _layer(name: str, out: int, width: int, side: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (out, width, side, side)
    if bias:
        yield f"{name}.bias", (out,)


def _normalised(name: str, out: int, width: int, side: int) -> Shapes:
    yield from _layer(name, out, width, side, bias=False)
    yield from _norm(f"{name}.norm", out)


def _trunk(*counts: int) -> Shapes:
    trunk = "backbone.bottom_up"
    yield from _normalised(f"{trunk}.stem.conv1", 64, 3, 7)
    before = 64
    for stage, count in enumerate(counts, 2):
        inner = 64 << stage - 2
        for k in range(count):
            block = f"{trunk}.res{stage}.{k}"
            if k == 0:
                yield from _normalised(f"{block}.shortcut", 4 * inner, before, 1)
            yield from _normalised(f"{block}.conv1", inner, before, 1)
            yield from _normalised(f"{block}.conv2", inner, inner, 3)
            yield from _normalised(f"{block}.conv3", 4 * inner, inner, 1)
            before = 4 * inner


def _head(head: str, deeplab: bool) -> Shapes:
    for k in range(5 if deeplab else 0):
        place = 1 if k == 4 else 0
        yield from _layer(f"{head}.ASPP.convs.{k}.{place}", 256, 256, 3 if k in (1, 2, 3) else 1, bias=False)
        for number in ("weight", "bias"):
            yield f"{head}.ASPP.convs.{k}.{place + 1}.{number}", (256,)
    if deeplab:
        yield from _layer(f"{head}.ASPP.project.0", 256, 5 * 256, 1, bias=False)
    for k in range(1, 9):
        yield from _layer(f"{head}.body_conv_fcn{k}", 512, 256 if k == 1 else 512, 3, bias=not deeplab)
        for number in ("weight", "bias") if deeplab else ():
            yield f"{head}.body_conv_fcn{k}.norm.{number}", (512,)


def zoo_weights(seed: int = 0, **variant) -> dict[str, np.ndarray]:
    """Random float32 weights, such that nearly all parts occur and about half of a box is a person."""
    random = np.random.default_rng(seed)
    return {name: _drawn(random, name, shape).astype(np.float32) for name, shape in zoo_shapes(**variant)}


def _drawn(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 0:
        return np.array(1e-4 if name.endswith("eps") else 7)
    if "fuse_" in name:
        return random.uniform(0.2, 1.2, shape)
    if name.endswith("running_var") or (_is_norm(name, shape) and name.endswith("weight")):
        # What blocks add to each other must not double at each.
        less = 0.1 if name.endswith(("conv3.norm.weight", "bn3.weight")) else 1
        return less * random.uniform(0.8, 1.2, shape)
    if len(shape) == 1:
        middle = 0.5 if name.endswith(("u_lowres.bias", "v_lowres.bias")) else 0
        return random.normal(middle, 0 if "_lowres" in name else 0.05, shape)
    if "_lowres" not in name:
        # Pictures are bytes; levels are summed, without ReLU.
        if "anchor_deltas" in name or "bbox_pred" in name:
            return random.normal(0, 0.01, shape)
        scale = 1 / 60 if ".stem." in name else 0.6 if "fpn" in name or "decoder" in name else 1
        if name.startswith("backbone.l"):  # the mobile blocks give little
            scale = 10
        return random.normal(0, scale * (2 / np.prod(shape[1:])) ** 0.5, shape)
    # Four of the 16 places meet in a pixel. What all features have in common must not choose a part.
    drawn = random.normal(0, (2 / (4 * shape[0])) ** 0.5, shape)
    return (drawn - drawn.mean(0)) * (0.3 if "u_lowres" in name or "v_lowres" in name else 3)


def _is_norm(name: str, shape: tuple[int, ...]) -> bool:
    known = re.search(r"\.(norm|bn[123]|(\w+_tr|\w+_out|down_\w+)\.1)\.", name)
    return bool(known) or (".ASPP." in name and len(shape) == 1)


def write_zoo_file(path: Path, seed: int = 0, **variant) -> Path:
    """A .pkl as the zoo has them."""
    content = {"model": zoo_weights(seed, **variant), "__author__": "nobody"}
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def script_of(weights: dict[str, torch.Tensor]) -> nn.Module:
    """A module, for torch.jit.script, whose buffers have these names."""

    class Node(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    root = Node()
    for name, value in weights.items():
        *path, last = name.split(".")
        node = root
        for step in path:
            if step not in node._modules:
                node.add_module(step, Node())
            node = node._modules[step]
        node.register_buffer(last, value)
    return root
