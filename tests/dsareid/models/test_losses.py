import torch
import torch.nn.functional as F

from dsareid.models import DSAReID
from dsareid.models.losses import batch_hard_triplet, distillation, losses
from dsareid.models.options import LossConfig

SMALL = {"width": 1 / 8, "head_width": 1 / 8, "depths": (1, 1, 1, 1)}


def test_batch_hard_triplet_against_a_literal_loop():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(12, 7, generator=generator)
    label = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    distance = torch.cdist(features, features)
    terms = []
    for anchor in range(12):
        positive = max(distance[anchor, k] for k in range(12) if label[k] == label[anchor])
        negative = min(distance[anchor, k] for k in range(12) if label[k] != label[anchor])
        terms.append(max(0.0, float(positive - negative) + 0.3))
    expected = torch.tensor(terms).mean()
    torch.testing.assert_close(batch_hard_triplet(features, label, 0.3), expected)


def test_equal_features_have_a_finite_gradient():
    features = torch.ones(4, 3, requires_grad=True)
    loss = batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]), 0.3)
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(0.3))
    assert features.grad.isfinite().all()


def test_weights_are_the_papers():
    torch.manual_seed(0)
    model = DSAReID(3, **SMALL)
    out = model(torch.randn(4, 3, 64, 32), torch.randn(4, 24, 3, 8, 8))
    label = torch.tensor([0, 0, 1, 1])
    terms = losses(out, label, LossConfig())

    def identity(logits):
        return F.cross_entropy(logits, label, label_smoothing=0.1)

    eight = sum(identity(x) for x in out.logits.f_local.unbind(1)) / 8
    expected = {
        "id_f_global": 0.5 * identity(out.logits.f_global),
        "id_f_local": 0.5 * eight,
        "id_z_global": identity(out.logits.z_global),
        "id_z_local": identity(out.logits.z_local),
        "triplet_z_global": 1.5 * batch_hard_triplet(out.z.global_, label, 0.3),
        "triplet_z_local": 1.5 * batch_hard_triplet(out.z.local.flatten(1), label, 0.3),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)


def test_without_a_guide_the_losses_on_z_act_on_f():
    model = DSAReID(3, streams="mf", **SMALL)
    out = model(torch.randn(4, 3, 64, 32))
    terms = losses(out, torch.tensor([0, 0, 1, 1]), LossConfig())
    triplet = batch_hard_triplet(out.f.global_, torch.tensor([0, 0, 1, 1]), 0.3)
    torch.testing.assert_close(terms["triplet_z_global"], 1.5 * triplet)


def test_distillation_is_the_divergence_of_softened_scores():
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64).unbind()
    soft, ours = (F.softmax(x / 4, 1) for x in (teacher, student))
    expected = 16 * (soft * (soft / ours).log()).sum(1).mean()
    found = distillation(student, teacher, 4)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert distillation(teacher, teacher, 4).abs() < 1e-6


def test_a_guide_teaches_only_after_the_warm_up_and_learns_nothing_from_it():
    model = DSAReID(3, **SMALL, guidance="distill")
    out = model(torch.randn(4, 3, 64, 32), torch.randn(4, 24, 3, 8, 8))
    label = torch.tensor([0, 0, 1, 1])
    before, after = (losses(out, label, LossConfig(), teaching) for teaching in (False, True))
    assert after.keys() - before.keys() == {"distill_global", "distill_local"}
    assert {"id_d_global", "triplet_d_global", "id_d_local", "triplet_d_local"} <= before.keys()
    torch.testing.assert_close(
        before["triplet_d_local"], 1.5 * batch_hard_triplet(out.d.local.flatten(1), label, 0.3)
    )
    (after["distill_global"] + after["distill_local"]).backward()
    assert all(p.grad is None for p in model.dsag.parameters())
    assert all(p.grad is None for p in model.classify_d_global.parameters())
    assert model.mf.trunk.conv1.weight.grad.any() and model.classify_z_local[-1].weight.grad.any()
