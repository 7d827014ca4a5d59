"""smallest against a stable sort, and nearest: exact, in blocks."""

import numpy as np
import pytest
import torch

from dsareid.evaluation import nearest as nearest_module
from dsareid.evaluation.nearest import nearest, smallest
from dsareid.ground.errors import DSAError


@pytest.mark.parametrize("count", [1, 2, 7, 40, 1000])
@pytest.mark.parametrize("values", ["float", "few and infinite", "equal", "zeros of both signs"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_smallest_is_the_head_of_a_stable_sort(values, count, dtype):
    draw = torch.Generator().manual_seed(count)
    rows = {
        "float": lambda: torch.randn(30, 40, generator=draw, dtype=dtype),
        "few and infinite": lambda: torch.tensor([-torch.inf, 0, 1, torch.inf], dtype=dtype)[
            torch.randint(0, 4, (30, 40), generator=draw)
        ],
        "equal": lambda: torch.ones(3, 40, dtype=dtype),
        "zeros of both signs": lambda: torch.randint(-1, 1, (30, 40), generator=draw).to(dtype) * 0.0,
    }[values]()
    before = rows.clone()
    found = smallest(rows, count)
    expected = rows.sort(dim=1, stable=True)
    assert torch.equal(found[0], expected.values[:, :count])
    assert torch.equal(found[1], expected.indices[:, :count])
    assert torch.equal(rows, before)


def literal(query, gallery, count):
    """float64 distances and rows, by a stable sort of all."""
    difference = query.double()[:, None] - torch.from_numpy(np.array(gallery)).double()
    order = difference.square().sum(2).sqrt().sort(dim=1, stable=True)
    return order.values[:, :count], order.indices[:, :count]


@pytest.mark.parametrize("rows", [1, 7, 64, 1000])
@pytest.mark.parametrize("kind", ["ties", "close", "far", "one"])
def test_nearest_is_exact_in_blocks(monkeypatch, rows, kind):
    rng = np.random.default_rng(rows)
    size = 1 if kind == "one" else 300
    gallery = {
        "ties": lambda: rng.integers(0, 2, (300, 5)).astype(np.float32),
        "close": lambda: (1000 + 1e-3 * rng.standard_normal((300, 40))).astype(np.float32),
        "far": lambda: rng.standard_normal((300, 512)).astype(np.float32),
        "one": lambda: rng.standard_normal((1, 8)).astype(np.float32),
    }[kind]()
    query = torch.from_numpy(gallery[rng.integers(0, size, 9)])
    monkeypatch.setattr(nearest_module, "_BLOCK_BYTES", 4 * rows * gallery.shape[1])
    for count in (1, 10, 500):
        distances, places = nearest(query, gallery, count)
        expected = literal(query, gallery, count)
        assert torch.equal(places, expected[1])
        torch.testing.assert_close(distances, expected[0], rtol=0, atol=1e-12)


def test_features_that_are_not_finite():
    gallery = np.ones((6, 3), np.float32)
    gallery[4, 1] = np.nan
    with pytest.raises(DSAError, match="row 4 of the gallery"):
        nearest(torch.zeros(2, 3), gallery, 2)
