"""The paper preset's network, layer by layer, against the paper's table and torchvision's ResNet-50.

Every expected number is worked out by hand: a convolution has branches * out * in * kernel * kernel weights,
a BatchNorm two parameters a channel. The networks are on the meta device, where nothing is computed.
"""

import functools
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from dsareid.engine.presets import preset
from dsareid.models.branch import BranchConv2d
from dsareid.runs.network import build_model

IDENTITIES = 751  # Market-1501's, to train on

# name, weights, output of one image: channels of all branches, rows, columns
TRUNK_BEGIN = [("conv1", 9_408, (64, 128, 64))]  # 64*3*49, stride 2
DSAG_BEGIN = [
    ("conv1.0", 57_600, (768, 32, 32)),  # 24 * 32*3*25
    ("conv2.0", 442_368, (1536, 32, 32)),  # 24 * 64*32*9
    ("conv3.0.conv1", 884_736, (1536, 16, 16)),  # 24 * 64*64*9, stride 2
    ("conv3.0.conv2", 884_736, (1536, 16, 16)),
    ("conv3.0.downsample.0", 98_304, (1536, 16, 16)),  # 24 * 64*64
    ("conv3.1.conv1", 884_736, (1536, 16, 16)),
    ("conv3.1.conv2", 884_736, (1536, 16, 16)),
    ("conv4.0.conv1", 958_464, (1664, 8, 8)),  # 13 * 128*64*9, stride 2
    ("conv4.0.conv2", 1_916_928, (1664, 8, 8)),  # 13 * 128*128*9
    ("conv4.0.downsample.0", 106_496, (1664, 8, 8)),  # 13 * 128*64
    ("conv4.1.conv1", 1_916_928, (1664, 8, 8)),
    ("conv4.1.conv2", 1_916_928, (1664, 8, 8)),
]
DSAG_GLOBAL = [
    ("conv5_g.0.conv1", 18_874_368, (2048, 8, 8)),  # 2048*1024*9; 1024 are the 8 * 128 of conv4
    ("conv5_g.0.conv2", 37_748_736, (2048, 8, 8)),  # 2048*2048*9
    ("conv5_g.0.downsample.0", 2_097_152, (2048, 8, 8)),  # 2048*1024
    ("conv5_g.1.conv1", 37_748_736, (2048, 8, 8)),
    ("conv5_g.1.conv2", 37_748_736, (2048, 8, 8)),
]
DSAG_LOCAL = [
    ("conv5_l.0.conv1", 2_359_296, (2048, 8, 8)),  # 8 * 256*128*9
    ("conv5_l.0.conv2", 4_718_592, (2048, 8, 8)),  # 8 * 256*256*9
    ("conv5_l.0.downsample.0", 262_144, (2048, 8, 8)),  # 8 * 256*128
    ("conv5_l.1.conv1", 4_718_592, (2048, 8, 8)),
    ("conv5_l.1.conv2", 4_718_592, (2048, 8, 8)),
]
MF_GLOBAL = [  # conv5_x of ResNet-50 with stride 1, on 1024 channels of 16x8
    ("head_g.0.conv1", 524_288, (512, 16, 8)),  # 512*1024
    ("head_g.0.conv2", 2_359_296, (512, 16, 8)),  # 512*512*9
    ("head_g.0.conv3", 1_048_576, (2048, 16, 8)),  # 2048*512
    ("head_g.0.downsample.0", 2_097_152, (2048, 16, 8)),  # 2048*1024
    ("head_g.1.conv1", 1_048_576, (512, 16, 8)),  # 512*2048
    ("head_g.1.conv2", 2_359_296, (512, 16, 8)),
    ("head_g.1.conv3", 1_048_576, (2048, 16, 8)),
    ("head_g.2.conv1", 1_048_576, (512, 16, 8)),
    ("head_g.2.conv2", 2_359_296, (512, 16, 8)),
    ("head_g.2.conv3", 1_048_576, (2048, 16, 8)),
]
MF_LOCAL = [  # eight branches with an eighth of the channels, each on all 1024
    ("head_l.0.conv1", 524_288, (512, 16, 8)),  # 8 * 64*1024
    ("head_l.0.conv2", 294_912, (512, 16, 8)),  # 8 * 64*64*9
    ("head_l.0.conv3", 131_072, (2048, 16, 8)),  # 8 * 256*64
    ("head_l.0.downsample.0", 2_097_152, (2048, 16, 8)),  # 8 * 256*1024
    ("head_l.1.conv1", 131_072, (512, 16, 8)),  # 8 * 64*256
    ("head_l.1.conv2", 294_912, (512, 16, 8)),
    ("head_l.1.conv3", 131_072, (2048, 16, 8)),
    ("head_l.2.conv1", 131_072, (512, 16, 8)),
    ("head_l.2.conv2", 294_912, (512, 16, 8)),
    ("head_l.2.conv3", 131_072, (2048, 16, 8)),
]
# Two fully connected layers with BatchNorm between them.
WIDE = 2048 * 512 + 512 + 2 * 512 + 512 * 751 + 751  # 1,435,375, on f_G, z_G and z_L
NARROW = 256 * 512 + 512 + 2 * 512 + 512 * 751 + 751  # 517,871, on each f_L,i


def paper(**changes):
    """The preset's network on the meta device, in train mode."""
    config = preset("paper", Path(), Path(), **changes)
    assert (config.height, config.width, config.dsap_size) == (256, 128, 32)
    with torch.device("meta"):
        return build_model(config, IDENTITIES)


def inputs(batch=2):
    return (
        torch.empty(batch, 3, 256, 128, device="meta"),
        torch.empty(batch, 24, 3, 32, 32, device="meta"),
    )


def convolutions(module, x):
    """(name, weights, output of one image) of every convolution that is called, and the output of all."""
    found = {}

    def note(name, layer, _, output):
        found[name] = (layer.weight.numel(), tuple(output.shape[1:]))

    for name, layer in module.named_modules():
        if isinstance(layer, (nn.Conv2d, BranchConv2d)):
            layer.register_forward_hook(functools.partial(note, name))
    out = module(x)
    # In the order in which they are declared, not called.
    return [(name, *found[name]) for name, _ in module.named_modules() if name in found], out


def count(module):
    return sum(p.numel() for p in module.parameters())


def batch_norms(layers):
    """Parameters of a BatchNorm behind each convolution."""
    return sum(2 * output[0] for _, _, output in layers)


@pytest.mark.parametrize(
    "model,tail,weights",
    [
        ("dsa", DSAG_GLOBAL + DSAG_LOCAL, 161_947_904),  # 10,952,960 + 134,217,728 + 16,777,216
        ("dsap", DSAG_GLOBAL + DSAG_LOCAL, 161_947_904),
        ("dsa-global", DSAG_GLOBAL, 145_170_688),  # 10,952,960 + 134,217,728
        ("dsa-local", DSAG_LOCAL, 27_730_176),  # 10,952,960 + 16,777,216
    ],
)
def test_the_guiding_stream(model, tail, weights):
    expected = DSAG_BEGIN + tail
    stream = paper(model=model).dsag
    found, (d_global, d_local) = convolutions(stream, inputs()[1])
    assert found == expected
    assert sum(n for _, n, _ in found) == weights
    assert count(stream) == weights + batch_norms(expected)
    assert (d_global is None) == (model == "dsa-local") and (d_local is None) == (model == "dsa-global")
    assert d_global is None or d_global.shape == (2, 2048)
    assert d_local is None or d_local.shape == (2, 8, 256)


def test_what_is_merged():
    """24 -> 13 branches of 64 channels at 16x16, 13 -> 8 of 128 at 8x8, side by side for conv5_g."""
    stream, taken = paper().dsag, {}
    for name in ("conv4.0", "conv5_g.0", "conv5_l.0"):
        stream.get_submodule(name).register_forward_pre_hook(
            lambda _, x, name=name: taken.update({name: tuple(x[0].shape[1:])})
        )
    stream(inputs()[1])
    assert taken == {"conv4.0": (832, 16, 16), "conv5_g.0": (1024, 8, 8), "conv5_l.0": (1024, 8, 8)}


@pytest.mark.parametrize(
    "model,heads,weights",
    [
        ("dsa", MF_GLOBAL + MF_LOCAL, 14_942_208 + 4_161_536),
        ("two-branch", MF_GLOBAL + MF_LOCAL, 14_942_208 + 4_161_536),
        ("dsa-global", MF_GLOBAL, 14_942_208),
        ("baseline", MF_GLOBAL, 14_942_208),
        ("dsa-local", MF_LOCAL, 4_161_536),
    ],
)
def test_the_heads_of_the_main_stream(model, heads, weights):
    stream = paper(model=model).mf
    found, (f_global, f_local) = convolutions(stream, inputs()[0])
    found = [layer for layer in found if not layer[0].startswith("trunk.")]
    assert found == heads and sum(n for _, n, _ in found) == weights
    assert count(stream) - count(stream.trunk) == weights + batch_norms(heads)
    assert (f_global is None) == (model == "dsa-local")
    assert (f_local is None) == (model in ("dsa-global", "baseline"))
    assert f_global is None or f_global.shape == (2, 2048)
    assert f_local is None or f_local.shape == (2, 8, 256)


def test_the_trunk_is_torchvisions():
    """conv1..conv4_x: names, parameters and outputs; and of the baseline conv5_x, but for its stride."""
    import torchvision

    with torch.device("meta"):
        resnet = torchvision.models.resnet50()
    theirs, _ = convolutions(resnet, inputs()[0])
    trunk = paper().mf.trunk
    ours, features = convolutions(trunk, inputs()[0])
    assert ours[:1] == TRUNK_BEGIN and len(ours) == 1 + 10 + 13 + 19  # 3, 4, 6 blocks and a shortcut each
    assert ours == [layer for layer in theirs if not layer[0].startswith("layer4")]
    assert features.shape == (2, 1024, 16, 8)
    # ResNet-50 has 25,557,032 parameters: 2,049,000 in its classifier and 14,964,736 in layer4.
    assert count(trunk) == 25_557_032 - 2_049_000 - 14_964_736 == 8_543_296
    head = [(name.removeprefix("head_g."), n) for name, n, _ in MF_GLOBAL]
    assert head == [(name.removeprefix("layer4."), n) for name, n, _ in theirs if name.startswith("layer4")]


def test_the_classifiers_and_all_together():
    model = paper()
    parts = {name: count(part) for name, part in model.named_children() if count(part)}
    assert parts == {
        "mf": 27_692_096,  # 8,543,296 trunk, 14,964,736 and 4,184,064 heads
        "dsag": 162_025_472,  # 161,947,904 and 77,568 of BatchNorm
        "classify_f_global": WIDE,
        "classify_f_local": 8 * NARROW,
        "classify_z_global": WIDE,
        "classify_z_local": WIDE,
    }
    out = model.train()(*inputs())
    assert out.logits.f_global.shape == out.logits.z_global.shape == out.logits.z_local.shape == (2, 751)
    assert out.logits.f_local.shape == (2, 8, 751)
    model.eval()
    assert model(inputs()[0]).shape == model.fused(*inputs()).shape == (2, 4096)


@pytest.mark.parametrize(
    "model,expected",
    [
        ("dsa-global", {"classify_f_global": WIDE, "classify_z_global": WIDE}),
        ("baseline", {"classify_f_global": WIDE, "classify_z_global": WIDE}),
        ("dsa-local", {"classify_f_local": 8 * NARROW, "classify_z_local": WIDE}),
    ],
)
def test_the_classifiers_of_one_kind_of_branches(model, expected):
    network = paper(model=model)
    found = {name: count(part) for name, part in network.named_children() if name.startswith("classify")}
    assert {name: n for name, n in found.items() if n} == expected
    network.eval()
    image, dsap = inputs()
    assert network(image).shape == (2, 2048)
    if model != "baseline":
        assert network.fused(image, dsap).shape == (2, 2048)


@pytest.mark.parametrize(
    "model,whole,local",
    [
        ("dsa", (2048, 4096), (8, 256, 512)),
        ("dsa-global", (2048, 4096), None),
        ("dsa-local", None, (8, 256, 512)),
    ],
)
def test_fusion_by_concatenation(model, whole, local):
    """[f_G, d_G] 4096 -> 2048, [f_L,i, d_L,i] 512 -> 256, each with a bias."""
    network = paper(model=model, guidance="concat")
    fusion = network.fusion
    assert (fusion.local and tuple(fusion.local.weight.shape)) == local
    assert (fusion.global_ and tuple(fusion.global_.weight.shape)) == whole
    shapes = [shape for shape in (whole, local) if shape]
    assert count(fusion) == sum(math.prod(shape) + math.prod(shape[:-1]) for shape in shapes)
    z = network.train()(*inputs()).z
    assert (z.global_ is not None) == (whole is not None) and (z.local is not None) == bool(local)
    assert z.global_ is None or z.global_.shape == (2, 2048)
    assert z.local is None or z.local.shape == (2, 8, 256)
