"""merge_parts against its torch twin."""

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


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("level,parts,groups", LEVELS)
@pytest.mark.parametrize("inner", [(), (1,), (7,), (8,), (5, 3, 3), (64, 16, 16)], ids=str)
def test_same_bits(device, dtype, level, parts, groups, inner):
    features = make(parts, *inner, dtype=dtype)
    merged = merge_parts(features.to(device), level)
    assert merged.shape == (2, groups, *inner) and merged.dtype == dtype
    assert torch.equal(merged.cpu(), _merge_parts(features, level))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("level,parts,groups", LEVELS)
def test_gradient(device, dtype, level, parts, groups):
    features = make(parts, 5, 3, dtype=dtype).to(device).requires_grad_()
    twin = features.detach().cpu().clone().requires_grad_()
    weight = make(groups, 5, 3, dtype=dtype)
    merge_parts(features, level).backward(weight.to(device))
    _merge_parts(twin, level).backward(weight)
    assert torch.equal(features.grad.cpu(), twin.grad)


@pytest.mark.parametrize("level,parts,groups", LEVELS)
def test_second_gradient(level, parts, groups):
    features = make(parts, 3).requires_grad_()
    first = torch.autograd.grad(
        merge_parts(features, level).square().sum(), features, create_graph=True
    )[0]
    (second,) = torch.autograd.grad(first.sum(), features)
    twin = features.detach().clone().requires_grad_()
    first = torch.autograd.grad(
        _merge_parts(twin, level).square().sum(), twin, create_graph=True
    )[0]
    (expected,) = torch.autograd.grad(first.sum(), twin)
    torch.testing.assert_close(second, expected)


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
        (TypeError, "torch.Tensor", make(24, 2).numpy(), "mirror"),
        (TypeError, "features must be float32", make(24, 2).double(), "mirror"),
        (TypeError, "features must be float32", make(24, 2).int(), "mirror"),
    ],
)
def test_bad_input(error, words, features, level):
    with pytest.raises(error, match=words):
        merge_parts(features, level)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("front_back", [False, True])
def test_opcheck(device, front_back):
    parts, groups = (13, 8) if front_back else (24, 13)
    features = make(parts, 4).to(device).requires_grad_()
    torch.library.opcheck(torch.ops.dsa_ext.merge_parts.default, (features, front_back))
    merged = make(groups, 4).to(device).requires_grad_()
    torch.library.opcheck(torch.ops.dsa_ext.expand_parts.default, (merged, front_back))


def test_compile_fullgraph():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(features):
        return merge_parts(merge_parts(features.relu(), "mirror"), "front_back").sum((1, 2))

    features = make(24, 4, 4).requires_grad_()
    result = step(features)
    expected = _merge_parts(_merge_parts(features.relu(), "mirror"), "front_back").sum((1, 2))
    torch.testing.assert_close(result, expected)
    (grad,) = torch.autograd.grad(result.sum(), features)
    (wanted,) = torch.autograd.grad(expected.sum(), features)
    torch.testing.assert_close(grad, wanted)
