"""Queries whose very picture is in the gallery too: they are found at once, whatever the network can do."""

import zlib
from collections.abc import Iterator

import numpy as np

from dsareid.data.store.reader import Split
from dsareid.evaluation.ranking import Labels

_SLICE = 256  # pictures in memory at once
_NEAR = 1e-5  # features of one picture differ by less than this part of their length, and only by rounding
_BLOCK = 1 << 16  # rows of the gallery in memory at once
_DIRECTIONS = 4  # in which features are compared before they are compared whole
_MANY = 1000  # images that are compared whole with one query: more are near only where all are alike


def copies_note(count: int, queries: int, what: str = "the very same picture") -> str:
    """What to say of copies, empty where there is none."""
    if not count:
        return ""
    return (
        f"{count:,} of {queries:,} queries have {what} in the gallery, which is found at once, whatever the "
        "network can do"
    )


def copied_pictures(query: Split, gallery: Split, labels: Labels) -> int:
    """How many queries have their own pixels in what the ranking keeps of the gallery."""
    wanted: dict[int, list[int]] = {}
    for number, checksum in enumerate(_checksums(query)):
        wanted.setdefault(checksum, []).append(number)
    found: set[int] = set()
    for place, checksum in enumerate(_checksums(gallery)):
        for number in wanted.get(checksum, ()):
            pictures = query.store.images[query.rows[number]], gallery.store.images[gallery.rows[place]]
            if number not in found and _is_kept(labels, number, place) and np.array_equal(*pictures):
                found.add(number)
    return len(found)


def _checksums(split: Split) -> Iterator[int]:
    for start in range(0, len(split), _SLICE):
        yield from map(zlib.crc32, split.store.images[split.rows[start : start + _SLICE]])


def copied_features(query: np.ndarray, gallery: np.ndarray, labels: Labels) -> int:
    """How many queries have their own features, but for rounding, in what the ranking keeps of the gallery.

    Args:
        query, gallery: float32 [Q, D] and [G, D], which may be mapped.
        labels: of both; an identity below 0 is not in the gallery.
    """
    draw = np.random.default_rng(0).standard_normal((query.shape[1], _DIRECTIONS))
    draw = (draw / np.linalg.norm(draw, axis=0)).astype(np.float32)
    blocks = range(0, len(gallery), _BLOCK)
    at = np.concatenate([gallery[start : start + _BLOCK] @ draw for start in blocks])  # [G, directions]
    order = at[:, 0].argsort()
    line = at[order, 0]
    count = 0
    for number, features in enumerate(query):
        near = _NEAR * float(np.linalg.norm(features))
        own = features @ draw
        first, last = np.searchsorted(line, (own[0] - near, own[0] + near))
        places = order[first:last]
        places = places[(abs(at[places] - own) <= near).all(1)]
        kept = (place for place in places[:_MANY].tolist() if _is_kept(labels, number, place))
        count += any(np.linalg.norm(gallery[place] - features) <= near for place in kept)
    return count


def _is_kept(labels: Labels, query: int, image: int) -> bool:
    """Whether a gallery image is ranked for a query: not junk, and not of its person and camera."""
    if labels.gallery_ids[image] < 0:
        return False
    same = labels.gallery_ids[image] == labels.query_ids[query]
    return not (same and labels.gallery_cams[image] == labels.query_cams[query])
