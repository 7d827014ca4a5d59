"""dsareid rank"""

from typing import Any

import numpy as np
import torch
import tyro
from torch import Tensor

from dsareid.commands.options import positional
from dsareid.evaluation import (
    FeatureDistances,
    chance,
    format_table,
    k_reciprocal,
    rank_distances,
    table_row,
)
from dsareid.evaluation.evaluate_run import RANKS
from dsareid.evaluation.ranking import AveragePrecision
from dsareid.ground.errors import DSAError
from dsareid.inference.feature_folder import IMAGES, UNKNOWN, FeatureFolder, check_same_model, open_features

_JUNK = -1


def command(
    query: positional("QUERY"),
    gallery: positional("GALLERY"),
    rerank: tyro.conf.FlagCreatePairsOff[bool] = False,
    max_rank: int = 10,
    average_precision: AveragePrecision = "hits",
) -> None:
    """mAP and rank-1/5/10 of the features of queries and a gallery, beside chance.

    Identities and cameras are those in images.csv of both folders. Gallery images of the query's identity and
    camera are removed, and so is junk, identity -1. The gallery need not fit into memory: it is read from the
    disk once for every 128 queries, or somewhat more or fewer.

    Args:
        query: A folder that extract wrote.
        gallery: Another one, of the same model.
        rerank: Also after k-reciprocal re-ranking (Zhong et al., CVPR 2017). All features are in memory then,
            and the time grows with the square of the number of images.
        max_rank: The last rank of the table: 50 adds rank-50.
        average_precision: hits: the mean of the precision at each hit.
            trapezoidal: what some toolkits report.
    """
    if max_rank < 1:
        raise DSAError(f"--max-rank must be at least 1, not {max_rank}")
    ranks = [*(rank for rank in RANKS if rank < max_rank), max_rank]
    folders = open_features(query), open_features(gallery)
    check_same_model(*folders)
    try:
        rows = _rows(*folders, rerank, ranks, average_precision)
    except ValueError as error:
        raise DSAError(f"{query} and {gallery} cannot be ranked: {error}") from error
    print(format_table(rows, ranks))


def _rows(
    query: FeatureFolder, gallery: FeatureFolder, rerank: bool, ranks: list[int], rule: AveragePrecision
) -> list[dict[str, Any]]:
    """The rows of the table."""
    queries, query_ids, query_cams = _without_junk(query)
    ids, cams = _labels(gallery)
    junk = ids == _JUNK
    labels = query_ids, ids[~junk], query_cams, cams[~junk]
    options = dict(max_rank=ranks[-1], average_precision=rule)
    rows = [table_row("chance", chance(*labels, max_rank=ranks[-1]), ranks)]

    # Left where it is, as the rest is not to be copied: behind all others, of an identity of no query.
    apart = torch.where(junk, int(max(ids.max(), query_ids.max())) + 1, ids)
    distances = FeatureDistances(queries, gallery.features, removed=junk.nonzero().squeeze(1))
    result = rank_distances(distances, query_ids, apart, query_cams, cams, **options)
    rows.insert(0, table_row("features", result, ranks))
    if rerank:
        result = rank_distances(k_reciprocal(queries, _without_junk(gallery)[0]), *labels, **options)
        rows.insert(0, table_row("features, re-ranked", result, ranks))
    return rows


def _without_junk(folder: FeatureFolder) -> tuple[np.ndarray, Tensor, Tensor]:
    """Features, identities and cameras of what is to be ranked; mapped as they are where there is no junk."""
    ids, cams = _labels(folder)
    kept = ids != _JUNK
    features = folder.features if kept.all() else folder.features[kept.numpy()]
    return features, ids[kept], cams[kept]


def _labels(folder: FeatureFolder) -> tuple[Tensor, Tensor]:
    """Identities and cameras, int64 [N], all known but the cameras of junk."""
    unknown = (folder.ids == UNKNOWN) | ((folder.cams == UNKNOWN) & (folder.ids != _JUNK))
    if unknown.any():
        first = folder.files[int(unknown.argmax())]
        raise DSAError(
            f"{folder.path / IMAGES}: identity or camera of {int(unknown.sum()):,} of {len(folder):,} images "
            f"are not known, the first {first}: fill in these columns to rank them"
        )
    if (folder.ids == _JUNK).all():
        raise DSAError(f"{folder.path / IMAGES}: every image is junk, identity {_JUNK}")
    return torch.from_numpy(folder.ids), torch.from_numpy(folder.cams)
