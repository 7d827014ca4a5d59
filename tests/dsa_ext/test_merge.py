"""merge_parts: what it refuses, NaN, second gradients; test_operations.py has the odd cases."""

import pytest
import torch

from dsa_ext import merge_parts
from dsa_ext.merge import _merge_parts

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
LEVELS = [("mirror", 24, 13), ("front_back", 13, 8)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def make(parts, *inner, dtype=torch.float32, batch=2):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, parts, *inner, generator=generator).to(dtype)


FORMS = [(False, False), (True, False), (False, True), (True, True)]  # residual, relu
forms = pytest.mark.parametrize(
    "with_residual,relu", FORMS, ids=["plain", "residual", "relu", "residual and relu"]
)


def make_residual(features, wanted):
    return features.flip(0, 1) * 0.75 if wanted else None


@forms
def test_out_is_written_and_marked_as_written(with_residual, relu):
    features = make(24, 7)
    residual = make_residual(features, with_residual)
    merged = merge_parts(features, "mirror", residual, relu)
    out = torch.full_like(merged, 7)
    version = out._version
    assert merge_parts(features, "mirror", residual, relu, out) is out
    assert torch.equal(out, merged) and out._version > version


def gradients(function, features, residual, weight):
    leaves = [x.detach().clone().requires_grad_() for x in (features, residual) if x is not None]
    merged = function(*leaves, *([] if residual is not None else [None]))
    return torch.autograd.grad(merged, leaves, weight.to(merged))


@forms
@pytest.mark.parametrize("level,parts,groups", LEVELS)
def test_second_gradient(level, parts, groups, with_residual, relu):
    features = make(parts, 3)
    leaves = [features.double().float().requires_grad_()]
    if with_residual:
        leaves.append(make_residual(features, True).requires_grad_())

    def second(function):
        merged = function(leaves[0], level, leaves[1] if with_residual else None, relu)
        first = torch.autograd.grad(merged.square().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), leaves)

    for a, b in zip(second(merge_parts), second(_merge_parts)):
        torch.testing.assert_close(a, b)


def test_nan_stays_and_lets_gradients_pass_as_in_torch():
    features = make(24, 4)
    features[0, 3, 1] = float("nan")
    merged = merge_parts(features, "mirror", relu=True)
    assert merged.isnan().sum() == 1 and merged[0, 2, 1].isnan()
    weight = torch.ones(2, 13, 4)
    (got,) = gradients(lambda x, r: merge_parts(x, "mirror", r, True), features, None, weight)
    (expected,) = gradients(lambda x, r: _merge_parts(x, "mirror", r, True), features, None, weight)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("level,parts,groups", LEVELS)
def test_strides_and_empty(level, parts, groups):
    features = make(parts, 6, 4)
    strided = features.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(merge_parts(strided, level), merge_parts(features, level))
    assert merge_parts(features[:0], level).shape == (0, groups, 6, 4)
    assert merge_parts(features[:, :, :0], level).shape == (2, groups, 0, 4)
    odd = torch.randn(1 + 2 * parts * 8)[1:].view(2, parts, 8)  # not aligned to 16 bytes
    assert torch.equal(merge_parts(odd, level), _merge_parts(odd, level))


@pytest.mark.parametrize(
    "error,words,features,level",
    [
        (ValueError, "level must be", make(24, 2), "both"),
        (ValueError, "24", make(13, 2), "mirror"),
        (ValueError, "13", make(24, 2), "front_back"),
        (ValueError, "24", torch.randn(24), "mirror"),
        (ValueError, "level must be", make(24, 2), [24]),
        (TypeError, "torch.Tensor", [[1.0] * 24], "mirror"),
        (TypeError, "features must be float32", make(24, 2).double(), "mirror"),
        (TypeError, "features must be float32", make(24, 2).int(), "mirror"),
    ],
)
def test_bad_input(error, words, features, level):
    with pytest.raises(error, match=words):
        merge_parts(features, level)


@pytest.mark.parametrize(
    "words,arguments",
    [
        ("residual must be", {"residual": make(24, 3)}),
        ("residual must be", {"residual": make(24, 2).half()}),
        ("out must be", {"out": make(24, 2)}),
        ("out must be", {"out": make(13, 2).half()}),
        ("contiguous", {"out": make(2, 13).transpose(1, 2)}),
        ("no gradient", {"out": make(13, 2).requires_grad_()}),
    ],
)
def test_bad_residual_and_out(words, arguments):
    with pytest.raises(ValueError, match=words):
        merge_parts(make(24, 2), "mirror", **arguments)


def test_out_must_not_be_the_features_memory():
    memory = torch.randn(2 * 24 * 4)
    features = memory.view(2, 24, 4)
    with pytest.raises(ValueError, match="share memory with features"):
        merge_parts(features, "mirror", out=memory[:104].view(2, 13, 4))
    with pytest.raises(ValueError, match="share memory with residual"):
        merge_parts(make(24, 4), "mirror", residual=features, out=memory[:104].view(2, 13, 4))


def test_compile_fullgraph():
    def step(merge, features):
        merged = merge(features.relu(), "mirror", residual=features, relu=True)
        return merge(merged, "front_back").sum((1, 2))

    features = make(24, 4, 4).requires_grad_()
    result = torch.compile(step, fullgraph=True, backend="aot_eager")(merge_parts, features)
    expected = step(_merge_parts, features)
    torch.testing.assert_close(result, expected)
    (grad,) = torch.autograd.grad(result.sum(), features)
    (wanted,) = torch.autograd.grad(expected.sum(), features)
    torch.testing.assert_close(grad, wanted)
