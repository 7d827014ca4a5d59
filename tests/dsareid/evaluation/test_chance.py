"""Chance in closed form against every order there is."""

import itertools

import numpy as np
import pytest
import torch
from ranking_reference import literal_ap

from dsareid.evaluation import Labels, chance, rank


def labels(*values):
    return torch.tensor(values)


@pytest.mark.parametrize(
    "ids, cams",
    [
        ([1, 2, 2, 3], [1, 1, 1, 1]),
        ([1, 1, 2, 2, 1], [0, 1, 1, 0, 2]),  # the first is junk
        ([1, 1, 1], [1, 1, 2]),  # nothing but matches
        ([1], [1]),
        ([1, 1, 2, 2, 2, 3], [1, 1, 1, 1, 0, 1]),
    ],
)
def test_chance_is_the_mean_over_all_orders(ids, cams):
    kept = [i == 1 for i, cam in zip(ids, cams) if not (i == 1 and cam == 0)]
    orders = np.array(list(itertools.permutations(kept)))
    ap = np.mean([literal_ap(order) for order in orders])
    cmc = np.minimum(orders.cumsum(1), 1).mean(0)
    cmc = np.concatenate([cmc, np.ones(8 - len(cmc))])
    result = chance(Labels(labels(1), labels(*ids), labels(0), labels(*cams)), max_rank=8)
    assert result.mAP == pytest.approx(ap, rel=1e-12)
    np.testing.assert_allclose(result.cmc.numpy(), cmc, atol=1e-12)
    last = orders.shape[1] - orders[:, ::-1].argmax(1)  # the place of the last match in each order
    assert result.mINP == pytest.approx(np.mean(sum(kept) / last), rel=1e-12)


def test_chance_is_what_random_features_reach():
    draw = torch.Generator().manual_seed(0)
    case = [torch.randint(0, high, (n,), generator=draw) for high in (6, 3) for n in (20, 60)]
    runs = [
        rank(torch.zeros(20, 1), torch.randn(60, 1, generator=draw), *case, max_rank=20) for _ in range(200)
    ]
    expected = chance(Labels(*case), max_rank=20)
    assert expected.mAP == pytest.approx(np.mean([run.mAP for run in runs]), abs=0.02)
    assert expected.mINP == pytest.approx(np.mean([run.mINP for run in runs]), abs=0.02)
    mean = torch.stack([run.cmc for run in runs]).mean(0)
    assert torch.allclose(expected.cmc, mean, atol=0.05)


def test_chance_counts_the_queries_that_rank_counts():
    draw = torch.Generator().manual_seed(1)
    case = [torch.randint(0, high, (n,), generator=draw) for high in (40, 2) for n in (50, 30)]
    ranked = rank(torch.randn(50, 4), torch.randn(30, 4), *case)
    expected = chance(Labels(*case))
    assert torch.equal(expected.queries, ranked.queries)
    assert expected.skipped == ranked.skipped > 0


def test_chance_needs_a_match():
    with pytest.raises(ValueError, match="no query has a match"):
        chance(Labels(labels(1), labels(2), labels(0), labels(0)))
