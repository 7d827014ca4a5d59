"""What a track is worth: means of several crops beside single crops, on rendered people.

    python -m studies.tracks.run RUN        # a run of the demo preset, such as demo/run of make demo

Renders people whom the run has not seen, 48 images of each over six cameras: a track of 8 crops for each
person and camera. Tracks of 1, 2, 4 and 8 of them are matched as `dsareid extract --boxes` makes them, all
crops alike or weighed by the share of the 24 parts that exact maps show; every track is a query against the
tracks of other cameras. Writes result.json, and the table of README.md.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dsareid
from dsareid.data.iuv import read_iuv
from dsareid.evaluation import FeatureDistances, Labels, Ranking
from dsareid.evaluation.bootstrap import Interval, interval
from dsareid.evaluation.rows import span
from dsareid.ground.files import atomic_path
from dsareid.inference.feature_folder import open_features
from dsareid.synth import SynthConfig, generate
from studies.tables import write_into

HERE = Path(__file__).parent
PEOPLE, IMAGES, CAMERAS = 120, 48, 6  # half of the people are test
SIZES = (1, 2, 4, 8)
PARTS = 24


def seen(part: np.ndarray) -> float:
    """The share of the parts that are seen, as extract --maps counts them."""
    counts = np.bincount(part.ravel(), minlength=PARTS + 1)[1:]
    return max((counts > part.size / 1000).sum() / PARTS, 1 / (2 * PARTS))


def crops(run: Path, folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features [N, D] of the test people's images, weights, people and cameras [N]."""
    generate(folder / "people", SynthConfig(identities=PEOPLE, images=IMAGES, seed=1))
    features, weights, people, cameras = [], [], [], []
    for split in ("query", "bounding_box_test"):
        dsareid.extract(run, folder / "people" / split, folder / split)
        opened = open_features(folder / split)
        for row, (file, label) in enumerate(zip(opened.files, opened.labels)):
            if label.identity in ("0", "-1"):
                continue
            iuv = read_iuv((folder / "people" / "iuv" / split / file).with_suffix(".png"))
            features.append(np.array(opened.features[row]))
            weights.append(seen(iuv[..., 0]))
            people.append(int(label.identity))
            cameras.append(int(label.camera))
    return np.stack(features), np.array(weights), np.array(people), np.array(cameras)


def means(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean of some crops, each half of norm 1."""
    halves = (weights[:, None] * features).sum(0).reshape(2, -1)
    return (halves / np.linalg.norm(halves, axis=1, keepdims=True)).ravel()


def tracks(found: tuple, size: int, weighed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, people and cameras of all tracks of so many crops, those of a person and camera in turn."""
    features, weights, people, cameras = found
    rows, who, where = [], [], []
    for person in np.unique(people):
        for camera in np.unique(cameras):
            mine = np.flatnonzero((people == person) & (cameras == camera))
            if len(mine) < max(SIZES):
                continue
            some = mine[:size]
            rows.append(means(features[some], weights[some] if weighed else np.ones(size)))
            who.append(person)
            where.append(camera)
    return np.stack(rows).astype(np.float32), np.array(who), np.array(where)


def ranked(found: tuple, size: int, weighed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AP and first place of each track, and its person."""
    rows, people, cameras = tracks(found, size, weighed)
    labels = Labels(*(torch.from_numpy(x) for x in (people, people, cameras, cameras)))
    result = Ranking(FeatureDistances(rows, rows), labels).result(10)
    return result.ap.numpy(), result.first.numpy(), people


def paired(more: np.ndarray, less: np.ndarray, people: np.ndarray) -> Interval:
    """By how much the mean of one AP exceeds that of the other, with its interval over people."""
    return interval(lambda weights: (weights @ (more - less)) / weights.sum(1), people)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = crops(options.run, Path(folder))
    single, _, people = ranked(found, 1, False)
    heads = ["crops of a track", "mAP", "rank-1", "mAP above single crops", "weighed by parts, above alike"]
    table = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    record: dict[str, Any] = {"people": len(np.unique(people)), "tracks": len(people), "rows": []}
    for size in SIZES:
        ap, first, _ = ranked(found, size, False)
        weighed, _, _ = ranked(found, size, True)
        above = paired(ap, single, people), paired(weighed, ap, people)
        row = {"crops": size, "mAP": float(ap.mean()), "rank-1": float((first == 1).mean())}
        record["rows"].append({**row, "above single": list(above[0]), "weighed above alike": list(above[1])})
        cells = [str(size), f"{100 * row['mAP']:.1f}", f"{100 * row['rank-1']:.1f}"]
        cells += ["-"] * 2 if size == 1 else [f"{100 * x.value:+.1f} ({span(x, signed=True)})" for x in above]
        table.append(f"| {' | '.join(cells)} |")
    with atomic_path(HERE / "result.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
    write_into(HERE / "README.md", ["\n".join(table)])


if __name__ == "__main__":
    main()
