"""Market-1501's naming scheme, which DukeMTMC-reID, CUHK03-NP, synthetic and own data use too.

ROOT/bounding_box_train/0002_c1s1_000451_03.jpg     identity 2, camera 1
ROOT/query, ROOT/bounding_box_test                  the same; identity 0 is a distractor, -1 junk
ROOT/gt_bbox                                        the same: more images of each query's person
ROOT/images                                         distractors, whatever their names

What follows identity and camera in the file names tells these data sets apart.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

from dsareid.data.folders import image_names
from dsareid.data.layouts.base import (
    CSV,
    GALLERY,
    JUNK,
    MULTI_QUERY,
    QUERY,
    SPLITS,
    TRAIN,
    Count,
    Dataset,
    Entry,
    Found,
    Scan,
    check_not_empty,
    unknown_protocol,
)
from dsareid.ground.errors import DSAError

DISTRACTORS = "images"  # the folder
NAME = re.compile(r"(-?\d{1,9})_c(\d{1,9})(?!\d)")
SCHEME = f"{TRAIN}, {QUERY}, {GALLERY}; names begin with identity and camera, as "
PROTOCOLS = {
    "": "single query",
    "multi-query": "the features of the images in gt_bbox of a query's person and camera are averaged",
    "distractors": "the images in the folder images join the gallery",
    "multi-query+distractors": "both",
}


def expected_counts(
    train: tuple[int, int], query: tuple[int, int], gallery: tuple[int, int]
) -> dict[str, Count]:
    """The counts of each split, from its images and identities."""
    return {TRAIN: Count(*train), QUERY: Count(*query), GALLERY: Count(*gallery)}


def has_folders(root: Path) -> bool:
    """Whether the scheme's folders are there; query alone may belong to identity folders or a list."""

    def has(*names: str) -> bool:
        return any(os.path.lexists(root / name) for name in names)

    return has(TRAIN, GALLERY) or (has(QUERY) and not has(CSV, "train", "gallery"))


def has_names(root: Path, scan: Scan, pattern: re.Pattern[str]) -> bool:
    """Whether the folders are there, and all names in them that follow the scheme also match a pattern."""
    if not has_folders(root):
        return False
    names = [name for split in SPLITS for name in image_names(scan(split)) if NAME.match(name)]
    return bool(names) and all(map(pattern.match, names))


def find_market_images(dataset: Dataset, root: Path, scan: Scan, protocol: str) -> Found:
    """The images of a data set in this scheme. A split's folder may be missing.

    Raises:
        DSAError: an empty folder, an unknown protocol, or no images in the folder that the protocol needs.
    """
    entries = []
    for split in SPLITS:
        found = [_entry(split, name) for name in image_names(scan(split))]
        check_not_empty(root, split, found)
        entries += found
    parts = protocol.split("+")
    known = [part for part in ("multi-query", "distractors") if part in parts]
    protocol = "+".join(known) if set(parts) == set(known) else protocol  # given in any order
    if protocol not in dataset.protocols:
        raise unknown_protocol(dataset, protocol)
    if "multi-query" in known:
        entries += _multi_query_images(root, scan, entries)
    if "distractors" in known:
        entries += _distractors(root, scan)
        counted = {split: count for split, count in dataset.expected.items() if split != GALLERY}
        dataset = replace(dataset, expected=counted)
    protocol_folders = {"multi-query": MULTI_QUERY, "distractors": DISTRACTORS}
    aside = tuple(folder for name, folder in protocol_folders.items() if name in dataset.protocols)
    return Found(replace(dataset, aside=aside), protocol, entries)


def _entry(split: str, file: str) -> Entry:
    match = NAME.match(file)
    if match and int(match[1]) >= JUNK:
        return Entry(split, f"{split}/{file}", int(match[1]), int(match[2]))
    wrong = "the name must begin with identity and camera, as in 0002_c1s1_000451_03.jpg"
    if match:
        wrong = f"the identity {match[1]} is not valid: the lowest is {JUNK}, which is junk"
    return Entry(split, f"{split}/{file}", JUNK, -1, misnamed=wrong)


def _multi_query_images(root: Path, scan: Scan, entries: list[Entry]) -> list[Entry]:
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
