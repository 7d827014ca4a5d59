"""One convolution per branch in every form: the same results and gradients, up to rounding."""

import itertools

import pytest
import torch

from dsareid.models import branch
from dsareid.models.branch import BranchConv2d
from dsareid.models.branch_forms import FORMS, in_training, joined

# branches, inputs, outputs, kernel, stride
LAYERS = [
    (24, 3, 4, 5, 1),
    (24, 4, 8, 3, 1),
    (24, 8, 8, 3, 2),
    (13, 8, 16, 1, 2),
    (13, 2, 3, 3, 2),
    (8, 4, 6, 1, 1),
]


def results(compute, layer, channels_last=False):
    """Output and gradients."""
    draw = torch.Generator().manual_seed(0)
    branches, inputs, outputs, kernel, stride = layer
    x = torch.randn(2, branches * inputs, 9, 8, generator=draw)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(branches * outputs, inputs, kernel, kernel, generator=draw)
    x.requires_grad_(), weight.requires_grad_()
    y = compute(x, weight, branches, stride)
    return y, *torch.autograd.grad(y.square().sum(), (x, weight))


def looped(x, weight, branches, stride):
    """A convolution for each branch by itself."""
    parts = zip(x.chunk(branches, 1), weight.chunk(branches))
    pad = weight.shape[2] // 2
    return torch.cat([torch.nn.functional.conv2d(a, w, stride=stride, padding=pad) for a, w in parts], 1)


@pytest.mark.parametrize("form", [*FORMS.values(), in_training], ids=[*FORMS, "in training"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_every_form_computes_each_branch_by_itself(form, layer):
    expected = results(looped, layer)
    for channels_last in (False, True):
        for got, wanted in zip(results(form, layer, channels_last), expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_the_colours_of_several_parts_share_a_group_on_a_cpu(monkeypatch):
    asked, original = [], torch.nn.functional.conv2d

    def record(*arguments, groups, **options):
        asked.append(groups)
        return original(*arguments, groups=groups, **options)

    monkeypatch.setattr(torch.nn.functional, "conv2d", record)
    for outputs in (4, 6, 32):
        results(in_training, (24, 3, outputs, 5, 1))
    assert asked == [6, 12, 24]  # of 16, 12 and 32 outputs


@pytest.mark.parametrize("join", [2, 3, 24])
def test_what_is_beside_the_diagonal_does_nothing(join):
    layer = (24, 3, 2, 3, 1)
    for got, wanted in zip(results(lambda *x: joined(*x, join=join), layer), results(looped, layer)):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-3)


def test_a_layer_takes_its_form_in_training_alone(monkeypatch):
    """An export holds a plain grouped convolution."""
    layer, x, seen = BranchConv2d(4, 2, 3, 3), torch.randn(1, 8, 5, 5), []
    forms = {"grouped": FORMS["grouped"], "pairs": lambda *x: seen.append("pairs") or FORMS["pairs"](*x)}
    monkeypatch.setattr(branch, "FORMS", forms)
    for form, training in itertools.product((None, "grouped", "pairs"), (True, False)):
        layer.form = form
        layer.train(training)(x)
    assert seen == ["pairs"]
