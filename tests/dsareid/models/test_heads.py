"""BatchNorm necks: the triplet loss before them, ID losses and matching behind them."""

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from dsareid.commands.main import main
from dsareid.models import DSAReID
from dsareid.models.branch import BranchLinear
from dsareid.models.heads import classifier
from dsareid.models.losses import LossConfig, batch_hard_triplet, losses

SMALL = {"width": 1 / 8, "head_width": 1 / 8, "depths": (1, 1, 1, 1), "classifier_kind": "bnneck"}
LABEL = torch.tensor([0, 0, 1, 1])


def inputs():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(4, 3, 64, 32, generator=generator),
        torch.randn(4, 24, 3, 8, 8, generator=generator),
    )


def trained(**options):
    """A network in eval mode whose necks are not the identity."""
    torch.manual_seed(0)
    model = DSAReID(3, **SMALL, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def behind(neck, x):
    return neck.weight * (x - neck.running_mean) / (neck.running_var + neck.eps).sqrt() + neck.bias


def parts_behind(model, local):
    return behind(model.classify_f_local[0], local.flatten(1))


def test_a_neck_is_a_batchnorm_without_bias_before_a_layer_without_bias():
    model = DSAReID(3, **SMALL)
    whole = [model.classify_f_global, model.classify_z_global, model.classify_z_local]
    for norm, last in [*whole, model.classify_f_local]:
        assert isinstance(norm, nn.BatchNorm1d) and last.bias is None
        assert not norm.bias.requires_grad and not norm.bias.any() and norm.weight.requires_grad
    assert model.classify_z_local[0].num_features == model.classify_f_local[0].num_features == 256
    with torch.random.fork_rng():
        plain = DSAReID(3, **SMALL | {"classifier_kind": "batchnorm"})
    assert all(p.requires_grad for p in plain.parameters())
    assert plain.state_dict().keys() == model.state_dict().keys()


def test_triplets_before_the_neck_and_identities_behind():
    model, (image, dsap) = trained(), inputs()
    f, d = model.streams(image, dsap)
    output = model.output(f, d)
    terms = losses(output, LABEL, LossConfig())
    before = 1.5 * batch_hard_triplet(f.plus(d).global_, LABEL, 0.3)
    torch.testing.assert_close(terms["triplet_z_global"], before)
    norm, last = model.classify_z_local
    scores = behind(norm, f.plus(d).local.flatten(1)) @ last.weight.T
    torch.testing.assert_close(output.logits.z_local, scores)


def test_images_are_matched_behind_the_necks():
    model, (image, dsap) = trained(), inputs()
    f, d = model.streams(image, dsap)
    z = f.plus(d)
    whole, local = behind(model.classify_f_global[0], f.global_), parts_behind(model, f.local)
    expected = torch.cat([normalize(whole), normalize(local)], 1)
    torch.testing.assert_close(model(image), expected, rtol=1e-4, atol=1e-5)
    whole = behind(model.classify_z_global[0], z.global_)
    local = behind(model.classify_z_local[0], z.local.flatten(1))
    expected = torch.cat([normalize(whole), normalize(local)], 1)
    torch.testing.assert_close(model.fused(image, dsap), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.guide(dsap), d.embedding())  # d has no classifier, and no neck


def test_a_guide_that_teaches_has_necks_of_its_own():
    model, (_, dsap) = trained(guidance="distill"), inputs()
    d = model.dsag(dsap)
    whole = behind(model.classify_d_global[0], d.global_)
    local = behind(model.classify_d_local[0], d.local.flatten(1))
    expected = torch.cat([normalize(whole), normalize(local)], 1)
    torch.testing.assert_close(model.guide(dsap), expected, rtol=1e-4, atol=1e-5)


def test_a_guiding_stream_alone_is_matched_behind_the_necks_of_f():
    model, (_, dsap) = trained(streams="dsag"), inputs()
    d = model.dsag(dsap)
    whole, local = behind(model.classify_f_global[0], d.global_), parts_behind(model, d.local)
    expected = torch.cat([normalize(whole), normalize(local)], 1)
    torch.testing.assert_close(model.guide(dsap), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.guide(dsap), model(None, dsap))


@pytest.mark.parametrize(
    "options, size",
    [
        ({}, 512),
        ({"streams": "mf"}, 512),
        ({"streams": "mf", "branches": "global"}, 256),
        ({"branches": "local"}, 256),
        ({"guidance": "gate"}, 512),
        ({"guidance": "concat"}, 512),
        ({"guidance": "distill"}, 512),
        ({"streams": "dsag", "branches": "local"}, 256),
    ],
)
def test_every_network_trains_all_but_the_biases_of_its_necks(options, size):
    model, (image, dsap) = DSAReID(2, **SMALL, **options), inputs()
    alone = options.get("streams") == "dsag"
    output = model(None if alone else image, dsap)
    sum(losses(output, LABEL, LossConfig(), teaching=True).values()).backward()
    for name, p in model.named_parameters():
        fixed = name.startswith("classify_") and name.endswith(".0.bias")
        assert p.requires_grad != fixed and (p.grad is None) == fixed, name
    model.eval()
    found = model(None if alone else image, dsap)
    assert found.shape == (4, size)
    torch.testing.assert_close(found.view(4, -1, 256).norm(dim=2), torch.ones(4, size // 256))


def test_necks_under_autocast():
    model, (image, dsap) = trained().train(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(image, dsap)
    sum(losses(output, LABEL, LossConfig()).values()).backward()
    model.eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = model(image)
    assert found.dtype == torch.float32 and torch.cosine_similarity(found, model(image)).min() > 0.99


@pytest.mark.parametrize("kind", ["two-layer", "batchnorm", "bnneck"])
@pytest.mark.parametrize(
    "guidance, behind_z",
    [
        ("add", []),
        ("concat", ["fusion"]),
        ("distill", ["classify_d_global", "classify_d_local"]),
    ],
)
def test_the_order_of_names_is_that_of_old_checkpoints(kind, guidance, behind_z):
    """An optimizer's checkpoint tells weights by their order, and a seed draws them in it."""
    names = DSAReID(2, **SMALL | {"classifier_kind": kind}, guidance=guidance).state_dict()
    tops = list(dict.fromkeys(name.partition(".")[0] for name in names))
    heads = ["f_global", "f_local", "z_global", "z_local"]
    assert tops == ["mf", "dsag", *(f"classify_{head}" for head in heads), *behind_z]


def test_weights_of_a_seed():
    """Streams first, then the classifiers: each draws what it always drew."""
    torch.manual_seed(0)
    model = DSAReID(2, **SMALL)
    torch.manual_seed(0)
    alone = DSAReID(2, **SMALL, streams="mf")
    assert torch.equal(model.mf.trunk.conv1.weight, alone.mf.trunk.conv1.weight)
    assert torch.equal(model.mf.head_l[0].conv3.weight, alone.mf.head_l[0].conv3.weight)
    assert not torch.equal(model.classify_f_global[1].weight, alone.classify_f_global[1].weight)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classifier_kind": "linear"}, "classifier_kind must be one of"),
        ({"guidance": "sum"}, "guidance must be one of"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        DSAReID(2, **SMALL | options)


@pytest.mark.parametrize(
    "options, features",
    [
        ([], ("mf", "fused", "guide")),
        (["--guidance", "distill"], ("mf", "guide")),
        (["--model", "dsap"], ("guide",)),
    ],
)
def test_from_training_to_a_ranking(tiny_store, tmp_path, capsys, options, features):
    """And on again: the biases of necks have no place in the optimizer."""
    run, cpu = str(tmp_path / "run"), ["--device", "cpu"]
    sizes = ["--height", "64", "--width", "32", "--dsap-size", "8", "--identities", "2", "--images", "2"]
    network = ["--network.classifier", "bnneck", "--network.width", "0.125", "--epochs", "1"]
    command = ["train", "--data", str(tiny_store), "--out", run, "--preset", "demo", *sizes, *network]
    assert main([*command, *options, *cpu]) == 0
    for name in features:
        capsys.readouterr()
        assert main(["eval", run, "--features", name, *cpu]) == 0
        assert "mAP   rank-1" in capsys.readouterr().out
    saved = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)["model"]
    assert not saved["classify_f_global.0.bias"].any() and not saved["classify_z_local.0.bias"].any()
    assert main(["train", "--resume", "--out", run, *cpu]) == 0
    assert "all 1 epochs are done" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["two-layer", "batchnorm"])
def test_each_part_has_a_classifier_of_its_own(kind):
    """The eight side by side give what each gives alone, with its own eighth of the weights."""
    torch.manual_seed(0)
    side_by_side, features = classifier(kind, 5, 3, branches=8).eval(), torch.randn(4, 8, 5)
    for module in side_by_side:
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean)
    scores = side_by_side(features.flatten(1)).unflatten(1, (8, 3))
    for part in range(8):
        alone = classifier(kind, 5, 3).eval()
        wanted = alone.state_dict()
        for name, value in side_by_side.state_dict().items():
            if value.dim():
                wanted[name] = value.reshape(8, *wanted[name].shape)[part]
        alone.load_state_dict(wanted)
        torch.testing.assert_close(scores[:, part], alone(features[:, part]))


def test_a_batched_layer_starts_as_eight_single_ones():
    """In the range of nn.Linear's weights, and filling it."""
    layer = BranchLinear(8, 100, 50)
    for x in (layer.weight, layer.bias):
        assert 0.095 < x.abs().max() <= 0.1 and x.mean().abs() < 0.01
