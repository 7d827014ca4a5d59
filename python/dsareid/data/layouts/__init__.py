"""Recognising the data set in a folder by what the folder holds, and listing its images.

Each data set is a module here, with its record (name, citation, counts, protocols), `recognise` and `find`.
To add one, write such a module and add its name to LAYOUTS.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import cast

from dsareid.data.folders import is_hidden
from dsareid.data.layouts.base import (
    ALL_SPLITS,
    DISTRACTOR,
    GALLERY,
    JUNK,
    LAYOUT,
    QUERY,
    TRAIN,
    Entry,
    Found,
    Layout,
    Listing,
    Scan,
    scan_folder,
)
from dsareid.data.layouts.cuhk03 import MATLAB_FILES
from dsareid.data.layouts.summary import listing_remarks
from dsareid.data.map_files import MapFiles, check_no_map_is_shared
from dsareid.ground.errors import DSAError, quoted

# The modules of this folder that are data sets. A root is the first that recognises it.
LAYOUTS = (
    "synthetic",
    "market1501",
    "duke",
    "cuhk03",
    "identity_names",
    "csv_list",
    "identity_folders",
    "cuhk01",
)


_SEARCHED_LEVELS, _SEARCHED_FOLDERS = 3, 1000  # for a data set below the folder; folders of one level


def list_data(root: str | os.PathLike, protocol: str = "") -> Listing:
    """List the images of a data set by a protocol, with their IUV maps.

    Args:
        root: the data set's folder.
        protocol: one of the data set's protocols, as `dsareid data describe` prints them; default: the data
            set's default.

    Raises:
        DSAError: no such folder, a folder of no layout, files that cannot be listed, an empty split, an
            unknown protocol, identities in both training and test, one IUV map for two images, or two
            different ones for one image.
    """
    root = Path(root)
    if not root.is_dir():
        raise DSAError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {LAYOUT}")
    if (root / "store.json").exists():
        raise DSAError(f"{root}: this is a store; give the folder that it was packed from")
    scan = Scan(root)
    layout = _recognise(root, scan)
    if layout is None:
        raise _no_data(root)
    found = layout.find(root, scan, protocol)
    every = sorted(found.entries, key=lambda entry: (ALL_SPLITS.index(entry.split), entry.name))
    maps = MapFiles(scan)
    kept = [entry._replace(iuv=maps.of(entry.name)) for entry in every if _is_listed(entry)]
    entries = [_in_utf8(entry) for entry in kept]
    if not entries:
        raise DSAError(f"{root}: no images but junk (identity {JUNK})")
    _check_disjoint(root, entries)
    check_no_map_is_shared(root, entries)
    listing = Listing(
        root,
        entries,
        _fingerprint(found, kept, scan),
        found.dataset,
        found.protocol,
        found.cameras,
        sum(entry.identity < 0 and not entry.misnamed for entry in every),
        found.without_camera,
        [],
    )
    return replace(listing, remarks=listing_remarks(listing, found))


def _is_listed(entry: Entry) -> bool:
    """Whether an image is listed: junk is not, and distractors are in the gallery only."""
    if entry.misnamed or entry.identity > 0:
        return True
    return entry.identity == DISTRACTOR and entry.split == GALLERY


def find_labels(root: Path, names: Iterable[str]) -> dict[str, tuple[str, str | None]]:
    """The identities and cameras that the data set in a folder gives to images.

    Args:
        root: the folder; without a data set in it there are no labels.
        names: of images, relative to it.

    Returns:
        For each image that the data set lists, by any of its protocols: the identity, as a word ("-1" is
        junk, "0" a distractor), and the camera, None if not known.

    Raises:
        DSAError: a data set whose files cannot be listed.
    """
    scan, wanted = Scan(root), set(names)
    layout = _recognise(root, scan)
    if layout is None:
        return {}
    found = layout.find(root, scan, "")
    labels = _labels(found, wanted)
    for protocol in filter(None, found.dataset.protocols):
        if len(labels) < len(wanted):
            with contextlib.suppress(DSAError):  # a protocol may need a folder that is missing
                labels = _labels(layout.find(root, scan, protocol), wanted) | labels
    return labels


def _labels(found: Found, wanted: set[str]) -> dict[str, tuple[str, str | None]]:
    labels: dict[str, tuple[str, str | None]] = {}
    for entry in found.entries:
        if entry.name in wanted and not entry.misnamed:
            if found.words:  # own labels
                label = found.words[entry.identity], found.camera_words.get(entry.camera)
            else:
                label = str(entry.identity), str(entry.camera) if entry.camera >= 0 else None
            labels[entry.name] = label
    return labels


def _recognise(root: Path, scan: Scan) -> Layout | None:
    modules = (cast(Layout, import_module(f"{__name__}.{name}")) for name in LAYOUTS)
    return next((module for module in modules if module.recognise(root, scan)), None)


def _no_data(root: Path) -> DSAError:
    """The error about a folder of no layout."""
    level = [root]
    for _ in range(_SEARCHED_LEVELS):
        level = [inner for folder in level for inner in _folders(folder)][:_SEARCHED_FOLDERS]
        if inside := [str(folder) for folder in level if is_data_set(folder)]:
            return DSAError(f"{root}: not a data set, but there is one in it: give {' or '.join(inside)}")
    if any((root / name).exists() for name in MATLAB_FILES):
        return DSAError(
            f"{root}: CUHK03 as MATLAB files; write its images first (dsareid data extract {quoted(root)} "
            "OUT) and give OUT/labeled or OUT/detected"
        )
    return DSAError(f"{root}: not a data set: it has none of the folders of one; {LAYOUT}")


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; none if it cannot be listed."""
    try:
        names = [name for name in sorted(scan_folder(folder, "")) if not is_hidden(name)]
    except DSAError:
        return []
    return [folder / name for name in names if (folder / name).is_dir()]


def is_data_set(root: Path) -> bool:
    """Whether a folder holds a data set, even one whose files cannot be listed."""
    try:
        return _recognise(root, Scan(root)) is not None
    except DSAError:  # one whose files cannot be listed
        return True


def _check_disjoint(root: Path, entries: list[Entry]) -> None:
    """Raise DSAError if training and test identities overlap."""
    trained = {entry.identity: entry.name for entry in entries if entry.split == TRAIN and entry.identity > 0}
    tested = {entry.identity: entry.name for entry in entries if entry.split in (QUERY, GALLERY)}
    if both := sorted(trained.keys() & tested.keys()):
        pairs = "; ".join(f"{trained[identity]} and {tested[identity]}" for identity in both[:3])
        more = "; ..." if len(both) > 3 else ""
        raise DSAError(
            f"{root}: training and test identities must not overlap, but some do, {len(both)} in all: "
            f"{pairs}{more}"
        )


def _in_utf8(entry: Entry) -> Entry:
    """The entry; a misnamed one if its name is not UTF-8, which names in a store must be."""
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return Entry(entry.split, name, JUNK, -1, misnamed="the name is not UTF-8")
    return entry


def _fingerprint(found: Found, entries: list[Entry], scan: Scan) -> str:
    lines = [f"{found.dataset.name}\0{found.protocol}\0{found.cameras}"]
    for entry in entries:
        lines.append("\0".join(map(str, entry)))
        for path in (entry.name, entry.iuv):
            if path:
                folder, _, file = path.rpartition("/")
                lines.append(scan(folder)[file])
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
