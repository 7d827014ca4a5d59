"""The evaluation rules, read literally: one query at a time, by sorting; and random cases to try them on."""

import numpy as np
import pytest
import torch

from dsareid.evaluation import rank


def literal_rank(
    query_features,
    gallery_features,
    query_ids,
    gallery_ids,
    query_cams,
    gallery_cams,
    max_rank=50,
):
    """Takes tensors as `rank` does; returns (mAP, cmc, ap, counted queries, inp, places of first matches)."""
    query, gallery = query_features.double().numpy(), gallery_features.double().numpy()
    distances = [literal_distances(features, gallery) for features in query]
    labels = query_ids, gallery_ids, query_cams, gallery_cams
    return literal_rank_distances(distances, *labels, max_rank)


def literal_rank_distances(distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank=50):
    """Takes a row of distances per query and tensors of labels."""
    ids, cams = gallery_ids.numpy(), gallery_cams.numpy()
    curves, aps, counted, penalties, first = [], [], [], [], []
    for i, row in enumerate(np.asarray(distances)):
        identity, camera = query_ids[i].item(), query_cams[i].item()
        hits = ids[literal_order(row, identity, ids, camera, cams)] == identity
        if not hits.any():
            continue
        counted.append(i)
        curve = np.minimum(hits.cumsum(), 1)[:max_rank].astype(float)
        curves.append(np.concatenate([curve, np.full(max_rank - len(curve), curve[-1])]))
        aps.append(literal_ap(hits))
        places = 1 + np.flatnonzero(hits)
        penalties.append(len(places) / places[-1])
        first.append(places[0])
    return np.mean(aps), np.mean(curves, axis=0), np.array(aps), counted, penalties, first


def literal_distances(query, gallery):
    """Squared, of one query."""
    return ((gallery - query) ** 2).sum(1)


def literal_order(distances, query_id, ids, query_cam, cams):
    """The kept gallery indices, nearest first, equal distances in the gallery's order."""
    order = np.argsort(distances, kind="stable")
    junk = (ids[order] == query_id) & (cams[order] == query_cam)
    return order[~junk]


def literal_ap(hits):
    found, total = 0, 0.0
    for place, hit in enumerate(hits, start=1):
        if hit:
            found += 1
            total += found / place
    return total / found


CASES = {
    "plain": dict(queries=40, gallery=200, ids=20, cams=4),
    "gallery shorter than max_rank": dict(queries=30, gallery=12, ids=4, cams=3),
    "queries without a match": dict(queries=60, gallery=50, ids=40, cams=2),
    "single query": dict(queries=1, gallery=80, ids=3, cams=2),
    "one identity": dict(queries=10, gallery=60, ids=1, cams=3),
    "query camera absent": dict(queries=20, gallery=60, ids=5, cams=1, query_cam=7),
    "many distractors of id 0": dict(queries=30, gallery=150, ids=8, cams=3, zeros=100),
}


def make_case(seed, queries, gallery, ids, cams, values="float", query_cam=None, zeros=0):
    """Random arguments of `rank`. Whole numbers from a small range make ties everywhere."""
    draw = torch.Generator().manual_seed(seed)

    def features(count):
        if values == "integer":
            return torch.randint(-1, 2, (count, 4), generator=draw).float()
        return torch.randn(count, 16, generator=draw)

    def labels(high, count):
        return torch.randint(0, high, (count,), generator=draw)

    gallery_ids = labels(ids, gallery)
    gallery_ids[:zeros] = 0
    query_cams = labels(cams, queries)
    if query_cam is not None:
        query_cams[:] = query_cam
    return (
        features(queries),
        features(gallery),
        labels(ids, queries),
        gallery_ids,
        query_cams,
        labels(cams, gallery),
    )


def assert_equal_to_literal(case, max_rank=50, form=None):
    """A ranking and the literal one of the same arguments agree; form: the two functions."""
    function, literal = form or (rank, literal_rank)
    result = function(*case, max_rank=max_rank)
    mean, cmc, ap, counted, penalties, first = literal(*case, max_rank=max_rank)
    assert result.queries.tolist() == counted
    assert result.skipped == len(case[0]) - len(counted)
    assert result.cmc.shape == (max_rank,)
    np.testing.assert_allclose(result.ap.numpy(), ap, rtol=1e-12)
    np.testing.assert_allclose(result.cmc.numpy(), cmc, rtol=1e-12)
    assert result.mAP == pytest.approx(mean, rel=1e-12)
    np.testing.assert_allclose(result.inp.numpy(), penalties, rtol=1e-12)
    assert result.first.tolist() == first and result.mINP == pytest.approx(np.mean(penalties))
