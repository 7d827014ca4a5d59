"""`dsareid calibrate`: what the distances of a model mean, learned from pairs of images that are labelled.

FEATURES/calibration.json     scores and false-match rates by distance, for the model of these features
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tqdm import tqdm

from dsareid.data.layouts.base import NO_CAMERAS
from dsareid.data.layouts.own_labels import NOBODY
from dsareid.evaluation.calibration import Calibration, fit
from dsareid.evaluation.distances import FeatureDistances
from dsareid.evaluation.positives import Labels
from dsareid.evaluation.ranking import Ranking
from dsareid.evaluation.verification import PairCounts
from dsareid.ground.errors import DSAError, first_problem
from dsareid.ground.files import atomic_path
from dsareid.inference.feature_folder import IMAGES, FeatureFolder, open_features
from dsareid.inference.pair_tables import chunks, read_pair_table

CALIBRATION = "calibration.json"
RATES = 0.1, 0.01, 0.001, 0.0001
"""False-match rates of the table."""
_CHUNK = 1 << 14  # pairs whose features are in memory at once
_LONG = 1_000_000  # pairs from which on a bar shows how far it is
_OF_TRACKS = (
    "pairs of one person are of one track, nearer than pictures of two cameras: scores and `same found` are "
    "too high for these; rates count people whom one camera sees at once"
)


class CalibrationFile(BaseModel):
    """The contents of calibration.json."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal["dsareid calibration"] = "dsareid calibration"
    version: Literal[1] = 1
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """The identity of the model whose distances these are."""
    dimension: Annotated[int, Field(ge=1, lt=1 << 24)]
    pairs: str
    """Which pairs it was fitted to, for people."""
    tracks: bool = False
    """Whether they were pairs of tracks' means, whose distances differ from those of single pictures."""
    fitted: Calibration


class Calibrated(NamedTuple):
    """The result of calibrate."""

    path: Path
    fitted: Calibration
    held_out: dict[float, float]
    """For each of RATES the rate that people left out have at a threshold from the others: halves of the
    people, each judged by the other. Without those that have too few pairs; empty for pairs from a file."""
    notes: list[str]


def calibrate(features: str | os.PathLike[str], pairs: str | os.PathLike[str] | None = None) -> Calibrated:
    """Learn what distances mean, and write it beside the features.

    Without `pairs` every pair of labelled images is taken, but those of one person and one camera: they are
    easier than what a search has to tell apart. Junk and distractors (identities -1 and 0) are left out. The
    time grows with the square of the number of images.

    Args:
        features: a folder that extract wrote; of people whom training did not see, or scores are too high.
        pairs: a CSV file. With columns a,b,same: two files, as images.csv writes them, and 1 if they show one
            person, else 0. With columns file,track,frame: crops of a tracker; those of one track show one
            person, and those of two tracks that share a frame show two. Both are words: of several videos
            each needs its own, as c1-7.

    Raises:
        DSAError: the folder holds no features, `pairs` is something else, a label is missing, or there are no
            pairs of one person, or of two.
    """
    folder = open_features(features)
    try:
        if pairs is None:
            fitted, held_out, described, notes = _fit_labelled(folder)
        else:
            fitted, described, notes = _fit_listed(folder, Path(pairs))
            held_out = {}
    except ValueError as error:
        raise DSAError(f"{pairs or folder.path / IMAGES}: {error}") from error
    file = CalibrationFile(
        model=folder.model,
        dimension=folder.features.shape[1],
        pairs=described,
        tracks=folder.tracks is not None,
        fitted=fitted,
    )
    path = folder.path / CALIBRATION
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(file.model_dump()) + "\n", encoding="utf-8")
    return Calibrated(path, fitted, held_out, notes)


def read_calibration(path: str | os.PathLike[str], model: str) -> CalibrationFile:
    """Read a calibration.

    Args:
        path: a folder of features that was calibrated, or its calibration.json.
        model: the identity of the model whose distances are to be judged.

    Raises:
        DSAError: there is none, it is something else, or it was learned for another model.
    """
    path = Path(path)
    path = path / CALIBRATION if path.is_dir() else path
    try:
        file = CalibrationFile.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise DSAError(f"{path}: there is no calibration; dsareid calibrate writes one") from error
    except OSError as error:
        raise DSAError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DSAError(f"{path}: not what dsareid calibrate writes: {first_problem(error)}") from error
    if file.model != model:
        raise DSAError(
            f"{path}: learned for model {file.model}, but these features are of model {model}: calibrate "
            "features of that model"
        )
    return file


@dataclass(frozen=True)
class Judge:
    """What a search makes of its distances."""

    calibration: Calibration | None
    limit: float | None = None
    """The distance from which on somebody is somebody else; None: not asked for."""
    tracks: bool = False
    """Whether the calibration was learned from means of tracks."""

    @classmethod
    def of(
        cls,
        model: str,
        calibration: str | os.PathLike[str] | None,
        false_match_rate: float | None = None,
    ) -> "Judge":
        """The judge by a calibration for a model, if there is one.

        Raises:
            DSAError: as read_calibration, a rate without a calibration, or one that it cannot tell.
        """
        if calibration is None:
            return cls(None).within(false_match_rate)
        file = read_calibration(calibration, model)
        return cls(file.fitted, tracks=file.tracks).within(false_match_rate)

    def within(self, false_match_rate: float | None) -> "Judge":
        """The judge that answers within this rate; None: whatever the distance.

        Raises:
            DSAError: a rate that the calibration cannot tell, or without one.
        """
        if false_match_rate is None:
            return replace(self, limit=None)
        if self.calibration is None:
            raise DSAError("`false_match_rate` needs a `calibration`; dsareid calibrate writes one")
        return replace(self, limit=self.calibration.threshold(false_match_rate))

    def doubt(self, tracks: Iterable[bool]) -> str | None:
        """What to say of distances to these rows, each a track's mean or not; None: nothing."""
        if self.calibration is None or all(each == self.tracks for each in tracks):
            return None
        learned, judged = ("tracks", "single pictures") if self.tracks else ("single pictures", "tracks")
        return f"learned from {learned}, but some of these distances are of {judged}: rates may not hold"

    def score(self, distance: float) -> float | None:
        """The score of a distance; None without a calibration."""
        return None if self.calibration is None else self.calibration.score(distance)


# ---- all pairs of labelled images ----


class _Labelled(NamedTuple):
    """The images that show a person somebody has named."""

    features: np.ndarray  # float32 [N, D]
    people: torch.Tensor  # int64 [N], from 0
    cameras: torch.Tensor  # int64 [N]

    def count_pairs(self, kept: torch.Tensor | None = None) -> PairCounts:
        """Count the pairs, each in both orders; of the kept images alone, bool [N]."""
        features, people, cameras = self.features, self.people, self.cameras
        if kept is not None:
            features, people, cameras = features[kept.numpy()], people[kept], cameras[kept]
        return Ranking(
            FeatureDistances(features, features), Labels(people, people, cameras, cameras)
        ).pair_counts()


def _fit_labelled(folder: FeatureFolder) -> tuple[Calibration, dict[float, float], str, list[str]]:
    """The fit, the rates on people left out, a description and notes.

    Raises:
        ValueError: there are no pairs of one person, or of two.
    """
    labelled, cameras, left_out = _labelled(folder)
    fitted = fit(labelled.count_pairs(), each=2)
    people = int(labelled.people.max()) + 1
    described = f"all pairs of {len(labelled.people):,} images of {people:,} people"
    notes = ["" if cameras else NO_CAMERAS]
    if left_out:
        notes.append(f"{left_out:,} of {len(folder):,} images are left out: nobody's, or nobody knows whose")
    return fitted, _held_out(labelled, people), described, list(filter(None, notes))


def _labelled(folder: FeatureFolder) -> tuple[_Labelled, bool, int]:
    """The labelled images, whether their cameras are known, and how many images are left out.

    Without cameras each image has one of its own, so that no image is compared with itself.

    Raises:
        ValueError: no image is labelled.
        DSAError: some cameras are known, and some are not.
    """
    known = [label.identity is not None and label.identity not in NOBODY for label in folder.labels]
    labels = [label for label, used in zip(folder.labels, known) if used]
    if not labels:
        raise ValueError("no image has a person's identity: fill in this column, or list pairs")
    cameras = any(label.camera for label in labels)
    if cameras and not all(label.camera for label in labels):
        missing = [label.camera is None for label in labels]
        raise DSAError(
            f"{folder.path / IMAGES}: the camera of {sum(missing):,} of {len(labels):,} images is not known: "
            "fill in this column for all of them, or for none"
        )
    words: list[list[str | int | None]] = [
        [label.identity for label in labels],
        [label.camera for label in labels] if cameras else list(range(len(labels))),
    ]
    people, places = (torch.from_numpy(np.unique(np.array(x, str), return_inverse=True)[1]) for x in words)
    features = folder.features if len(labels) == len(folder) else folder.features[np.array(known)]
    return _Labelled(features, people, places), cameras, len(folder) - len(labels)


def _held_out(labelled: _Labelled, people: int) -> dict[float, float]:
    """For each of RATES, where halves of the people have pairs enough, the rate of the half left out."""
    half = torch.zeros(people, dtype=torch.bool)
    half[torch.randperm(people, generator=torch.Generator().manual_seed(0))[: people // 2]] = True
    first = half[labelled.people]
    try:
        counts = [labelled.count_pairs(kept) for kept in (first, ~first)]
        fits = [fit(count, each=2) for count in counts]
    except ValueError:
        return {}
    found = {}
    for rate in RATES:
        if all(rate * one.other >= 1 for one in fits):
            below = [count.below(one.threshold(rate) ** 2)[1] for count, one in zip(counts[::-1], fits)]
            found[rate] = sum(below) / sum(int(count.other.sum()) for count in counts)
    return found


# ---- pairs in a file ----


def _fit_listed(folder: FeatureFolder, path: Path) -> tuple[Calibration, str, list[str]]:
    """The fit to the pairs of a file, a description and notes.

    Raises:
        DSAError: the file is not as expected.
        ValueError: it has no pairs of one person, or of two.
    """
    rows = {file: row for row, file in enumerate(folder.files)}
    table = read_pair_table(path, rows, folder.path / IMAGES)
    counts = PairCounts(torch.device("cpu"))
    nowhere = torch.empty(0, 2, dtype=torch.int64)
    few = table.pairs < _LONG or None  # None: hidden without a terminal
    with tqdm(total=table.pairs, desc="pairs", unit_scale=True, leave=False, disable=few) as bar:
        for one, other, same in chunks(table, _CHUNK):
            a, b = (folder.features[x].astype(np.float64) for x in (one, other))
            squares = torch.from_numpy(np.square(a - b).sum(1))[:, None]
            if not squares.isfinite().all():
                raise DSAError(f"{folder.path}: features that are not finite")
            at = torch.arange(len(squares))
            alike = torch.stack([at, torch.zeros_like(at)], 1) if same else nowhere
            counts.add(squares, alike, nowhere, 0)
            bar.update(len(squares))
    if not table.crops:
        return fit(counts), f"{table.pairs:,} pairs of {path.name}", []
    described = f"{table.pairs:,} pairs of {table.crops:,} crops of {table.tracks:,} tracks, {path.name}"
    return fit(counts), described, [_OF_TRACKS]
