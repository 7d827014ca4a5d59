"""Market-1501's layout, in which DukeMTMC-reID, CUHK03-NP and the synthetic data set come too.

ROOT/bounding_box_train/0002_c1s1_000451_03.jpg     identity 2, camera 1
ROOT/query, ROOT/bounding_box_test                  the same; identity 0 is a distractor, -1 junk
ROOT/gt_bbox                                        the same: more images of each query's person
ROOT/images                                         distractors, whatever their names
"""

import re
from dataclasses import replace
from pathlib import Path

from dsareid.data.layouts.base import (
    GALLERY,
    MULTI_QUERY,
    QUERY,
    SPLITS,
    Dataset,
    Entry,
    Found,
    Scan,
    check_not_empty,
    image_names,
    unknown_protocol,
)
from dsareid.data.layouts.datasets import CUHK03, DUKE, MARKET, OWN_AS_MARKET, SYNTHETIC
from dsareid.ground.errors import DSAError

DISTRACTORS = "images"  # the folder
NAME = re.compile(r"(-?\d{1,9})_c(\d{1,9})(?!\d)")
_MARKET_NAME = re.compile(r"-?\d+_c\d+s\d+_\d+_\d+\.")
_DUKE_NAME = re.compile(r"\d{4}_c\d_f\d+\.")
_CUHK03_NAME = re.compile(r"\d{4}_c[12]_\d+\.")


def find(root: Path, scan: Scan, protocol: str) -> Found:
    """The images of a data set in this layout. Folders that are missing are simply not there.

    Raises:
        DSAError: an empty folder, an unknown protocol, or nothing in the folder that it needs.
    """
    entries = []
    for split in SPLITS:
        found = [_entry(split, name) for name in image_names(scan(split))]
        check_not_empty(root, split, found)
        entries += found
    dataset = _recognise(root, entries)
    parts = protocol.split("+")
    known = [part for part in ("multi-query", "distractors") if part in parts]
    protocol = "+".join(known) if set(parts) == set(known) else protocol  # in whatever order they are given
    if protocol not in dataset.protocols:
        raise unknown_protocol(dataset, protocol)
    if "multi-query" in known:
        entries += _more_of_queries(root, scan, entries)
    if "distractors" in known:
        entries += _distractors(root, scan)
        counted = {split: count for split, count in dataset.expected.items() if split != GALLERY}
        dataset = replace(dataset, expected=counted)
    return Found(dataset, protocol, entries)


def _entry(split: str, file: str) -> Entry:
    if match := NAME.match(file):
        return Entry(split, f"{split}/{file}", int(match[1]), int(match[2]))
    wrong = "the name must begin with identity and camera, as in 0002_c1s1_000451_03.jpg"
    return Entry(split, f"{split}/{file}", -1, -1, misnamed=wrong)


def _recognise(root: Path, entries: list[Entry]) -> Dataset:
    """Which data set it is, by the names of all its files; CUHK03's two kinds by the folder's name."""
    if (root / "synth.json").exists():
        return SYNTHETIC
    names = [entry.name.partition("/")[2] for entry in entries if not entry.misnamed]
    cuhk03 = CUHK03.get(root.resolve().name.lower(), OWN_AS_MARKET)
    for dataset, pattern in ((MARKET, _MARKET_NAME), (DUKE, _DUKE_NAME), (cuhk03, _CUHK03_NAME)):
        if names and all(map(pattern.match, names)):
            return dataset
    return OWN_AS_MARKET


def _more_of_queries(root: Path, scan: Scan, entries: list[Entry]) -> list[Entry]:
    """The images of gt_bbox that show a query's person from its camera."""
    queries = {(entry.identity, entry.camera) for entry in entries if entry.split == QUERY}
    found = [_entry(MULTI_QUERY, name) for name in image_names(scan(MULTI_QUERY))]
    found = [entry for entry in found if (entry.identity, entry.camera) in queries]
    if not found:
        raise DSAError(
            f"{root / MULTI_QUERY}: no such folder, or no image of a query's person and camera in it; the "
            "protocol multi-query needs Market-1501's gt_bbox"
        )
    return found


def _distractors(root: Path, scan: Scan) -> list[Entry]:
    found = image_names(scan(DISTRACTORS))
    if not found:
        raise DSAError(
            f"{root / DISTRACTORS}: no such folder, or no images in it; the protocol distractors needs "
            "Market-1501's 500k distractors there"
        )
    cameras = [int(match[2]) if (match := NAME.match(name)) else -1 for name in found]
    return [Entry(GALLERY, f"{DISTRACTORS}/{name}", 0, camera) for name, camera in zip(found, cameras)]
