"""The names of weights: in files of detectron2's zoo (projects/DensePose) and of DensePoseFnL, and ours.

What a file holds tells the variant.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dsareid.densepose.estimators.rcnn import MOBILE, DensePoseRCNN, Variant
from dsareid.ground.errors import DSAError

_NAMES = (  # in files, and of the modules of DensePoseRCNN
    (r"backbone\.bottom_up\.stem\.conv1\.norm\.", "trunk.bn1."),
    (r"backbone\.bottom_up\.stem\.conv1\.", "trunk.conv1."),
    (r"backbone\.bottom_up\.res([2-5])\.(\d+)\.shortcut\.norm\.", "trunk.layer{0}.{1}.downsample.1."),
    (r"backbone\.bottom_up\.res([2-5])\.(\d+)\.shortcut\.", "trunk.layer{0}.{1}.downsample.0."),
    (r"backbone\.bottom_up\.res([2-5])\.(\d+)\.conv([1-3])\.norm\.", "trunk.layer{0}.{1}.bn{2}."),
    (r"backbone\.bottom_up\.res([2-5])\.(\d+)\.conv([1-3])\.", "trunk.layer{0}.{1}.conv{2}."),
    (r"backbone\.bottom_up\.(conv_stem|bn1|blocks)\.", "trunk.{0}."),
    (r"backbone\.(l[2-5]|p[2-5]_(?:tr|out)|(?:down|fuse)_p\w+)\.", "pyramid.{0}."),
    (r"backbone\.fpn_lateral([2-5])\.", "pyramid.inner_blocks.{0}.0."),
    (r"backbone\.fpn_output([2-5])\.", "pyramid.layer_blocks.{0}.0."),
    (r"proposal_generator\.rpn_head\.conv\.", "detector.conv."),
    (r"proposal_generator\.rpn_head\.objectness_logits\.", "detector.objectness."),
    (r"proposal_generator\.rpn_head\.anchor_deltas\.", "detector.deltas."),
    (r"roi_heads\.box_head\.((?:fc|conv)[12])\.", "detector.{0}."),
    (r"roi_heads\.box_predictor\.cls_score\.", "detector.scores."),
    (r"roi_heads\.box_predictor\.bbox_pred\.", "detector.boxes."),
    (r"roi_heads\.decoder\.(p[2-5])\.(\d)\.", "decoder.levels.{0}.{1}."),
    (r"roi_heads\.decoder\.predictor\.", "decoder.predictor."),
    (r"roi_heads\.densepose_head\.ASPP\.convs\.([0-3])\.0\.", "head.atrous.convs.{0}."),
    (r"roi_heads\.densepose_head\.ASPP\.convs\.([0-3])\.1\.", "head.atrous.norms.{0}."),
    (r"roi_heads\.densepose_head\.ASPP\.convs\.(4)\.1\.", "head.atrous.convs.{0}."),
    (r"roi_heads\.densepose_head\.ASPP\.convs\.(4)\.2\.", "head.atrous.norms.{0}."),
    (r"roi_heads\.densepose_head\.ASPP\.project\.0\.", "head.atrous.project."),
    (r"roi_heads\.densepose_head\.body_conv_fcn([1-8])\.norm\.", "head.norms.{0}."),
    (r"roi_heads\.densepose_head\.body_conv_fcn([1-8])\.", "head.convs.{0}."),
    (r"roi_heads\.densepose_predictor\.ann_index_lowres\.", "predictor.coarse."),
    (r"roi_heads\.densepose_predictor\.index_uv_lowres\.", "predictor.fine."),
    (r"roi_heads\.densepose_predictor\.([uv])_lowres\.", "predictor.{0}."),
    (r"roi_heads\.densepose_predictor\.coarse_segm_confidence_lowres\.", "predictor.coarse_confidence."),
    (r"roi_heads\.densepose_predictor\.fine_segm_confidence_lowres\.", "predictor.fine_confidence."),
)
# What a map does not depend on: how sure U and V are, the numbers that detectron2 derives, and what has a
# second name in dajes/DensePose-TorchScript.
_UNUSED = re.compile(
    r"proposal_generator\.anchor_generator\.|roi_heads\.densepose_predictor\.(sigma_2|kappa_[uv])_"
    r"|pixel_(mean|std)$|.*\.num_batches_tracked$|roi_heads\.densepose_losses\."
    r"|backbone\.bottom_up\.blocks\.6\.0\.(conv_pwl|bn3)\."
    r"|backbone\.(bottom_up\.stages|lateral_convs|output_convs)\."
    r"|roi_heads\.(decoder\.scale_heads|densepose_head\.stacked_convs)\."
)
_LESS = {
    "trunk.layer": 1,
    "pyramid.inner": 2,
    "pyramid.layer": 2,
    "head.convs": 1,
    "head.norms": 1,
}  # than the zoo's first number


def own_name(name: str) -> str | None:
    """The parameter of DensePoseRCNN that a weight of the zoo is; None: it is not needed.

    Raises:
        DSAError: no chart model has a weight of that name.
    """
    if _UNUSED.match(name):
        return None
    for pattern, own in _NAMES:
        if found := re.match(pattern, name):
            less = next((n for start, n in _LESS.items() if own.startswith(start)), 0)
            groups = [
                str(int(x) - less) if k == 0 and x.isdecimal() else x for k, x in enumerate(found.groups())
            ]
            if own.startswith("decoder.levels"):  # every second one is an upsampling
                groups[1] = str(int(groups[1]) // 2)
            return own.format(*groups) + name[found.end() :]
    raise DSAError(f"it has {name}, which no chart model of DensePose R-CNN has{_kind_of(name)}")


def _kind_of(name: str) -> str:
    """What a foreign weight tells of its model."""
    if "embed" in name:
        return ": a model of continuous surface embeddings (CSE), which have no U and V"
    if "keypoint" in name or "mask_head" in name:
        return ": a model of key points or masks"
    if "NLBlock" in name:
        return ": a head with non-local blocks, which no model of the zoo has"
    return ""


def variant_of(names: Mapping[str, Sequence[int]]) -> Variant:
    """The variant by the shapes of its parameters, named as own_name does.

    Raises:
        DSAError: parts of a chart model are missing.
    """
    mobile = "trunk.conv_stem.weight" in names
    if "predictor.fine.weight" not in names or not (mobile or "trunk.conv1.weight" in names):
        raise DSAError("it is no chart model of DensePose R-CNN: a trunk with the heads of parts, U and V")
    coarse = names.get("predictor.coarse.weight", ())
    resnet = "R_101" if "trunk.layer3.22.conv1.weight" in names else "R_50"
    return Variant(
        trunk=MOBILE if mobile else resnet,
        decoder="decoder.predictor.weight" in names,
        deeplab="head.atrous.project.weight" in names,
        coarse=coarse[1] if len(coarse) == 4 else 2,
        weighted="predictor.fine_confidence.weight" in names,
    )


def build(weights: Mapping[str, Tensor]) -> DensePoseRCNN:
    """The network of a file's weights, by the zoo's names.

    Raises:
        DSAError: they are not those of a chart model, some are missing, or have other shapes.
    """
    named = {own: value.float() for name, value in weights.items() if (own := own_name(name)) is not None}
    variant = variant_of({name: value.shape for name, value in named.items()})
    with torch.device("meta"):
        network = DensePoseRCNN(variant).eval().requires_grad_(False)
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    wrong = [
        f"{name} is {_shape(named.get(name))}, not {_shape(value)}"
        for name, value in expected.items()
        if name not in named or named[name].shape != value.shape
    ]
    wrong += [f"{name} is one too many" for name in named if name not in expected]
    if wrong:
        raise DSAError(f"{len(wrong):,} weights do not fit a model {variant}: {wrong[0]}")
    counted = {k: torch.zeros((), dtype=torch.int64) for k in network.state_dict() if k not in expected}
    network.load_state_dict(named | counted, assign=True)
    return network


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))
