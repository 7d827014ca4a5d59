"""From a folder to the listing of its data set, which is recognised by what is in the folder.

Each data set is a module here, with its record (name, citation, counts, protocols), `recognise` and `find`.
To add one, write such a module and add its name to LAYOUTS.
"""

import hashlib
import os
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import cast

from dsareid.data.layouts.base import (
    ALL_SPLITS,
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
from dsareid.ground.errors import DSAError

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


def list_data(root: str | os.PathLike, protocol: str = "") -> Listing:
    """List the images of a data set by a protocol, with their IUV maps.

    Args:
        root: the data set's folder.
        protocol: the name of one that the data set has, as `dsareid data describe` prints them;
            default: the data set's.

    Raises:
        DSAError: no such folder, one of no layout or whose files cannot be listed, an empty split, an
            unknown protocol, identities both in training and in the test.
    """
    root = Path(root)
    if not root.is_dir():
        raise DSAError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {LAYOUT}")
    if (root / "store.json").exists():
        raise DSAError(f"{root}: this is a store; give the folder that it was packed from")
    scan = cache(partial(scan_folder, root))
    layout = _recognise(root, scan)
    if layout is None:
        raise _no_data(root)
    found = layout.find(root, scan, protocol)
    every = sorted(found.entries, key=lambda entry: (ALL_SPLITS.index(entry.split), entry.name))
    kept = [_with_map(entry, scan) for entry in every if entry.identity >= 0 or entry.misnamed]
    entries = [_in_utf8(entry) for entry in kept]
    if not entries:
        raise DSAError(f"{root}: no images but junk (identity {JUNK})")
    _check_disjoint(root, entries)
    return Listing(
        root,
        entries,
        _fingerprint(found, kept, scan),
        found.dataset,
        found.protocol,
        found.cameras,
        len(every) - len(kept),
    )


def _recognise(root: Path, scan: Scan) -> Layout | None:
    modules = (cast(Layout, import_module(f"{__name__}.{name}")) for name in LAYOUTS)
    return next((module for module in modules if module.recognise(root, scan)), None)


def _no_data(root: Path) -> DSAError:
    """What to say about a folder of no layout."""
    inside = [str(root / name) for name in sorted(scan_folder(root, "")) if _is_data_set(root / name)]
    if inside:
        return DSAError(f"{root}: not a data set, but there is one in it: give {' or '.join(inside)}")
    if any((root / name).exists() for name in MATLAB_FILES):
        return DSAError(
            f"{root}: CUHK03 as MATLAB files; write its images first (dsareid data extract {root} OUT) and "
            "give OUT/labeled or OUT/detected"
        )
    return DSAError(f"{root}: not a data set: none of the folders that make one is in it; {LAYOUT}")


def _is_data_set(root: Path) -> bool:
    try:
        return _recognise(root, cache(partial(scan_folder, root))) is not None
    except DSAError:  # one whose files cannot be listed
        return True


def _check_disjoint(root: Path, entries: list[Entry]) -> None:
    """Raise DSAError where training and test identities overlap."""
    trained = {entry.identity: entry.name for entry in entries if entry.split == TRAIN and entry.identity > 0}
    tested = {entry.identity: entry.name for entry in entries if entry.split in (QUERY, GALLERY)}
    if both := sorted(trained.keys() & tested.keys()):
        pairs = "; ".join(f"{trained[identity]} and {tested[identity]}" for identity in both[:3])
        more = "; ..." if len(both) > 3 else ""
        raise DSAError(
            f"{root}: identities of the training are in query or gallery too, {len(both)} in all: "
            f"{pairs}{more}"
        )


def _with_map(entry: Entry, scan: Scan) -> Entry:
    """The entry with its IUV map, where there is one."""
    folder, _, file = entry.name.rpartition("/")
    folder = f"iuv/{folder}" if folder else "iuv"
    stem, _ = os.path.splitext(file)
    for chart in (f"{stem}.png", f"{stem}_IUV.png"):
        if chart in scan(folder):
            return entry._replace(iuv=f"{folder}/{chart}")
    return entry


def _in_utf8(entry: Entry) -> Entry:
    """The entry; a misnamed one where its name has bytes that are not UTF-8, as a store's names are."""
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
