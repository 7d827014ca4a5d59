"""TPR over pairs, against thresholds that are tried one by one."""

import math

import pytest
import torch

from dsareid.evaluation import FeatureDistances, Labels, Ranking, k_reciprocal
from dsareid.evaluation.verification import PairCounts


def scene(seed=0, queries=40, gallery=300, people=12):
    draw = torch.Generator().manual_seed(seed)
    ids, other = (torch.randint(0, people, (n,), generator=draw) for n in (queries, gallery))
    cams, cameras = (torch.randint(0, 3, (n,), generator=draw) for n in (queries, gallery))
    centres = torch.randn(people, 16, generator=draw)
    features = [centres[x] + torch.randn(len(x), 16, generator=draw) for x in (ids, other)]
    return *features, Labels(ids, other, cams, cameras)


def tried(distances, labels, rate):
    """The best TPR of a threshold with at most so many false positives."""
    same = labels.query_ids[:, None] == labels.gallery_ids
    junk = same & (labels.query_cams[:, None] == labels.gallery_cams)
    right, wrong = distances[same & ~junk], distances[~same].sort().values
    return float((right < wrong[int(rate * len(wrong))]).double().mean())


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: 1e6 * x,
        lambda x: -1 / (1 + x),  # the negative of a similarity
        lambda x: torch.where(x == x.max(), 1e12, x),  # one that is far away
        lambda x: 1e-6 * x.double(),
    ],
)
def test_distances_of_any_size(change):
    """Only their order between pairs matters, as far as a 4,096th of them tells it."""
    query, gallery, labels = scene()
    distances = change(torch.cdist(query, gallery).square())
    found = Ranking(distances, labels).result(rates=(0.1, 0.01)).tpr
    for rate, share in found.items():
        assert tried(distances, labels, rate) - 0.02 <= share <= tried(distances, labels, rate) + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_features(seed):
    """Distances are compared between queries, though rows of FeatureDistances lack the queries' squares."""
    query, gallery, labels = scene(seed)
    query *= torch.linspace(0.5, 2, len(query))[:, None]
    distances = torch.cdist(query, gallery).square()
    found = Ranking(FeatureDistances(query, gallery), labels).result(rates=(0.1, 0.01, 0.001))
    for rate, share in found.tpr.items():
        assert tried(distances, labels, rate) - 2e-3 <= share <= tried(distances, labels, rate) + 1e-12
    again = Ranking(distances, labels).result(rates=(0.1,))
    assert again.tpr[0.1] == pytest.approx(found.tpr[0.1], abs=2e-3)
    assert Ranking(distances, labels).result().tpr == {}


def test_removed_images_and_infinity_are_no_pairs():
    query, gallery, labels = scene()
    removed = torch.zeros(len(gallery), dtype=torch.bool)
    removed[::5] = True
    kept = Labels(
        labels.query_ids, labels.gallery_ids[~removed], labels.query_cams, labels.gallery_cams[~removed]
    )
    expected = Ranking(FeatureDistances(query, gallery[~removed]), kept).result(rates=(0.01,)).tpr
    found = Ranking(FeatureDistances(query, gallery, removed=removed), labels).result(rates=(0.01,)).tpr
    assert found[0.01] == pytest.approx(expected[0.01], abs=1e-3)
    distances = torch.full((len(query), len(gallery)), torch.inf)
    assert Ranking(distances, labels).result(rates=(0.5,)).tpr == {0.5: 0}


def test_reranked_distances():
    query, gallery, labels = scene()
    ranking = Ranking(k_reciprocal(query, gallery, k1=5, k2=3), labels)
    matrix = torch.cat([ranking.distances.rows(k, k + 1).clone() for k in range(len(query))])
    found = ranking.result(rates=(0.01,)).tpr[0.01]
    assert tried(matrix, labels, 0.01) - 5e-3 <= found <= tried(matrix, labels, 0.01)


def test_a_tile_after_the_other():
    draw = torch.Generator().manual_seed(0)
    distances = 4 * torch.rand(6, 50, generator=draw)
    at = torch.stack([torch.arange(6), torch.arange(6) * 3], 1)
    whole, parts = PairCounts(distances.device), PairCounts(distances.device)
    whole.add(distances, at[:4], at[4:], 0)
    for rows, same, junk in (
        (slice(0, 4), at[:4], at[:0]),
        (slice(4, 6), at[:0], at[4:] - torch.tensor([4, 0])),
    ):
        parts.add(distances[rows], same, junk, 0)
    assert torch.equal(whole.same, parts.same) and torch.equal(whole.other, parts.other)
    assert int(whole.same.sum()) == 4 and int(whole.other.sum()) == 6 * 50 - 6
    assert whole.shares([1.0]) == [1.0]


def test_no_pairs_of_either():
    counts = PairCounts(torch.device("cpu"))
    assert all(map(math.isnan, counts.shares([0.01, 0.001])))
    counts.add(
        torch.zeros(2, 3), torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.int64), 0
    )
    assert math.isnan(counts.shares([0.1])[0])
