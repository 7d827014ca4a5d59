"""dsareid rank"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dsareid.commands.options import Flag
from dsareid.ground.errors import DSAError

if TYPE_CHECKING:  # --help needs neither
    import numpy as np
    from torch import Tensor

    from dsareid.inference.feature_folder import FeatureFolder
    from dsareid.runs.records import Row

_JUNK = -1


def command(
    query: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="QUERY")],
    gallery: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GALLERY")],
    rerank: Flag = False,
    max_rank: int = 10,
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
    """
    from dsareid.inference.feature_folder import check_same_model, open_features
    from dsareid.runs.records import RANKS, format_table

    if max_rank < 1:
        raise DSAError(f"`max_rank` must be at least 1, not {max_rank}")
    ranks = [*(rank for rank in RANKS if rank < max_rank), max_rank]
    folders = open_features(query), open_features(gallery)
    check_same_model(*folders)
    try:
        rows = _rows(*folders, rerank, ranks)
    except ValueError as error:
        raise DSAError(f"{query} and {gallery} cannot be ranked: {error}") from error
    print(format_table(rows, ranks))


def _rows(query: "FeatureFolder", gallery: "FeatureFolder", rerank: bool, ranks: list[int]) -> "list[Row]":
    """The rows of the table."""
    from dsareid.evaluation import FeatureDistances, Labels, Ranking, k_reciprocal
    from dsareid.runs.records import Row

    queries, query_ids, query_cams = _without_junk(query)
    ids, cams = _labels(gallery)
    # Junk of a large gallery is removed from where it is: the rest is not to be copied.
    distances = FeatureDistances(queries, gallery.features, removed=ids == _JUNK)
    ranking = Ranking(distances, Labels(query_ids, ids, query_cams, cams))
    results = {"features": ranking.result(ranks[-1]), "chance": ranking.chance(ranks[-1])}
    if rerank:
        kept, ids, cams = _without_junk(gallery)
        reranked = Ranking(k_reciprocal(queries, kept), Labels(query_ids, ids, query_cams, cams))
        results = {"features, re-ranked": reranked.result(ranks[-1]), **results}
    return [Row.of(name, result) for name, result in results.items()]


def _without_junk(folder: "FeatureFolder") -> tuple["np.ndarray", "Tensor", "Tensor"]:
    """Features, identities and cameras of what is to be ranked; mapped as they are where there is no junk."""
    ids, cams = _labels(folder)
    kept = ids != _JUNK
    features = folder.features if kept.all() else folder.features[kept.numpy()]
    return features, ids[kept], cams[kept]


def _labels(folder: "FeatureFolder") -> tuple["Tensor", "Tensor"]:
    """Identities and cameras, int64 [N], all known but the cameras of junk."""
    import torch

    from dsareid.inference.feature_folder import IMAGES, UNKNOWN

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
