"""What is ranked: a folder of queries and one of a gallery, with labels that count."""

import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsareid.data.layouts.base import DISTRACTOR, JUNK
from dsareid.data.layouts.own_labels import NOBODY
from dsareid.data.matches import Matches, count_matches
from dsareid.evaluation.distances import FeatureDistances
from dsareid.evaluation.positives import Labels
from dsareid.evaluation.ranking import Ranking
from dsareid.ground.errors import DSAError
from dsareid.inference.feature_folder import IMAGES, FeatureFolder, check_same_model, open_features

WITHOUT_CAMERAS = f"empty the column camera of {IMAGES} in both folders"


class RankTask(NamedTuple):
    """What is ranked: the features and labels that count."""

    folders: tuple[FeatureFolder, FeatureFolder]
    asked: Tensor  # bool, the rows of the query folder that are queries
    kept: Tensor  # bool, the rows of the gallery folder that are no junk
    labels: Labels  # of the queries, and of the whole gallery folder
    cameras: bool  # whether they are known
    matches: Matches

    def queries(self) -> np.ndarray:
        """The features of the queries."""
        return kept_rows(self.folders[0], self.asked)

    def ranking(self) -> Ranking:
        """The ranking by the features' distances."""
        # Junk is masked in place: cutting it out would copy the rest of a large gallery.
        distances = FeatureDistances(self.queries(), self.folders[1].features, removed=~self.kept)
        return Ranking(distances, self.labels)

    def query_files(self) -> list[str]:
        return [file for file, used in zip(self.folders[0].files, self.asked.tolist()) if used]


def rank_task(query: str | os.PathLike[str], gallery: str | os.PathLike[str]) -> RankTask:
    """The task of a folder of queries and one of a gallery; DSAError as for rank_folders."""
    folders = open_features(query), open_features(gallery)
    check_same_model(*folders)
    labels, cameras = _number_labels(*folders)
    asked, kept = labels.query_ids > 0, labels.gallery_ids != JUNK
    if not asked.any() or not kept.any():
        empty, others = (
            (folders[1], "") if asked.any() else (folders[0], f" or a distractor, identity {DISTRACTOR}")
        )
        raise DSAError(f"{empty.path / IMAGES}: every image is junk, identity {JUNK}{others}")
    labels = labels._replace(query_ids=labels.query_ids[asked], query_cams=labels.query_cams[asked])
    matches = count_matches(*labels.pairs())
    if not matches.matched:
        raise DSAError(f"{query} and {gallery}: {matches.note(WITHOUT_CAMERAS)}")
    return RankTask(folders, asked, kept, labels, cameras, matches)


def kept_rows(folder: FeatureFolder, kept: Tensor) -> np.ndarray:
    """The features that are kept; still memory-mapped if all are."""
    return folder.features if kept.all() else folder.features[kept.numpy()]


def _number_labels(query: FeatureFolder, gallery: FeatureFolder) -> tuple[Labels, bool]:
    """The labels of both folders as numbers, the same word the same number, and whether cameras are known.

    If no camera is known, all queries get one camera and all gallery images another, as in `dsareid eval`.
    """
    folders = query, gallery
    known = any(label.camera for folder in folders for label in folder.labels if label.identity not in NOBODY)
    for folder in folders:
        _check_known(folder, known)
    identities = dict(NOBODY)
    cameras: dict[str | None, int] = {}
    ids = [[identities.setdefault(x.identity, len(identities)) for x in folder.labels] for folder in folders]
    if known:
        cams = [[cameras.setdefault(x.camera, len(cameras)) for x in folder.labels] for folder in folders]
    else:
        cams = [[side] * len(folder) for side, folder in enumerate(folders)]
    return Labels(*map(torch.tensor, (*ids, *cams))), known


def _check_known(folder: FeatureFolder, cameras: bool) -> None:
    """Raise DSAError if an identity is not known or, with `cameras`, the camera of a person."""
    unknown = [
        label.identity is None or (cameras and label.camera is None and label.identity not in NOBODY)
        for label in folder.labels
    ]
    if any(unknown):
        raise DSAError(
            f"{folder.path / IMAGES}: identity or camera of {sum(unknown):,} of {len(folder):,} images are "
            f"not known, the first {folder.files[unknown.index(True)]}: fill in these columns to rank them"
        )
