"""The evaluation rules, read literally: one query at a time, by sorting."""

import numpy as np


def literal_rank(
    query_features,
    gallery_features,
    query_ids,
    gallery_ids,
    query_cams,
    gallery_cams,
    max_rank=50,
):
    """Takes tensors as `rank` does; returns (mAP, cmc, ap, counted queries)."""
    query, gallery = query_features.double().numpy(), gallery_features.double().numpy()
    distances = [literal_distances(features, gallery) for features in query]
    labels = query_ids, gallery_ids, query_cams, gallery_cams
    return literal_rank_distances(distances, *labels, max_rank)


def literal_rank_distances(distances, query_ids, gallery_ids, query_cams, gallery_cams, max_rank=50):
    """Takes a row of distances per query and tensors of labels."""
    ids, cams = gallery_ids.numpy(), gallery_cams.numpy()
    curves, aps, counted = [], [], []
    for i, row in enumerate(np.asarray(distances)):
        identity, camera = query_ids[i].item(), query_cams[i].item()
        hits = ids[literal_order(row, identity, ids, camera, cams)] == identity
        if not hits.any():
            continue
        counted.append(i)
        curve = np.minimum(hits.cumsum(), 1)[:max_rank].astype(float)
        curves.append(np.concatenate([curve, np.full(max_rank - len(curve), curve[-1])]))
        aps.append(literal_ap(hits))
    return np.mean(aps), np.mean(curves, axis=0), np.array(aps), counted


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
