"""`dsareid gallery info` and `remove`: what a gallery holds, and rows taken out of it."""

import os
from collections import Counter
from typing import NamedTuple

from dsareid.gallery.rows import GalleryInfo
from dsareid.gallery.search import GalleryFilter
from dsareid.gallery.store import GalleryStore
from dsareid.ground.errors import DSAError


class Summary(NamedTuple):
    """What a gallery holds."""

    info: GalleryInfo
    rows: int
    people: int
    """Identities, without junk and distractors."""
    unknown: int
    """Rows whose person is not known."""
    cameras: dict[str, int]
    """Rows of each camera; "" for those whose camera is not known."""
    tracks: int
    times: tuple[int, int] | None
    """The first and the last, seconds since 1970; None if none is known."""
    size: int | None
    """Bytes on the disk; None on a server."""


def summarise(gallery: str | os.PathLike[str]) -> Summary:
    """Count what a gallery holds.

    Raises:
        DSAError: as GalleryStore.
    """
    with GalleryStore(gallery) as store:
        people: Counter[str | None] = Counter()
        cameras: Counter[str] = Counter()
        tracks, times = set(), []
        for row in store.rows("", ["identity", "camera", "track", "time"]):
            people[row["identity"]] += 1
            cameras[row["camera"] or ""] += 1
            if row["track"] is not None:
                tracks.add((row["camera"], row["track"]))
            if row["time"] is not None:
                times.append(row["time"])
        unknown, rows = people.pop(None, 0), store.count()
        people.pop("0", None)
        people.pop("-1", None)
        span = (min(times), max(times)) if times else None
        return Summary(
            store.info,
            rows,
            len(people),
            unknown,
            dict(sorted(cameras.items())),
            len(tracks),
            span,
            store.size(),
        )


def remove_rows(gallery: str | os.PathLike[str], which: GalleryFilter) -> int:
    """Remove the rows that a filter leaves, and see that they are gone; how many there were.

    Raises:
        DSAError: as GalleryStore; the filter is empty, or leaves no row.
    """
    where = which.expression()
    if not where:
        raise DSAError("nothing says which rows to remove: give a person, a track, a file or an age")
    with GalleryStore(gallery) as store:
        if not store.any(where):
            raise DSAError(f"{store.name}: no row to remove: {where}")
        with store.writing():
            return store.remove(where)
