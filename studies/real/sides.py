"""Matching people across sides: PKU-Reid's, seen from eight sides by two cameras."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dsareid.data.layouts.base import GALLERY, QUERY
from dsareid.data.store.reader import Split, Store
from dsareid.evaluation import Labels, Ranking
from dsareid.evaluation.run_features import compute_features
from dsareid.runs.folder import Run

SIDES = 8
ANGLES: Mapping[str, tuple[int, ...]] = {"same": (0,), "adjacent": (1, 7), "opposite": (4,)}
"""Eighths of a turn between query and match."""


def side_of(name: str) -> int:
    """The side that an image shows, 0 to 7, by its name, as 001/02_5.png."""
    return int(name.rpartition(".")[0][-1]) - 1


def by_angle(run: Run, store: Store, batch_size: int = 64) -> dict[str, float]:
    """mAP of f for each kind of angle; a query's matches from other angles are left out."""
    query, gallery = (store.select(split, iuv=False) for split in (QUERY, GALLERY))
    distances = torch.cdist(*(compute_features(run, split, "mf", batch_size) for split in (query, gallery)))
    return {name: _mAP(distances, query, gallery, turns) for name, turns in ANGLES.items()}


def _mAP(distances: Tensor, query: Split, gallery: Split, turns: tuple[int, ...]) -> float:
    """The same-camera rule leaves out the other angles: they are given the query's camera."""
    total = []
    sides = np.array([side_of(name) for name in gallery.names])
    ids, cameras = torch.from_numpy(gallery.ids), torch.zeros(len(gallery), dtype=torch.int64)
    for row, (name, person) in enumerate(zip(query.names, query.ids)):
        wanted = np.isin((sides - side_of(name)) % SIDES, turns)
        kept = cameras + torch.from_numpy(wanted)  # 1 where it counts, 0 as the query's
        labels = Labels(torch.tensor([int(person)]), ids, torch.zeros(1, dtype=torch.int64), kept)
        total.append(Ranking(distances[row : row + 1], labels).result().mAP)
    return float(np.mean(total))
