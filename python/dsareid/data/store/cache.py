"""Where the store of a data set lies, and its reuse.

ROOT/store-HxW                      of the default protocol
ROOT/store-HxW-PROTOCOL
$XDG_CACHE_HOME/dsareid/NAME-HASH   replaces ROOT if that is not writable; or below ~/.cache
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, NO_CAMERAS, QUERY, Listing
from dsareid.data.matches import count_matches
from dsareid.data.store.format import HEADER, StoreLayout
from dsareid.data.store.pack import is_free, pack_files, plan_store
from dsareid.data.store.reader import Store, open_store, read_header
from dsareid.data.store.writer import JOURNAL, open_writer, remove_leftovers
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import make_folder, place_for, readable_size


def ensure_store(
    path: str | os.PathLike, height: int, width: int, *, mapped: Sequence[str] = (), protocol: str = ""
) -> Store:
    """The store of a data set for a network of the given input size; packed if there is none yet.

    Args:
        path: a store, which is opened, or a data set's root. Its store is ROOT/store-HxW, with -PROTOCOL
            behind it for another protocol than the default; if ROOT is not writable, it is below
            $XDG_CACHE_HOME or ~/.cache/dsareid. A store of the files as they are now is opened; otherwise
            the data set is packed, and an outdated store replaced.
        height, width: the stored size if the files differ in size.
        mapped: splits of a data set whose images must have an IUV map, checked before anything is packed.
        protocol: the protocol by which the data set is split, as for list_data; for a store: the one that it
            was packed by, or none.

    Raises:
        MissingMaps: images of a data set without the maps they need.
        DSAError: as pack and open_store; a given store was packed by another protocol.
    """
    store = _find_or_pack(Path(path), height, width, mapped, protocol)
    if store.skipped_note:
        logger.warning(f"{store.path}: {store.skipped_note}")
    return store


def _find_or_pack(path: Path, height: int, width: int, mapped: Sequence[str], protocol: str) -> Store:
    if os.path.lexists(path / HEADER):
        return _open_given(path, protocol)
    if min(height, width) < 1:
        raise DSAError(f"`height` and `width` must be at least 1, not {height} and {width}")
    listing = list_data(path, protocol)
    for note in listing.notes:
        logger.warning(note)
    listing.check_maps(mapped)
    place = place_for(path)
    there = sorted({*path.glob("store-*x*"), *place.glob("store-*x*")})
    found = [_current_store(folder, listing, height, width) for folder in there]
    if stores := [store for store in found if store]:
        exact = (height, width)  # the first choice, so that a run that resumes finds the store it began with
        best = min(stores, key=lambda store: ((store.height, store.width) != exact, store.header.resized))
        remove_leftovers(best.path)
        return best
    plan = plan_store(listing, None, (height, width))
    suffix = "" if listing.protocol == listing.dataset.default else f"-{listing.protocol}"
    out = make_folder(place) / f"store-{plan.height}x{plan.width}{suffix}"
    with open_writer(out, plan.layout, listing.fingerprint) as writer:
        if store := _current_store(out, listing, height, width, explain=True):
            return store  # another process has packed it in the meantime
        if not is_free(out):
            _check_replaceable(out)
        store = pack_files(plan, writer, skip_broken=False)
    why = "" if place == path else f", because {path} is not writable"
    logger.info(f"packed {path} into {out} ({readable_size(plan.layout.bytes)}){why}; later runs read it")
    return store


def log_maps(store: Store, splits: Sequence[str]) -> None:
    """Log how many of the splits' IUV maps show a person; as a warning if most do not."""
    for split, found in store.header.maps.items():
        if split in splits:
            level = logging.WARNING if found.mostly_empty else logging.INFO
            logger.log(level, f"{store.path}: {found.note(split)}")


def _open_given(path: Path, protocol: str) -> Store:
    """Open a store that was given. Its protocol must be `protocol`, if that is not empty."""
    store = open_store(path)
    found = store.header.protocol
    if protocol and set(protocol.split("+")) != set(found.split("+")):
        raise DSAError(
            f"{path}: packed by {f'the protocol {found}' if found else 'no protocol'}, not by "
            f"{protocol}; give the folder that it was packed from"
        )
    query, gallery = store.pairs(QUERY), store.pairs(GALLERY)
    matches = count_matches(query, gallery).note() if gallery else ""
    notes = ["" if store.header.cameras else NO_CAMERAS, matches]
    for note in filter(None, notes):
        logger.warning(f"{path}: {note}")
    return store


def _current_store(
    path: Path, listing: Listing, height: int, width: int, explain: bool = False
) -> Store | None:
    """The store, if it is of the listing's files and fits a network of this input size.

    `explain`: log why a store that is damaged or of another version is not used.
    """
    if not os.path.lexists(path / HEADER):
        return None
    try:
        header = read_header(path)
        size = header.height, header.width
        if header.source == listing.fingerprint and (not header.resized or size == (height, width)):
            return open_store(path)
    except DSAError as error:
        if explain:
            logger.warning(f"{str(error).removesuffix('; pack the data set again')}; it is packed again")
    return None


def _check_replaceable(path: Path) -> None:
    """Raise DSAError if a folder in the place of a store holds anything but a store."""
    ours = {HEADER, JOURNAL, *StoreLayout(1, 1, 1, iuv=True, name_bytes=1).arrays}
    found = set(os.listdir(path))
    if HEADER not in found or not found <= ours:
        other = ", ".join(sorted(found - ours)[:3]) or f"no {HEADER}"
        raise DSAError(f"{path}: a store belongs here, but this is something else ({other}); move it away")
