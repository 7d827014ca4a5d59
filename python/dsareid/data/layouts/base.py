"""What the layouts share: images with their labels, the record of a data set, its listing and its errors.

Where the IUV map of an image lies: data/map_files.py.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from dsareid.data.folders import nfc, walk
from dsareid.ground.errors import DSAError, quoted
from dsareid.ground.machine import cores

TRAIN, QUERY, GALLERY = SPLITS = ("bounding_box_train", "query", "bounding_box_test")
MULTI_QUERY = "gt_bbox"  # further images of the queries, for the protocol multi-query
ALL_SPLITS = (*SPLITS, MULTI_QUERY)
LAYOUT = (
    f"a data set is a folder with {TRAIN}, {QUERY} and {GALLERY} (Market-1501's layout), with campus "
    "(CUHK01), or with your own data: data.csv, or train, query and gallery with a folder for each person"
)
JUNK, DISTRACTOR = -1, 0  # identities: of images that do not count, and of gallery people in no query
CSV = "data.csv"  # lists own data
OWN_DATA = "own data"  # the name of every data set that is none of the public ones
_ESTIMATED_A_SECOND = 16  # maps of crops of 64x128, by one core: benchmarks/estimate.py
NO_CAMERAS = "cameras are not known: the same-camera rule is off, no gallery image is left out"

MakeMaps = Callable[[Path, str], object]
"""Makes the IUV maps that a data set lacks, given its root and protocol, as densepose.estimate_missing."""


class Scan:
    """The contents of a data set's folders; each folder is listed once."""

    def __init__(self, root: Path):
        self.root = root
        self._folders: dict[str, dict[str, str]] = {}
        self._by_nfc: dict[str, dict[str, str]] = {}

    def __call__(self, folder: str) -> Mapping[str, str]:
        """A folder, relative to the root, as scan_folder lists it."""
        if folder not in self._folders:
            self._folders[folder] = scan_folder(self.root, folder)
        return self._folders[folder]

    def find(self, path: str) -> str | None:
        """A path as it is on disk, perhaps in another Unicode form; None if there is none."""
        found = ""
        for name in path.split("/"):
            if name not in self(found):
                if found not in self._by_nfc:
                    self._by_nfc[found] = {nfc(other): other for other in self(found)}
                if nfc(name) not in self._by_nfc[found]:
                    return None
                name = self._by_nfc[found][nfc(name)]
            found = f"{found}/{name}" if found else name
        return found


class Entry(NamedTuple):
    """An image file of a data set."""

    split: str  # one of ALL_SPLITS
    name: str  # relative to the root, as query/0005_c1s1_000001_00.jpg
    identity: int  # a person's, DISTRACTOR or JUNK; own labels are numbered from 1; JUNK if misnamed
    camera: int  # -1 if not known
    iuv: str | None = None  # its IUV map, as MapFiles.of gives it; None if there is none
    misnamed: str | None = None  # what is wrong with the name


class Count(NamedTuple):
    images: int
    identities: int  # without distractors

    def __str__(self) -> str:
        return f"{self.images:,} images of {self.identities:,} identities"


@dataclass(frozen=True)
class Dataset:
    """The record of a data set: what is known besides its files."""

    name: str
    layout: str
    citation: str = ""
    withdrawn: str = ""  # by whom and when, if it is no longer distributed
    protocols: Mapping[str, str] = field(default_factory=lambda: {"": "single query"})
    """A description of each protocol; in a name, N stands for a number."""
    default: str = ""  # the protocol if none is given
    expected: Mapping[str, Count] = field(default_factory=dict)
    """The counts of its splits; empty if they are not known."""
    aside: tuple[str, ...] = ()
    """Folders of the data set that most protocols do not read."""


class Found(NamedTuple):
    """The images that a data set's module finds."""

    dataset: Dataset
    protocol: str
    entries: list[Entry]  # with junk, in any order, without IUV maps; names as the system gives them
    cameras: bool = True  # whether they are known
    words: Mapping[int, str] = {}  # the words behind the numbers of own identities
    camera_words: Mapping[int, str] = {}  # the same for cameras
    without_camera: str = ""  # a note on images without a camera, if others have one


class Layout(Protocol):
    """A data set's module. Beside these functions it holds the data set's record, a Dataset."""

    def recognise(self, root: Path, scan: Scan) -> bool:
        """Whether the folder holds this data set, if none before it in layouts.LAYOUTS recognises it."""

    def find(self, root: Path, scan: Scan, protocol: str) -> Found:
        """Its images by a protocol, "" for its default; DSAError if they cannot be used."""


@dataclass(frozen=True)
class Listing:
    """The files of a data set at one moment."""

    root: Path
    entries: list[Entry]  # by split, then by name, without junk
    fingerprint: str
    """Hex SHA-256 of the data set's name, its protocol, whether cameras are known, and each entry with the
    size and modification time of its files."""
    dataset: Dataset
    protocol: str  # in full, even if it is the default
    cameras: bool  # whether they are known; if not, those of query and gallery differ
    junk: int  # images that were left out as junk
    without_camera: str  # as in Found
    remarks: list[str] = field(compare=False)
    """What a user should know besides the counts, see summary.listing_remarks."""

    def count(self, split: str) -> Count:
        """The images of a split that are not misnamed, and their identities."""
        identities = [e.identity for e in self.entries if e.split == split and not e.misnamed]
        return Count(len(identities), len(set(identities) - {0}))

    def without_map(self, splits: Sequence[str]) -> list[str]:
        """The images of these splits that have no IUV map and are not misnamed, by name."""
        entries = [entry for entry in self.entries if entry.split in splits and not entry.misnamed]
        return [entry.name for entry in entries if entry.iuv is None]

    def check_maps(self, splits: Sequence[str]) -> None:
        """Raise MissingMaps if an image of these splits has no IUV map."""
        if missing := self.without_map(splits):
            raise MissingMaps(self.root, missing, self.how_to_estimate())

    def how_to_estimate(self) -> str:
        """A sentence on how to estimate the missing maps, with the time that it takes on this machine."""
        minutes = round(len(self.without_map(ALL_SPLITS)) / _ESTIMATED_A_SECOND / cores() / 60)
        time = f"{minutes:,} minute{'s' * (minutes != 1)}" if minutes else "a minute at most"
        by = f" `protocol={self.protocol}`" if self.protocol != self.dataset.default else ""
        return (
            f"dsareid densepose estimate {quoted(self.root)}{by} makes them from the pictures alone, in "
            f"about {time} on this machine's CPU; so does `estimate=True` of the commands pack, train and "
            "eval"
        )

    @property
    def notes(self) -> list[str]:
        """What a user should know before the data set is used, a line each."""
        lines = []
        if differing := different_counts(self.dataset.expected, self.count):
            texts = [f"{split}: expected {expected}, found {found}" for split, expected, found in differing]
            lines.append(f"{self.root} has the file names of {self.dataset.name}, but {'; '.join(texts)}")
        if not self.cameras:
            detail = f" ({self.without_camera})" if self.without_camera else ""
            lines.append(f"{self.root}: {NO_CAMERAS}{detail}")
        return lines + [f"{self.root}: {remark}" for remark in self.remarks]


def different_counts(
    expected: Mapping[str, Count], count: Callable[[str], Count]
) -> list[tuple[str, Count, Count]]:
    """The splits whose counts differ from the expected ones, each with the expected and the found count."""
    found = {split: count(split) for split in expected}
    return [(split, expected[split], found[split]) for split in expected if found[split] != expected[split]]


class MissingMaps(DSAError):
    """Images have no IUV map and need one.

    Args:
        place: the data set or store.
        names: the images without a map, relative to it; at least one.
        remedy: a sentence on what to do.
    """

    def __init__(self, place: Path, names: Sequence[str], remedy: str):
        stem, _ = os.path.splitext(names[0])
        more = f"; {len(names) - 1:,} more images have none" if len(names) > 1 else ""
        super().__init__(
            f"{place}: no IUV map of {names[0]}: neither iuv/{stem}.png nor "
            f"iuv/{stem}_IUV.png is there{more}; {remedy}; an image without a person needs an "
            "all-background map"
        )


def unknown_protocol(dataset: Dataset, protocol: str) -> DSAError:
    """The error about a protocol that a data set does not have."""
    known = ", ".join(name or "none (leave it out)" for name in dataset.protocols)
    return DSAError(f"`protocol={protocol!r}`: {dataset.name} has no such protocol; it has: {known}")


def scan_folder(root: Path, folder: str) -> dict[str, str]:
    """What is in a folder, each name with size and modification time; empty if there is no folder.

    Raises:
        DSAError: it cannot be listed.
    """
    try:
        with os.scandir(root / folder) as files:
            return {file.name: _stamp(file) for file in files}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise DSAError(f"{root / folder}: cannot be listed: {error.strerror}") from error


def check_not_empty(root: Path, folder: str, found: Sequence[object]) -> None:
    """Raise DSAError if a split's folder is there but holds no image."""
    if found or not os.path.lexists(root / folder):
        return
    deeper = next((files for files in walk(root / folder) if files.images), None)
    hint = f"; there are some in {root / folder / deeper.folder}: move them here" if deeper else ""
    raise DSAError(f"{root / folder}: no images in this folder (expected *.jpg, *.png or the like){hint}")


def _stamp(file: os.DirEntry) -> str:
    try:
        status = file.stat()
    except OSError:  # a dangling link: reading it will say so
        return "unreadable"
    return f"{status.st_size}\0{status.st_mtime_ns}"
