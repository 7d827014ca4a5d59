"""DensePose R-CNN from a file of weights, on random ones; studies/rcnn compares it with detectron2's."""

import numpy as np
import pytest
import torch
from zoo_files import MOBILE, VARIANTS, zoo_shapes, zoo_weights

from dsareid.densepose.estimators.densepose_rcnn import network_input, read_heads
from dsareid.densepose.estimators.rcnn import UNIT, DensePoseRCNN, Heads, Variant
from dsareid.densepose.estimators.rcnn_names import build, own_name
from dsareid.densepose.estimators.rcnn_pool import Pooling, pool_levels
from dsareid.ground.errors import DSAError

# Of detectron2's own models, buffers of frozen BatchNorm included: built there, and compared name by name.
TOTALS = {
    "R_50_FPN_s1x": (335, 63_927_330),
    "R_50_FPN_WC1_s1x": (337, 64_132_155),
    "R_50_FPN_WC1M_s1x": (341, 64_148_541),
    "R_50_FPN_WC2_s1x": (341, 64_541_805),
    "R_50_FPN_WC2M_s1x": (345, 64_558_191),
    "R_50_FPN_s1x_legacy": (319, 59_837_487),
    "R_50_FPN_DL_s1x": (359, 66_162_210),
    "R_50_FPN_DL_WC1_s1x": (361, 66_367_035),
    "R_50_FPN_DL_WC1M_s1x": (365, 66_383_421),
    "R_50_FPN_DL_WC2_s1x": (365, 66_776_685),
    "R_50_FPN_DL_WC2M_s1x": (369, 66_793_071),
    "R_101_FPN_s1x": (590, 82_971_682),
    "R_101_FPN_WC1_s1x": (592, 83_176_507),
    "R_101_FPN_WC1M_s1x": (596, 83_192_893),
    "R_101_FPN_WC2_s1x": (596, 83_586_157),
    "R_101_FPN_WC2M_s1x": (600, 83_602_543),
    "R_101_FPN_s1x_legacy": (574, 78_881_839),
    "R_101_FPN_DL_s1x": (614, 85_206_562),
    "R_101_FPN_DL_WC1_s1x": (616, 85_411_387),
    "R_101_FPN_DL_WC1M_s1x": (620, 85_427_773),
    "R_101_FPN_DL_WC2_s1x": (620, 85_821_037),
    "R_101_FPN_DL_WC2M_s1x": (624, 85_837_423),
    "mobile_parsing_rcnn_b_s3x": (440, 3_424_676),
    "mobile_parsing_rcnn_b_wc2m_s3x": (450, 3_490_276),
}
MODELS = VARIANTS | MOBILE


def weights_of(name, seed=0):
    return {key: torch.from_numpy(value) for key, value in zoo_weights(seed, **MODELS[name]).items()}


def empty_weights(name):
    """The shapes alone, for what does not compute."""
    return {key: torch.empty(shape, device="meta") for key, shape in zoo_shapes(**MODELS[name])}


def expected(depth=0, legacy=False, deeplab=False, weighted=False, mobile=False, uv=0):
    """The variant of a model by its configuration."""
    if mobile:
        return Variant("spnasnet_100", False, True, 2 if weighted else 15, weighted)
    return Variant(f"R_{depth}", not legacy, deeplab, 15 if legacy else 2, weighted)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_recognised_by_names_and_shapes(name):
    shapes = dict(zoo_shapes(**MODELS[name]))
    assert (len(shapes), sum(map(np.prod, shapes.values()))) == TOTALS[name]
    weights = empty_weights(name)
    network = build(weights)
    assert network.variant == expected(**MODELS[name])
    used = {own_name(key) for key in weights} - {None}
    assert used == {key for key in network.state_dict() if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def plain():
    return build(weights_of("R_50_FPN_s1x"))


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)


# The numbers that detectron2 gave for these weights, picture and boxes: sums of the heads' absolute values.
THEIRS = {
    "R_50_FPN_s1x": [84378.9, 86416.7, 220213.0, 221586.8, 214857.2, 215978.2, 220234.3, 223439.2],
    "R_50_FPN_DL_WC2M_s1x": [44411.6, 42431.6, 274747.6, 266398.4, 160464.5, 160056.8, 143961.7, 144587.3],
    "mobile_parsing_rcnn_b_s3x": [430047.0, 417886.4, 79017.1, 77337.5, 82555.5, 80767.3, 78684.0, 76775.5],
    "mobile_parsing_rcnn_b_wc2m_s3x": [
        59563.2,
        66509.3,
        114306.7,
        108106.0,
        79490.0,
        77675.3,
        86077.7,
        84590.6,
    ],
    "R_50_FPN_s1x_legacy": [194959.8, 209652.0, 49378.3, 50986.3, 43955.1, 45451.2, 44256.1, 46107.0],
}
BOXES = torch.tensor([[4.0, 6.0, 50.0, 84.0], [20.5, 10.25, 60.0, 90.0]])


@pytest.mark.slow
@pytest.mark.parametrize("name", THEIRS)
def test_heads_are_those_of_detectron2(name, picture):
    network = build(weights_of(name))
    with torch.inference_mode():
        heads = network(network_input(picture, 90, 60, network.plan.look)[None], [BOXES])
    side = 64 if name in MOBILE else 56 if name.endswith("legacy") else 112
    counts = network.variant.coarse, 25, 25, 25
    assert [tuple(head.shape[1:]) for head in heads] == [(count, side, side) for count in counts]
    found = [float(head[k].double().abs().sum()) for head in heads for k in range(2)]
    assert found == pytest.approx(THEIRS[name], rel=1e-5)


def test_the_batch_does_not_matter(plain, picture):
    one, other = network_input(picture, 90, 60), network_input(picture[::-1].copy(), 90, 60)
    with torch.inference_mode():
        both = plain(torch.stack([one, other]), [BOXES, BOXES[:1]])
        alone = plain(other[None], [BOXES[:1]])
    for together, single in zip(both, alone):
        assert together.shape[0] == 3
        torch.testing.assert_close(together[2:], single, rtol=1e-4, atol=1e-4)


def test_it_can_be_built_where_nothing_is_recorded():
    with torch.inference_mode():
        network = build(weights_of("R_50_FPN_s1x"))
    assert not network.training and not any(x.requires_grad for x in network.parameters())


def test_a_normalised_head_in_bfloat16():
    torch.manual_seed(0)
    network = DensePoseRCNN(Variant(deeplab=True))
    pooled = torch.randn(1, 256, 28, 28)
    with torch.inference_mode():
        exact = network.head(pooled)
        network.use_bfloat16()
        found = network.head(pooled.to(network.kind))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0.1, atol=0.1)


def test_boxes_choose_their_level():
    """A box of 224 pixels pools from p4, half of it from p3; each level holds its own number here."""
    levels = [torch.full((2, 256, 64 >> k, 64 >> k), float(k + 2)) for k in range(4)]
    sides = (20, 111, 112, 223, 224, 447, 448, 500)
    boxes = [
        torch.tensor([[0.0, 0.0, side, side] for side in sides]),
        torch.tensor([[0.0, 0.0, 224.0, 56.0]]),
    ]
    pooled = pool_levels(levels, boxes, 2, Pooling())
    assert pooled.shape == (9, 256, 2, 2)
    assert pooled.amax((1, 2, 3)).tolist() == [2, 2, 3, 3, 4, 4, 5, 5, 3]  # 0 beyond the level's border


def test_what_the_network_sees(picture):
    seen = network_input(picture, 90, 60)
    assert seen.shape == (3, 96, 64)
    assert not seen[:, 90:].any() and not seen[:, :, 60:].any()
    blue = torch.from_numpy(picture[..., 2].astype(np.float32)) - 103.53
    torch.testing.assert_close(seen[0, :90, :60], blue)
    red = (torch.from_numpy(picture[..., 0].astype(np.float32)) - 123.675) / 58.395
    torch.testing.assert_close(network_input(picture, 90, 60, UNIT)[0, :90, :60], red)


def test_a_map_is_read_from_the_heads():
    """The mask decides where, the parts decide what, and U and V are those of the pixel's part."""
    coarse, fine = torch.zeros(1, 2, 4, 4), torch.zeros(1, 25, 4, 4)
    coarse[0, 1, :, :2] = 5  # a person on the left
    fine[0, 7, :2] = 1
    fine[0, 0, 2:] = 1  # the parts' own background
    u, v = (torch.arange(25.0)[None, :, None, None].expand(1, 25, 4, 4) / n for n in (10, 100))
    labels, uv, sure = read_heads(Heads(coarse, fine, u, v), 4, 4)
    assert labels[:2, :2].eq(7).all() and labels.sum() == 28
    assert (
        uv[0][labels == 7].eq(0.7).all()
        and uv[1][labels == 7].eq(0.07).all()
        and not uv[:, labels == 0].any()
    )
    assert sure == pytest.approx(1 - 1 / (1 + np.exp(5)))
    assert read_heads(Heads(-coarse, fine, u, v), 4, 4)[2] == 0


@pytest.mark.parametrize(
    "change, words",
    [
        ({"roi_heads.keypoint_head.conv_fcn1.weight": (512, 256, 3, 3)}, "a model of key points or masks"),
        ({"roi_heads.densepose_predictor.embed_lowres.weight": (512, 16, 4, 4)}, r"\(CSE\), which have no U"),
        ({"roi_heads.densepose_head.NLBlock.g.weight": (128, 256, 1, 1)}, "a head with non-local blocks"),
        (
            {"backbone.bottom_up.res2.0.conv1.weight": (64, 64, 3, 3)},
            r"conv1.weight is \[64, 64, 3, 3\], not \[64",
        ),
        ({"roi_heads.densepose_predictor.ann_index_lowres.weight": (2,)}, r"coarse.weight is \[2\], not"),
        ({"roi_heads.decoder.p5.4.bias": None}, "decoder.levels.p5.2.bias is missing, not"),
        ({"roi_heads.densepose_predictor.index_uv_lowres.weight": None}, "it is no chart model"),
        ({"backbone.bottom_up.res2.3.conv1.weight": (64, 256, 1, 1)}, "is one too many"),
    ],
)
def test_weights_of_something_else(change, words):
    weights = empty_weights("R_50_FPN_s1x")
    for name, shape in change.items():
        if shape is None:
            del weights[name]
        else:
            weights[name] = torch.empty(shape, device="meta")
    with pytest.raises(DSAError, match=words):
        build(weights)
