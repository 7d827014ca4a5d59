"""`dsareid rank`: how well the features of one folder find their identities in another."""

import os

import numpy as np
import torch
from torch import Tensor

from dsareid.data.layouts.base import JUNK
from dsareid.evaluation.distances import FeatureDistances
from dsareid.evaluation.ranking import Labels, Ranking
from dsareid.evaluation.rerank import k_reciprocal
from dsareid.ground.errors import DSAError
from dsareid.inference.feature_folder import (
    IMAGES,
    UNKNOWN,
    FeatureFolder,
    check_same_model,
    open_features,
)
from dsareid.runs.records import RANKS, Row


def rank_folders(
    query: str | os.PathLike[str],
    gallery: str | os.PathLike[str],
    *,
    max_rank: int = 10,
    rerank: bool = False,
) -> list[Row]:
    """Ranks the gallery for every query.

    Args:
        query: A folder that extract wrote.
        gallery: Another one, of the same model. It is read from the disk in blocks.
        max_rank: How far the CMC goes, or 10 if that is more.
        rerank: Also by the re-ranked distances, for which all features must fit into memory.

    Returns:
        Rows of a table: the features re-ranked, if asked for, the features, and chance.

    Raises:
        DSAError: a folder is no folder of features, the two are of different models, an identity or a camera
            is not known, or no query has a match.
    """
    folders = open_features(query), open_features(gallery)
    check_same_model(*folders)
    try:
        return _rank(*folders, max(max_rank, *RANKS), rerank)
    except ValueError as error:
        raise DSAError(f"{query} and {gallery} cannot be ranked: {error}") from error


def _rank(query: FeatureFolder, gallery: FeatureFolder, max_rank: int, rerank: bool) -> list[Row]:
    queries, query_ids, query_cams = _without_junk(query)
    ids, cams = _labels(gallery)
    # Junk of a large gallery is removed from where it is: the rest is not to be copied.
    distances = FeatureDistances(queries, gallery.features, removed=ids == JUNK)
    ranking = Ranking(distances, Labels(query_ids, ids, query_cams, cams))
    results = {"features": ranking.result(max_rank), "chance": ranking.chance(max_rank)}
    if rerank:
        kept, ids, cams = _without_junk(gallery)
        reranked = Ranking(k_reciprocal(queries, kept), Labels(query_ids, ids, query_cams, cams))
        results = {"features, re-ranked": reranked.result(max_rank), **results}
    return [Row(name=name, mAP=found.mAP, cmc=found.cmc.tolist()) for name, found in results.items()]


def _without_junk(folder: FeatureFolder) -> tuple[np.ndarray, Tensor, Tensor]:
    """Features, identities and cameras of what is to be ranked; mapped as they are where there is no junk."""
    ids, cams = _labels(folder)
    kept = ids != JUNK
    features = folder.features if kept.all() else folder.features[kept.numpy()]
    return features, ids[kept], cams[kept]


def _labels(folder: FeatureFolder) -> tuple[Tensor, Tensor]:
    """Identities and cameras, int64 [N], all known but the cameras of junk."""
    unknown = (folder.ids == UNKNOWN) | ((folder.cams == UNKNOWN) & (folder.ids != JUNK))
    if unknown.any():
        first = folder.files[int(unknown.argmax())]
        raise DSAError(
            f"{folder.path / IMAGES}: identity or camera of {int(unknown.sum()):,} of {len(folder):,} images "
            f"are not known, the first {first}: fill in these columns to rank them"
        )
    if (folder.ids == JUNK).all():
        raise DSAError(f"{folder.path / IMAGES}: every image is junk, identity {JUNK}")
    return torch.from_numpy(folder.ids), torch.from_numpy(folder.cams)
