"""CUHK01: ROOT/campus/0001001.png is identity 1, shot 1 of 4; shots 1, 2 are camera 1 and 3, 4 camera 2.

A protocol is a split by its seed: in a random order of all 971 identities the first are the test's.

    485-sN    485 identities for the test, 486 to train on
    871-sN    100 identities for the test, 871 to train on

The paper does not say which of the two its figure is for; 485-s0 is the default.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from dsareid.data.folders import image_names
from dsareid.data.layouts.base import (
    GALLERY,
    JUNK,
    QUERY,
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

DATASET = Dataset(
    name="CUHK01",
    layout="campus; names are a 4-digit identity and a 3-digit shot 001..004, as 0001001.png",
    citation="Li, Zhao, Wang: Human Reidentification with Transferred Metric Learning, ACCV 2012",
    protocols={
        "485-sN": "485 identities for the test, 486 to train on, drawn with seed N; rank-1 and rank-5",
        "871-sN": "100 identities for the test, 871 to train on, drawn with seed N; rank-1 and rank-5",
    },
    default="485-s0",
)
FOLDER = "campus"
IDENTITIES, SHOTS = 971, 4
_NAME = re.compile(r"(\d{4})00([1-4])\.")
_PROTOCOL = re.compile(r"(485|871)-s(\d{1,9})")
_TESTED = {"485": 485, "871": 100}  # identities for the test


def recognise(root: Path, scan: Scan) -> bool:
    """Whether the folder campus is there."""
    return os.path.lexists(root / FOLDER)


def find(root: Path, scan: Scan, protocol: str) -> Found:
    """The images by a protocol; of the test, images from camera 1 are queries, the others the gallery.

    Raises:
        DSAError: no images, an unknown protocol, or too few identities for it.
    """
    protocol = protocol or DATASET.default
    match = _PROTOCOL.fullmatch(protocol)
    if not match:
        raise unknown_protocol(DATASET, protocol)
    kind, seed = match.groups()
    entries = [_entry(name) for name in image_names(scan(FOLDER))]
    check_not_empty(root, FOLDER, entries)
    identities = {entry.identity for entry in entries if not entry.misnamed}
    tested = draw_test(_TESTED[kind], int(seed))
    if not identities & tested or not identities - tested:
        raise DSAError(
            f"{root / FOLDER}: none of its {len(identities)} identities is in the "
            f"{'training' if identities & tested else 'test'} split of protocol {protocol}; CUHK01 has "
            f"{IDENTITIES}"
        )
    entries = [e._replace(split=_split(e.camera)) if e.identity in tested else e for e in entries]
    return Found(replace(DATASET, expected=_expected(protocol)), protocol, entries)


def draw_test(count: int, seed: int) -> set[int]:
    """The identities of a split's test: the first `count` of all in a random order. It is the same for ever,
    whichever images are there."""
    # RandomState: numpy promises never to change its draws; those of default_rng may change.
    return set(np.random.RandomState(seed).permutation(np.arange(1, IDENTITIES + 1))[:count].tolist())


def _entry(file: str) -> Entry:
    name = f"{FOLDER}/{file}"
    if match := _NAME.match(file):
        return Entry(TRAIN, name, int(match[1]), 1 if match[2] in "12" else 2)
    wrong = "the name must be a 4-digit identity and a shot 001..004, as in 0001001.png"
    return Entry(TRAIN, name, JUNK, -1, misnamed=wrong)


def _split(camera: int) -> str:
    return QUERY if camera == 1 else GALLERY


def _expected(protocol: str) -> dict[str, Count]:
    """The counts of the splits of a protocol."""
    tested = _TESTED[protocol.partition("-")[0]]
    trained, half = IDENTITIES - tested, SHOTS // 2 * tested
    return {TRAIN: Count(SHOTS * trained, trained), QUERY: Count(half, tested), GALLERY: Count(half, tested)}
