"""A listing as text: the data set, its protocols, a table of its splits, and what to know before its use."""

import os
import re
from collections import Counter
from collections.abc import Sequence

from dsareid.data.folders import left_out, walk
from dsareid.data.layouts.base import (
    ALL_SPLITS,
    DISTRACTOR,
    GALLERY,
    QUERY,
    Entry,
    Listing,
)
from dsareid.data.matches import count_matches


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


def listing_remarks(listing: Listing, every: Sequence[Entry]) -> list[str]:
    """What a user should know of a data set beside its counts, before it is used.

    Args:
        listing: without remarks.
        every: all entries that its module found, also those that are not listed.
    """
    remarks = [_match_remark(listing.entries), _distractor_remark(every), *_unread_remarks(listing, every)]
    return list(filter(None, remarks))


def _match_remark(entries: Sequence[Entry]) -> str:
    """How many queries have a match, where some have none."""
    query, gallery = (
        [(entry.identity, entry.camera) for entry in entries if entry.split == split and not entry.misnamed]
        for split in (QUERY, GALLERY)
    )
    if not query or not gallery:
        return ""
    return count_matches(query, gallery).note()


def _distractor_remark(every: Sequence[Entry]) -> str:
    found = Counter(e.split for e in every if e.identity == DISTRACTOR and e.split != GALLERY)
    counts = ", ".join(f"{count:,} of {split}" for split, count in sorted(found.items()))
    return (
        f"identity {DISTRACTOR} is nobody, a distractor of the gallery: left out are {counts}"
        if found
        else ""
    )


def _unread_remarks(listing: Listing, every: Sequence[Entry]) -> list[str]:
    """Images of folders that no split has, and files among the images that are none."""
    names = {entry.name for entry in every}
    folders = {os.path.dirname(name) for name in names}
    above = {folder[:end] for folder in folders for end in _ends(folder)}
    aside = [listing.root / folder for folder in ("iuv", *listing.dataset.aside)]
    unread: Counter[str] = Counter()
    others: list[str] = []
    for files in walk(listing.root, aside):
        for name in map(files.path, files.images):
            if name not in names:
                tops = (files.folder[:end] for end in _ends(files.folder))
                unread[next((top for top in tops if top not in above), files.folder) or "."] += 1
        if files.folder and files.folder in folders:
            others += map(files.path, files.others)
    remarks = []
    if unread:
        counts = ", ".join(f"{folder} ({count:,})" for folder, count in sorted(unread.items()))
        remarks.append(f"{sum(unread.values()):,} images are not read, as they are of no split: {counts}")
    return [*remarks, left_out(others)]


def _ends(folder: str) -> list[int]:
    """Where the names in a path end."""
    return [place for place, letter in enumerate(f"{folder}/") if letter == "/"]
