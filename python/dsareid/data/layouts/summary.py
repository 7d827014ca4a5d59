"""A listing as text: the data set, its protocols, and a table of its splits."""

import re

from dsareid.data.layouts.base import ALL_SPLITS, Listing


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
