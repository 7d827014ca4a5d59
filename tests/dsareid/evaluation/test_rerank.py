"""k_reciprocal against the paper's definition, read literally with dense matrices and sets."""

import numpy as np
import pytest
import torch
from ranking_reference import literal_rank_distances

from dsareid.evaluation import Labels, Ranking, k_reciprocal, rank, rerank
from dsareid.evaluation import distances as distances_module


def literal_k_reciprocal(query, gallery, k1=20, k2=6, lambda_=0.3):
    """Final distances [Q, G], from the definition: sets in Python, everything else dense."""
    images = np.concatenate([query, gallery]).astype(np.float64)
    count = len(images)
    d = np.stack([((images - image) ** 2).sum(1) for image in images])
    d = np.stack([row / (row.max() or 1) for row in d])
    order = [[p, *(g for g in np.argsort(d[p], kind="stable") if g != p)] for p in range(count)]

    def reciprocal(p, k):
        return {g for g in order[p][: k + 1] if p in order[g][: k + 1]}

    v = np.zeros((count, count))
    for p in range(count):
        members = set(reciprocal(p, k1))
        for q in reciprocal(p, k1):
            others = reciprocal(q, round(k1 / 2))
            if 3 * len(reciprocal(p, k1) & others) >= 2 * len(others):
                members |= others
        for g in members:
            v[p, g] = np.exp(-d[p, g])
        v[p] /= v[p].sum()
    v = np.stack([v[order[p][:k2]].mean(0) for p in range(count)])
    final = np.empty((len(query), len(gallery)))
    for p in range(len(query)):
        for g in range(len(gallery)):
            one, other = v[p], v[len(query) + g]
            jaccard = 1 - np.minimum(one, other).sum() / np.maximum(one, other).sum()
            final[p, g] = (1 - lambda_) * jaccard + lambda_ * d[p, len(query) + g]
    return final


def make_features(seed, queries, gallery, copies=0, values="clusters", identities=8):
    """Query and gallery features, float32, and labels; features of an identity lie together."""
    draw = torch.Generator().manual_seed(seed)
    ids = [torch.randint(0, identities, (n,), generator=draw) for n in (queries, gallery)]
    cams = [torch.randint(0, 3, (n,), generator=draw) for n in (queries, gallery)]
    centres = torch.randn(identities, 12, generator=draw)
    features = [centres[x] + 0.8 * torch.randn(len(x), 12, generator=draw) for x in ids]
    if values == "whole numbers":
        features = [(2 * x).round() for x in features]
    if values == "equal":
        features = [torch.ones_like(x) for x in features]
    features[1][:copies] = features[1][-1]
    if copies:
        features[0][0] = features[1][-1]
    return features, [*ids, *cams]


CASES = {
    "plain": (dict(queries=12, gallery=60), {}),
    "small k": (dict(queries=12, gallery=60), dict(k1=5, k2=3)),
    "odd k1, no expansion": (dict(queries=12, gallery=60), dict(k1=7, k2=1)),
    "k1 of 1": (dict(queries=9, gallery=30), dict(k1=1, k2=2)),
    "k1 larger than the gallery": (dict(queries=5, gallery=10), dict(k1=40)),
    "k2 larger than k1": (dict(queries=9, gallery=40), dict(k1=3, k2=9)),
    "k2 larger than the gallery": (dict(queries=4, gallery=8), dict(k1=3, k2=50)),
    "copies": (dict(queries=12, gallery=60, copies=40), dict(k1=10)),
    "whole numbers": (dict(queries=12, gallery=60, values="whole numbers"), dict(k1=8)),
    "all equal": (dict(queries=4, gallery=20, values="equal"), dict(k1=6)),
    "one query": (dict(queries=1, gallery=50), {}),
    "one of each": (dict(queries=1, gallery=1), {}),
    "lambda 0": (dict(queries=8, gallery=40), dict(lambda_=0)),
    "lambda 1": (dict(queries=8, gallery=40), dict(lambda_=1)),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("parts", ["whole", "in small parts"])
def test_equals_the_definition(name, parts, monkeypatch):
    if parts != "whole":
        for constant in ("_BLOCK", "_PAIRS", "_TOGETHER"):
            monkeypatch.setattr(rerank, constant, 7)
        monkeypatch.setattr(distances_module, "_TILE_BYTES", 8 * 3 * 70)  # tiles of some rows
    sizes, options = CASES[name]
    (query, gallery), labels = make_features(1, **sizes)
    expected = literal_k_reciprocal(query.numpy(), gallery.numpy(), **options)
    found = k_reciprocal(query, gallery, **options)
    assert found.shape == expected.shape
    rows = [found.rows(start, min(start + 5, len(query))).clone() for start in range(0, len(query), 5)]
    np.testing.assert_allclose(torch.cat(rows).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_ranking(seed):
    (query, gallery), labels = make_features(seed, 30, 120)
    expected = literal_k_reciprocal(query.numpy(), gallery.numpy())
    mean, cmc, ap, counted, *_ = literal_rank_distances(expected, *labels)
    result = Ranking(k_reciprocal(query, gallery), Labels(*labels)).result()
    assert result.mAP == pytest.approx(mean, rel=1e-12) and result.queries.tolist() == counted
    np.testing.assert_allclose(result.cmc.numpy(), cmc, rtol=1e-12)
    assert result.mAP != rank(query, gallery, *labels).mAP


def test_single_precision_is_near_the_definition(monkeypatch):
    monkeypatch.setattr(distances_module, "SMALL_PRODUCT", 0)
    (query, gallery), _ = make_features(5, 12, 60)
    expected = literal_k_reciprocal(query.numpy(), gallery.numpy())
    found = k_reciprocal(query, gallery)
    assert found.distances.dtype == torch.float32
    np.testing.assert_allclose(found.rows(0, 12).numpy(), expected, rtol=0, atol=1e-6)


def test_mapped_and_half_features(tmp_path):
    (query, gallery), _ = make_features(6, 12, 60)
    query, gallery = query.half(), gallery.half()
    expected = k_reciprocal(query.float(), gallery.float()).rows(0, 12)
    assert torch.equal(k_reciprocal(query, gallery).rows(0, 12), expected)
    for name, features in (("query", query), ("gallery", gallery)):
        np.save(tmp_path / f"{name}.npy", features.float().numpy())
    mapped = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("query", "gallery")]
    assert torch.equal(k_reciprocal(*mapped).rows(0, 12), expected)


def test_rank_lists_are_of_the_final_distances():
    (query, gallery), labels = make_features(7, 10, 50)
    distances = k_reciprocal(query, gallery)
    expected = literal_k_reciprocal(query.numpy(), gallery.numpy())
    lists = Ranking(distances, Labels(*labels)).top(torch.tensor([4, 0]), count=8)
    query_ids, ids, query_cams, cams = labels
    for i, (places, near) in zip((4, 0), lists):
        junk = (ids == query_ids[i]) & (cams == query_cams[i])
        order = [g for g in np.argsort(expected[i], kind="stable") if not junk[g]]
        assert places.tolist() == order[:8]
        np.testing.assert_allclose(near.numpy(), expected[i][order[:8]], atol=1e-12)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(k1=0), "k1 must be"),
        (dict(k1=-3), "k1 must be"),
        (dict(k2=0), "k2 must be"),
        (dict(k1=2.5), "k1 must be"),
        (dict(lambda_=1.1), "lambda_ must be"),
        (dict(lambda_=float("nan")), "lambda_ must be"),
        (dict(lambda_="a"), "lambda_ must be"),
        (dict(query=torch.randn(4, 3)), "gallery_features must have the dimensions"),
        (dict(gallery=torch.full((9, 5), torch.nan)), "gallery_features holds NaN"),
        (dict(query=[[1.0]]), "query_features must be"),
    ],
)
def test_errors_name_the_argument(change, message):
    arguments = dict(query=torch.randn(4, 5), gallery=torch.randn(9, 5)) | change
    with pytest.raises(ValueError, match=message):
        k_reciprocal(**arguments)
