"""A listing as text: the data set, its protocols, a table of its splits, and what to know before its use."""

import os
import re
from collections import Counter
from collections.abc import Sequence

from dsareid.data.folders import left_out, walk
from dsareid.data.layouts.base import (
    ALL_SPLITS,
    CSV,
    DISTRACTOR,
    GALLERY,
    JUNK,
    QUERY,
    Entry,
    Found,
    Listing,
)
from dsareid.data.matches import count_matches

_LEFT_OUT = {JUNK: "junk", DISTRACTOR: "distractors"}
_SHOWN = 5  # folders that a remark names


def listing_summary(listing: Listing) -> str:
    """What `dsareid data describe` prints of a data set."""
    dataset = listing.dataset
    chosen = re.sub("[0-9]+$", "N", listing.protocol)
    facts = [("citation", dataset.citation), ("withdrawn", dataset.withdrawn), ("layout", dataset.layout)]
    facts += [("protocol", ": ".join(filter(None, (listing.protocol, dataset.protocols[chosen]))))]
    others = [(name, text) for name, text in dataset.protocols.items() if name != chosen]
    facts += [("or", f"{name}: {text}" if name else f"none given: {text}") for name, text in others]
    lines = [f"{listing.root}: {dataset.name}"]
    lines += [f"  {title:<10} {text}" for title, text in facts if text]
    lines += [f"  {'':<20}{'images':>10}{'identities':>12}{'cameras':>9}{'IUV maps':>10}"]
    for split in ALL_SPLITS:
        entries = [entry for entry in listing.entries if entry.split == split]
        expected = dataset.expected.get(split)
        if not entries and not expected:
            continue
        images, identities = listing.count(split)
        cameras = len({entry.camera for entry in entries} - {-1}) if listing.cameras else "-"
        maps = sum(entry.iuv is not None for entry in entries)
        lines += [f"  {split:<20}{images:>10,}{identities:>12,}{cameras:>9}{maps:>10,}"]
        if expected:
            lines += [f"  {'  expected':<20}{expected.images:>10,}{expected.identities:>12,}"]
    if listing.junk:
        lines += [f"  {'junk, left out':<20}{listing.junk:>10,}"]
    if misnamed := [entry for entry in listing.entries if entry.misnamed]:
        lines += [f"  {'misnamed':<20}{len(misnamed):>10,}  {misnamed[0].name}: {misnamed[0].misnamed}"]
    return "\n".join([*lines, *(f"note: {note}" for note in listing.notes)])


def listing_remarks(listing: Listing, found: Found) -> list[str]:
    """What a user should know of a data set besides its counts, before using it.

    Args:
        listing: without remarks.
        found: what its module found, including images that are not listed.
    """
    csv = os.path.lexists(listing.root / CSV) and CSV not in found.dataset.layout
    remarks = [
        f"its {CSV} is not read: by its folders it is {found.dataset.name}" if csv else "",
        _missing_remark(listing),
        _match_remark(listing.entries),
        _nobody_remark(found.entries),
        *_unread_remarks(listing, found.entries),
    ]
    return list(filter(None, remarks))


def _missing_remark(listing: Listing) -> str:
    """The test splits without images; train notices itself that it has none."""
    missing = [split for split in (QUERY, GALLERY) if not listing.count(split).images]
    return f"no images of {' and '.join(missing)}: train works, eval does not" if missing else ""


def _match_remark(entries: Sequence[Entry]) -> str:
    """How many queries have a match; empty if all have one."""
    query, gallery = (
        [(entry.identity, entry.camera) for entry in entries if entry.split == split and not entry.misnamed]
        for split in (QUERY, GALLERY)
    )
    if not query or not gallery:
        return ""
    return count_matches(query, gallery).note()


def _nobody_remark(every: Sequence[Entry]) -> str:
    """Images of training and query that are left out because they show nobody."""
    left = Counter(
        (e.identity, e.split)
        for e in every
        if e.identity in _LEFT_OUT and e.split != GALLERY and not e.misnamed
    )
    counts = ", ".join(
        f"{count:,} of {split} ({_LEFT_OUT[identity]}, identity {identity})"
        for (identity, split), count in sorted(left.items())
    )
    return f"left out because they show nobody: {counts}" if counts else ""


def _unread_remarks(listing: Listing, every: Sequence[Entry]) -> list[str]:
    """Images that are in no split, files beside images that are none, and folders that cannot be listed."""
    names = {entry.name for entry in every}
    folders = {os.path.dirname(name) for name in names}
    above = {folder[:end] for folder in folders for end in _ends(folder)}
    tops = {folder.partition("/")[0] for folder in folders} - {""}
    aside = [listing.root / folder for folder in ("iuv", *listing.dataset.aside)]
    unread: Counter[str] = Counter()
    others: list[str] = []
    closed: list[str] = []
    for files in walk(listing.root, aside, closed):
        for name in map(files.path, files.images):
            if name not in names:
                highest = (files.folder[:end] for end in _ends(files.folder))
                unread[next((folder for folder in highest if folder not in above), files.folder)] += 1
        if files.folder.partition("/")[0] in tops:
            others += map(files.path, files.others)
    remarks = [left_out(others)]
    if unread:
        shown = [f"{folder or 'the folder itself'} ({n:,})" for folder, n in sorted(unread.items())[:_SHOWN]]
        more = f" and {len(unread) - _SHOWN:,} more folders" if len(unread) > _SHOWN else ""
        remarks.insert(0, f"images in no split are not read: {', '.join(shown)}{more}")
    if closed:
        remarks.append(f"{closed[0]} cannot be listed")
    return remarks


def _ends(folder: str) -> list[int]:
    """The positions at which the names in a path end."""
    return [place for place, letter in enumerate(f"{folder}/") if letter == "/"]
