"""TPIR at FPIR, against thresholds that are tried one by one."""

import math

import numpy as np
import pytest
import torch

from dsareid.evaluation import FeatureDistances, Labels, Ranking
from dsareid.evaluation.bootstrap import interval
from dsareid.evaluation.open_set import OpenSet


def scene(seed, queries=50, gallery=200, people=15):
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, people, (queries,), generator=draw)
    others = torch.randint(2, people, (gallery,), generator=draw)  # the first two people are not in it
    cams, cameras = (torch.randint(0, 3, (n,), generator=draw) for n in (queries, gallery))
    centres = torch.randn(people, 16, generator=draw, dtype=torch.float64)
    noise = [torch.randn(len(x), 16, generator=draw, dtype=torch.float64) for x in (ids, others)]
    return centres[ids] + noise[0], centres[others] + noise[1], Labels(ids, others, cams, cameras)


def nearest_two(distances, labels):
    """The nearest match and the nearest image of anybody else, query by query."""
    mates, others = [], []
    for query, row in enumerate(distances):
        same = labels.gallery_ids == labels.query_ids[query]
        match = same & (labels.gallery_cams != labels.query_cams[query])
        mates.append(float(row[match].min()) if match.any() else math.inf)
        others.append(float(row[~same].min()))
    return mates, others


def tried(mates, others, rate):
    """The best TPIR of a threshold that accepts at most that share of the unknown."""
    best = 0.0
    for limit in [0.0, *others, math.inf]:
        if sum(other < limit for other in others) <= rate * len(others):
            right = sum(mate < limit and mate < other for mate, other in zip(mates, others))
            best = max(best, right / sum(math.isfinite(mate) for mate in mates))
    return best


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_every_threshold_tried(seed, rate):
    query, gallery, labels = scene(seed)
    distances = torch.cdist(query, gallery).square()
    mates, others = nearest_two(distances, labels)
    assert math.inf in mates  # the case has people whom the gallery lacks
    found = Ranking(distances, labels).result(open_set=True).open_set
    assert found.mate.tolist() == pytest.approx(mates) and found.other.tolist() == pytest.approx(others)
    once = np.ones((1, len(query)), np.int64)
    assert float(found.tpir(rate)(once)[0]) == pytest.approx(tried(mates, others, rate))


def test_features_as_distances():
    """Rows of FeatureDistances lack the query's square; removed images are nobody."""
    query, gallery, labels = scene(1)
    query *= torch.linspace(0.5, 2, len(query))[:, None]
    removed = torch.zeros(len(gallery), dtype=torch.bool)
    removed[::4] = True
    kept = Labels(
        labels.query_ids, labels.gallery_ids[~removed], labels.query_cams, labels.gallery_cams[~removed]
    )
    expected = Ranking(torch.cdist(query, gallery[~removed]).square(), kept).result(open_set=True).open_set
    found = Ranking(FeatureDistances(query, gallery, removed), labels).result(open_set=True).open_set
    assert torch.allclose(found.mate, expected.mate) and torch.allclose(found.other, expected.other)
    assert Ranking(FeatureDistances(query, gallery), labels).result().open_set is None


def test_distances_are_only_read():
    query, gallery, labels = scene(2)
    distances = torch.cdist(query, gallery)
    before = distances.clone()
    Ranking(distances, labels).result(open_set=True)
    assert torch.equal(distances, before)


def test_a_sample_has_its_own_threshold():
    """Weighing queries is the same as repeating them."""
    query, gallery, labels = scene(3)
    found = Ranking(torch.cdist(query, gallery), labels).result(open_set=True).open_set
    weights = np.random.default_rng(0).integers(0, 4, len(query))
    repeated = torch.from_numpy(np.repeat(np.arange(len(query)), weights))
    again = OpenSet(found.mate[repeated], found.other[repeated])
    once = np.ones((1, len(repeated)), np.int64)
    for rate in (0.05, 0.2):
        assert found.tpir(rate)(weights[None]) == pytest.approx(again.tpir(rate)(once))


def test_too_few_queries_to_say():
    found = OpenSet(torch.tensor([1.0, 2.0]).double(), torch.tensor([3.0, 4.0]).double())
    value, low, high = interval(found.tpir(0.1), np.array([1, 2]))
    assert math.isnan(value) and math.isnan(low) and math.isnan(high)
    assert interval(found.tpir(0.5), np.array([1, 2])).value == 1.0


def test_a_tie_is_not_found():
    """Somebody else is as near: which of the two comes first says nothing."""
    found = OpenSet(torch.tensor([1.0] * 4).double(), torch.tensor([1.0, 2.0, 2.0, 2.0]).double())
    assert interval(found.tpir(0.25), np.arange(4)).value == 0.75
