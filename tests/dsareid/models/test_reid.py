import pytest
import torch
from torch import nn

from dsareid.models import DSAReID
from dsareid.models.branch import BasicBlock, Bottleneck, BranchConv2d

SMALL = {"width": 1 / 8, "head_width": 1 / 8, "depths": (1, 1, 1, 1)}


def inputs(batch=2, size=8):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, 3, 64, 32, generator=generator),
        torch.randn(batch, 24, 3, size, size, generator=generator),
    )


def conv_weights(module):
    return sum(p.numel() for p in module.parameters() if p.dim() == 4)


def test_the_papers_widths():
    with torch.device("meta"):
        model = DSAReID(751)
    assert conv_weights(model.dsag) == 161_947_904
    blocks = [m for m in model.dsag.modules() if isinstance(m, BasicBlock)]
    assert len(blocks) == 8
    shapes = {name: tuple(p.shape) for name, p in model.dsag.named_parameters() if p.dim() == 4}
    assert shapes["conv1.0.weight"] == (24 * 32, 3, 5, 5)
    assert shapes["conv2.0.weight"] == (24 * 64, 32, 3, 3)
    assert shapes["conv3.0.downsample.0.weight"] == (24 * 64, 64, 1, 1)
    assert shapes["conv4.0.conv1.weight"] == (13 * 128, 64, 3, 3)
    assert shapes["conv5_g.0.conv1.weight"] == (2048, 1024, 3, 3)
    assert shapes["conv5_l.1.conv2.weight"] == (8 * 256, 256, 3, 3)


def test_output_sizes_at_the_papers_widths():
    with torch.device("meta"):
        model = DSAReID(10).train()
        out = model(torch.empty(2, 3, 256, 128), torch.empty(2, 24, 3, 32, 32))
        assert out.f.global_.shape == out.d.global_.shape == out.z.global_.shape == (2, 2048)
        assert out.f.local.shape == out.d.local.shape == (2, 8, 256)
        assert out.logits.f_global.shape == out.logits.z_local.shape == (2, 10)
        assert out.logits.f_local.shape == (2, 8, 10)
        model.eval()
        assert model(torch.empty(2, 3, 256, 128)).shape == (2, 4096)
        trunk = model.mf.trunk(torch.empty(2, 3, 256, 128))
        assert trunk.shape == (2, 1024, 16, 8)
        assert DSAReID(10, streams="mf", branches="global").eval()(torch.empty(2, 3, 256, 128)).shape == (
            2,
            2048,
        )


def test_torchvisions_weights_fit():
    import torchvision

    with torch.device("meta"):
        model, resnet = DSAReID(10, streams="mf", branches="global"), torchvision.models.resnet50()
    ours = {k: v.shape for k, v in model.mf.trunk.state_dict().items()}
    head = {f"layer4.{k}": v.shape for k, v in model.mf.head_g.state_dict().items()}
    theirs = {k: v.shape for k, v in resnet.state_dict().items() if not k.startswith("fc")}
    assert ours | head == theirs


def test_the_trunk_computes_what_torchvision_computes():
    import torchvision

    from dsareid.runs.network import load_initial_weights

    resnet = torchvision.models.resnet50(weights=None).eval()
    model = DSAReID(3, streams="mf", branches="global").eval()
    from unittest import mock

    with mock.patch("dsareid.runs.network._imagenet", resnet.state_dict):
        load_initial_weights(model, "imagenet")
    image, _ = inputs()
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(image))))
    x = resnet.layer3(resnet.layer2(resnet.layer1(x)))
    torch.testing.assert_close(model.mf.trunk(image), x)
    expected = resnet.layer4[0].conv1(x)
    torch.testing.assert_close(model.mf.head_g[0].conv1(x), expected)


def test_train_and_eval_interface():
    image, dsap = inputs()
    model = DSAReID(5, **SMALL)
    out = model(image, dsap)
    torch.testing.assert_close(out.z.global_, out.f.global_ + out.d.global_)
    torch.testing.assert_close(out.z.local, out.f.local + out.d.local)
    with pytest.raises(ValueError, match="dsap is missing"):
        model(image)
    model.eval()
    embedding, fused = model(image), model.fused(image, dsap)
    assert embedding.shape == fused.shape == (2, 512)
    for half in (*embedding.split(256, 1), *fused.split(256, 1)):
        torch.testing.assert_close(half.norm(dim=1), torch.ones(2))
    assert not torch.allclose(embedding, fused)


def test_local_features_follow_the_order_of_the_second_merge():
    """Only the part images of a group move d_L of that group."""
    from dsa_ext import parts

    model = DSAReID(5, **SMALL).eval()
    _, dsap = inputs(1)
    before = model.dsag(dsap).local
    for group in range(8):
        changed = dsap.clone()
        members = [k for k in range(24) if parts.GROUPS[8][k] == group]
        changed[:, members] += 1
        moved = (model.dsag(changed).local - before).abs().amax(2)[0] > 0
        assert moved.nonzero().flatten().tolist() == [group]


def test_two_branch_and_baseline():
    image, _ = inputs()
    two = DSAReID(5, streams="mf", **SMALL)
    out = two(image)
    assert out.d is None and out.z is out.f and two.eval()(image).shape == (2, 512)
    for features in (lambda: two.fused(image, None), lambda: two.guide(None)):
        with pytest.raises(ValueError, match="DSAG"):
            features()
    base = DSAReID(5, streams="mf", branches="global", **SMALL)
    out = base(image)
    assert out.z.local is None and out.logits.f_local is None and out.logits.z_local is None
    assert base.eval()(image).shape == (2, 256)


def test_every_parameter_gets_a_gradient():
    from dsareid.models.losses import losses
    from dsareid.models.options import LossConfig

    image, dsap = inputs(4)
    model = DSAReID(2, **SMALL)
    total = sum(losses(model(image, dsap), torch.tensor([0, 0, 1, 1]), LossConfig()).values())
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {"branches": "global"},
        {"branches": "local"},
        {"streams": "mf", "branches": "local"},
        {"streams": "dsag"},
        {"streams": "dsag", "branches": "global"},
        {"guidance": "gate"},
        {"guidance": "concat"},
        {"guidance": "concat", "branches": "local"},
        {"guidance": "distill"},
        {"guidance": "distill", "branches": "global"},
    ],
)
def test_every_kind_trains_all_of_its_weights(options):
    """And embeds into as many numbers as it has branches."""
    from dsareid.models.losses import losses
    from dsareid.models.options import LossConfig

    image, dsap = inputs(4)
    model = DSAReID(2, **SMALL, **options)
    terms = losses(model(image, dsap), torch.tensor([0, 0, 1, 1]), LossConfig(), teaching=True)
    sum(terms.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    wide = 512 if options.get("branches", "both") == "both" else 256
    model.eval()
    alone = options.get("streams") == "dsag"
    assert model(None if alone else image, dsap if alone else None).shape == (4, wide)
    branch = {"global": "local", "local": "global"}.get(options.get("branches"))
    assert not any(branch and f"_{branch}" in name for name in terms)


def test_concatenation_goes_through_one_layer_for_each_branch():
    image, dsap = inputs()
    model = DSAReID(5, **SMALL, guidance="concat").eval()
    f, d = model.streams(image, dsap)
    z = model.fuse(f, d)
    layer = model.fusion.global_
    expected = torch.cat([f.global_, d.global_], 1) @ layer.weight.T + layer.bias
    torch.testing.assert_close(z.global_, expected)
    for part, (weight, bias) in enumerate(zip(model.fusion.local.weight, model.fusion.local.bias)):
        expected = torch.cat([f.local[:, part], d.local[:, part]], 1) @ weight.T + bias
        torch.testing.assert_close(z.local[:, part], expected)
    assert torch.equal(model.fused(image, dsap), z.embedding())
    with torch.device("meta"):
        fusion = DSAReID(5, guidance="concat").fusion
    assert fusion.global_.weight.shape == (2048, 4096)
    assert fusion.local.weight.shape == (8, 256, 512)


def test_a_guide_that_teaches_is_not_fused():
    image, dsap = inputs()
    model = DSAReID(5, **SMALL, guidance="distill")
    out = model(image, dsap)
    assert out.z is out.f and out.logits.d_global.shape == out.logits.d_local.shape == (2, 5)
    with pytest.raises(ValueError, match="that are fused"):
        model.fused(image, dsap)
    assert torch.equal(model.eval().guide(dsap), model.dsag(dsap).embedding())


def test_the_guiding_stream_alone_takes_the_place_of_the_other():
    _, dsap = inputs()
    model = DSAReID(5, **SMALL, streams="dsag")
    out = model(None, dsap)
    assert out.d is None and out.z is out.f and model.mf is None
    with pytest.raises(ValueError, match="dsap is missing"):
        model(None)


def test_zero_init_makes_blocks_their_shortcuts():
    model = DSAReID(5, **SMALL, zero_init=True)
    for block in model.modules():
        if isinstance(block, (BasicBlock, Bottleneck)):
            last = block.bn3 if isinstance(block, Bottleneck) else block.bn2
            assert not last.weight.any()


@pytest.mark.parametrize("kernel,stride", [(1, 1), (1, 2), (3, 1), (3, 2), (5, 1)])
def test_branch_convolution_is_one_convolution_a_branch(kernel, stride):
    layer = BranchConv2d(4, 3, 5, kernel, stride).double()
    x = torch.randn(2, 12, 9, 8, dtype=torch.float64)
    expected = [
        nn.functional.conv2d(a, w, stride=stride, padding=kernel // 2)
        for a, w in zip(x.chunk(4, 1), layer.weight.chunk(4, 0))
    ]
    torch.testing.assert_close(layer(x), torch.cat(expected, 1))


def test_the_guiding_stream_merges_as_the_paper_says():
    """Against a plain forward pass on contiguous tensors."""
    from dsa_ext.merge import _merge_parts

    model = DSAReID(5, **SMALL).dsag.eval()
    _, dsap = inputs(2)
    x = model.conv3(model.conv2(model.conv1(dsap.flatten(1, 2)))).contiguous()
    x = model.conv4(_merge_parts(x.unflatten(1, (24, -1)), "mirror").flatten(1, 2)).contiguous()
    x = _merge_parts(x.unflatten(1, (13, -1)), "front_back").flatten(1, 2)
    d = model(dsap)
    torch.testing.assert_close(d.global_, model.conv5_g(x).mean((2, 3)))
    torch.testing.assert_close(d.local, model.conv5_l(x).mean((2, 3)).unflatten(1, (8, -1)))


def test_shared_bottlenecks_are_separate_branches():
    """Eight local branches computed together equal eight bottlenecks computed one by one."""
    block = Bottleneck(8, 16, 4, shared=True).eval()
    x = torch.randn(2, 16, 6, 5)
    together = block(x).chunk(8, 1)
    for k in range(8):
        one = Bottleneck(1, 16, 4).eval()
        state = {}
        for name, value in block.state_dict().items():
            state[name] = value if value.dim() == 0 else value.chunk(8, 0)[k]
        if one.downsample is None:
            one.downsample = nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16)).eval()
        one.load_state_dict(state)
        torch.testing.assert_close(one(x), together[k])


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_classes"):
        DSAReID(0)
