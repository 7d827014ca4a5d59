"""Queries whose very picture is also in the gallery: any network ranks that picture first."""

import zlib
from collections.abc import Iterator

import numpy as np

from dsareid.data.store.reader import Split
from dsareid.evaluation.positives import Labels

_SLICE = 256  # pictures in memory at once
_NEAR = 1e-5  # features of one picture differ by rounding only, less than this fraction of their norm
_BLOCK = 1 << 16  # rows of the gallery in memory at once
_DIRECTIONS = 4  # random directions, in which features are compared before they are compared whole
_MANY = 1000  # images to compare whole with one query, at most: more are near only if all are alike


def copies_note(count: int, queries: int, what: str = "the very same picture") -> str:
    """The note on copies; empty without copies."""
    if not count:
        return ""
    return f"{count:,} of {queries:,} queries have {what} in the gallery: any network ranks that image first"


def copied_pictures(query: Split, gallery: Split, labels: Labels) -> int:
    """Count the queries whose pixels are also in the gallery, in an image that the ranking keeps."""
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
    """Count the queries whose features, but for rounding, are also in the gallery, in an image that is kept.

    Args:
        query, gallery: float32 [Q, D] and [G, D], which may be memory-mapped.
        labels: of both; gallery images with an identity below 0 are left out.
    """
    directions = np.random.default_rng(0).standard_normal((query.shape[1], _DIRECTIONS))
    directions = (directions / np.linalg.norm(directions, axis=0)).astype(np.float32)
    blocks = range(0, len(gallery), _BLOCK)
    projected = np.concatenate([gallery[start : start + _BLOCK] @ directions for start in blocks])  # [G, 4]
    order = projected[:, 0].argsort()
    line = projected[order, 0]
    count = 0
    for number, features in enumerate(query):
        near = _NEAR * float(np.linalg.norm(features))
        at = features @ directions
        first, last = np.searchsorted(line, (at[0] - near, at[0] + near))
        places = order[first:last]
        places = places[(abs(projected[places] - at) <= near).all(1)]
        kept = (place for place in places[:_MANY].tolist() if _is_kept(labels, number, place))
        count += any(np.linalg.norm(gallery[place] - features) <= near for place in kept)
    return count


def _is_kept(labels: Labels, query: int, image: int) -> bool:
    """Whether a gallery image is ranked for a query: it is not junk, nor of the query's person and camera."""
    if labels.gallery_ids[image] < 0:
        return False
    same = labels.gallery_ids[image] == labels.query_ids[query]
    return not (same and labels.gallery_cams[image] == labels.query_cams[query])
