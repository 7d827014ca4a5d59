"""The guide as a plug-in for backbones that are not ours."""

import itertools

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from dsa_ext.parts import GROUPS
from dsareid.models import DSAReID
from dsareid.models.guide import Features, Guide, LossConfig, losses

LABEL = torch.tensor([0, 0, 1, 1])
SIZES = {"both": (24, 6), "global": (24, None), "local": (None, 6)}  # no multiples of one another's


def inputs(branches="both", seed=0):
    """Leaves f_global and f_local, and dsap."""
    generator = torch.Generator().manual_seed(seed)
    whole, local = SIZES[branches]
    return (
        torch.randn(4, whole, generator=generator).requires_grad_() if whole else None,
        torch.randn(4, 8, local, generator=generator).requires_grad_() if local else None,
        torch.randn(4, 24, 3, 8, 8, generator=generator),
    )


def new(branches="both", **options):
    torch.manual_seed(0)
    whole, local = SIZES[branches]
    return Guide(2, **{"global_size": whole, "local_size": local, "width": 1 / 16} | options)


GUIDANCE, KINDS = ("add", "gate", "concat", "distill"), ("two-layer", "batchnorm", "bnneck")
CASES = [
    *({"branches": b, "guidance": g} for b, g in itertools.product(SIZES, GUIDANCE)),
    *({"guidance": g, "classifier_kind": k} for g, k in itertools.product(GUIDANCE, KINDS[1:])),
    {"width": 1 / 32},
    {"width": 0.1},
]


@pytest.mark.parametrize("options", CASES, ids=str)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_reach_backbone_and_guide(options, precision):
    guide = new(**options)
    *f, dsap = inputs(options.get("branches", "both"))
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        output = guide(*f, dsap)
    terms = losses(output, LABEL, LossConfig(), teaching=True)
    sum(terms.values()).backward()
    branches = {"global": ("global",), "local": ("local",)}.get(options.get("branches"), ("global", "local"))
    kinds = {"id_f", "id_z", "triplet_z"}
    kinds |= {"id_d", "triplet_d", "distill"} if options.get("guidance") == "distill" else set()
    assert terms.keys() == {f"{kind}_{branch}" for kind in kinds for branch in branches}
    trained = [p for p in guide.parameters() if p.requires_grad]
    for x in (*trained, *(x for x in f if x is not None)):
        assert x.grad is not None and x.grad.isfinite().all()
    assert all(x.grad.any() for x in f if x is not None) and guide.dsag.conv1[0].weight.grad.any()


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_what_each_guidance_makes(guidance):
    guide, (*f, dsap) = new(guidance=guidance), inputs()
    output = guide(*f, dsap)
    assert output.f == Features(*f)
    assert [x.shape for x in output.d] == [x.shape for x in output.z] == [(4, 24), (4, 8, 6)]
    if guidance == "add":
        assert torch.equal(output.z.global_, f[0] + output.d.global_)
        assert torch.equal(output.z.local, f[1] + output.d.local)
    if guidance == "gate":  # f alone for every other sample, wherever it is matched f + d for all
        for x, y, z in zip(f, output.d, output.z):
            assert torch.equal(z[::2], x[::2]) and torch.equal(z[1::2], x[1::2] + y[1::2])
        assert torch.equal(guide.eval().fuse(Features(*f), output.d).local, f[1] + output.d.local)
    assert (output.z is output.f) == (guidance == "distill") == (output.logits.d_local is not None)
    assert output.logits.f_local.shape == (4, 8, 2) and output.logits.z_global.shape == (4, 2)


def test_it_is_what_is_in_our_own_network():
    """The same sizes and weights around the features of an MF-Stream give the same output and losses."""
    torch.manual_seed(0)
    model = DSAReID(2, width=1 / 8, head_width=1 / 8, depths=(1, 1, 1, 1))
    guide = Guide(2, global_size=256, local_size=32, width=1 / 8)
    state = {name: x for name, x in model.state_dict().items() if not name.startswith("mf.")}
    guide.load_state_dict(state)
    image, (*_, dsap) = torch.randn(4, 3, 64, 32), inputs()
    f, _ = model.streams(image, dsap)
    ours, others = model.output(f, model.dsag(dsap)), guide(*f, dsap)
    for a, b in zip((*ours.z, ours.logits.z_local), (*others.z, others.logits.z_local)):
        assert torch.equal(a, b)


def test_the_papers_sizes_are_untouched():
    with torch.device("meta"):
        guide, model = Guide(751, global_size=2048, local_size=256), DSAReID(751)
    shapes = {name: x.shape for name, x in model.state_dict().items() if not name.startswith("mf.")}
    assert {name: x.shape for name, x in guide.state_dict().items()} == shapes


def test_width_scales_what_is_inside_alone():
    wide, narrow = (new(width=width, guidance="concat") for width in (1 / 8, 1 / 16))
    for a, b in zip(wide.dsag.conv4.parameters(), narrow.dsag.conv4.parameters()):
        assert a.shape[0] == 2 * b.shape[0]
    assert wide.dsag.conv5_g[1].conv2.weight.shape == narrow.dsag.conv5_g[1].conv2.weight.shape
    assert wide.dsag.conv5_g[0].conv1.weight.shape == (24, 8 * 16, 3, 3)


def test_part_features_follow_the_order_of_the_second_merge():
    guide = new(branches="local").eval()
    _, _, dsap = inputs("local")
    before = guide.dsag(dsap).local
    for group in range(8):
        changed = dsap.clone()
        changed[:, [k for k in range(24) if GROUPS[8][k] == group]] += 1
        moved = (guide.dsag(changed).local - before).abs().amax((0, 2)) > 0
        assert moved.nonzero().flatten().tolist() == [group]


def test_it_learns_to_fuse():
    """The loss falls though the backbone sees noise alone: the guide knows who is who."""
    guide, (*f, dsap) = new(classifier_kind="batchnorm"), inputs()
    optimizer, seen = torch.optim.Adam(guide.parameters(), lr=3e-3), []
    for _ in range(15):
        total = sum(losses(guide(*f, dsap), LABEL, LossConfig()).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seen.append(total.item())
    assert seen[-1] < 0.7 * seen[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("branches", SIZES)
def test_at_inference_it_has_a_part_only_with_a_neck(kind, branches):
    guide, (*f, dsap) = new(branches, classifier_kind=kind), inputs(branches)
    guide(*f, dsap)  # the statistics of a neck move
    found, alone = guide.eval()(*f), Features(*f).embedding()
    assert found.shape == alone.shape
    assert torch.equal(found, alone) == (kind != "bnneck")


def test_a_guided_resnet_works_alone():
    """After training with a guide its features are those of a plain ResNet-18 with its weights."""
    torch.manual_seed(0)
    resnet, guide = resnet18(weights=None), Guide(2, global_size=512, width=1 / 16)
    resnet.fc = nn.Identity()
    image, (*_, dsap) = torch.randn(4, 3, 64, 32), inputs()
    before = resnet.conv1.weight.clone()
    optimizer = torch.optim.Adam([*resnet.parameters(), *guide.parameters()], lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum(losses(guide(resnet(image), None, dsap), LABEL, LossConfig()).values()).backward()
        optimizer.step()
    assert not torch.equal(resnet.conv1.weight, before)
    plain = resnet18(weights=None)
    plain.load_state_dict(resnet.state_dict() | {"fc." + k: v for k, v in plain.fc.state_dict().items()})
    plain.fc = nn.Identity()
    assert torch.equal(resnet.eval()(image), plain.eval()(image))


F_GLOBAL, F_LOCAL, DSAP = inputs()


@pytest.mark.parametrize(
    "branches, given, message",
    [
        ("both", (F_GLOBAL, F_LOCAL), r"dsap is missing: it must be floating \(4, 24, 3, S, S\)"),
        ("both", (F_GLOBAL, None, DSAP), r"f_local is missing: it must be floating \(4, 8, 6\)"),
        ("both", (None, F_LOCAL, DSAP), r"f_global is missing: it must be floating \(B, 24\)"),
        ("global", (F_GLOBAL, F_LOCAL, DSAP), r"f_local must be None, as local_size is, not \[4, 8, 6\]"),
        ("local", (F_GLOBAL, F_LOCAL, DSAP), r"f_global must be None, as global_size is, not \[4, 24\]"),
        (
            "both",
            (F_GLOBAL[:, 1:], F_LOCAL, DSAP),
            r"f_global must be floating \(B, 24\), not float32 \[4, 23\]",
        ),
        (
            "both",
            (F_GLOBAL[None], F_LOCAL, DSAP),
            r"f_global must be floating \(B, 24\), not .* \[1, 4, 24\]",
        ),
        ("both", (F_GLOBAL.long(), F_LOCAL, DSAP), r"f_global must be floating \(B, 24\), not int64"),
        (
            "both",
            (F_GLOBAL, F_LOCAL[:3], DSAP),
            r"f_local must be floating \(4, 8, 6\), not float32 \[3, 8, 6\]",
        ),
        (
            "both",
            (F_GLOBAL, F_LOCAL.flatten(1), DSAP),
            r"f_local must be floating \(4, 8, 6\), not .* \[4, 48\]",
        ),
        ("both", (F_GLOBAL, F_LOCAL[:, :7], DSAP), r"f_local must be floating \(4, 8, 6\)"),
        (
            "both",
            (F_GLOBAL, F_LOCAL, DSAP[:, :8]),
            r"dsap must be floating \(4, 24, 3, S, S\), not .* \[4, 8,",
        ),
        ("both", (F_GLOBAL, F_LOCAL, DSAP[:2]), r"dsap must be floating \(4, 24, 3, S, S\), not .* \[2, 24,"),
        ("both", (F_GLOBAL, F_LOCAL, DSAP[..., 1:]), r"dsap must be .*\[4, 24, 3, 8, 7\]"),
        ("both", (F_GLOBAL, F_LOCAL, DSAP.flatten(1, 2)), r"dsap must be .*\[4, 72, 8, 8\]"),
        ("both", (F_GLOBAL, F_LOCAL, DSAP.to(torch.uint8)), r"dsap must be floating .* not uint8"),
    ],
)
def test_wrong_inputs(branches, given, message):
    with pytest.raises(ValueError, match=message):
        new(branches)(*given)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"global_size": None, "local_size": None}, "nothing to guide"),
        ({"global_size": 0}, "global_size must be at least 1, or None, not 0"),
        ({"local_size": -4}, "local_size must be at least 1, or None, not -4"),
        ({"guidance": "pool"}, "guidance must be one of add, gate, concat, distill, not 'pool'"),
        ({"guidance": "sum"}, "guidance must be one of add, gate, concat, distill, not 'sum'"),
        ({"classifier_kind": "linear"}, "classifier_kind must be one of two-layer, batchnorm, bnneck"),
        ({"width": 1 / 33}, "width must be at least 1/32"),
        ({"width": float("nan")}, "width must be"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        new(**options)


def test_wrong_number_of_identities():
    with pytest.raises(ValueError, match="num_classes must be at least 1, not 0"):
        Guide(0, global_size=4)
