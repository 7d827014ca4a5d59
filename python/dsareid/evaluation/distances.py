"""Distances of queries to a gallery, made a few rows at a time, so that no matrix of all of them is needed.

`FeatureDistances` are Euclidean and keep the order of the features: equal images are equally far, and float64
is used where float32 would lose differences.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from dsareid.evaluation.arguments import check_distances, check_finite, feature_tensors

# Distances held at once. A CPU tile of this size stays near its caches; a GPU wants more work.
_TILE_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 25}
# A matrix product of fewer queries would only re-read the gallery; what a large gallery may cost at most.
_TILE_QUERIES, _TILE_BYTES = 128, 1 << 29
_PART = 1 << 21  # elements of the features that are converted, or copied, at once: 8 MiB of float32

# Multiply-adds of a matrix product so short that float64 costs nothing worth saving.
SMALL_PRODUCT = 1 << 29


@runtime_checkable
class Distances(Protocol):
    """Distances of queries to a gallery, made a few rows at a time: what `Ranking` can rank."""

    shape: tuple[int, int]  # queries, gallery
    dtype: torch.dtype  # float32 or float64
    device: torch.device
    removed: Tensor | None  # int64, images of no query's gallery: infinitely far, which no other is

    @property
    def query_square(self) -> Tensor | None:
        """[Q], what rows lack to be comparable between queries."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Distances of queries start..stop, [stop - start, G], which the next call may overwrite."""


def tile_of(distances: Distances, positives: int = 0) -> int:
    """How many queries to handle at once, with a distance to each image and so many ranks each."""
    gallery = distances.shape[1]
    elements = _TILE_ELEMENTS.get(distances.device.type, _TILE_ELEMENTS["cpu"])
    most = _TILE_BYTES // (distances.dtype.itemsize * gallery + 48 * positives)
    return max(1, min(256, max(_TILE_QUERIES, elements // gallery), most))


class MatrixDistances:
    """Distances that are there already, re-ranked ones say.

    Args:
        distances: floating [Q, G], only read. Infinity is a distance like any other, behind all finite ones;
            infinite distances tie among each other. NaN is none: `rows` raises ValueError where it finds one.

    Raises:
        ValueError: distances have a wrong type, shape or dtype.
    """

    removed: Tensor | None = None
    query_square: Tensor | None = None

    def __init__(self, distances: Tensor):
        check_distances(distances)
        self.distances, self.device = distances, distances.device
        self.shape = (distances.shape[0], distances.shape[1])
        self.dtype = torch.float64 if distances.dtype == torch.float64 else torch.float32

    @property
    def as_it_lies(self) -> bool:
        """Whether rows are counted where they are; others are copied."""
        return self.distances.dtype in (torch.float32, torch.float64) and self.distances.stride(1) == 1

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop, [stop - start, G]: the memory of the distances themselves where that will do."""
        part = self.distances[start:stop]
        if part.amax().isnan():
            query = start + int(part.isnan().any(1).nonzero()[0])
            raise ValueError(f"distances must not be NaN, found one of query {query}")
        return part.to(self.dtype)  # float16 fits in exactly


class FeatureDistances:
    """Euclidean distances of queries to the gallery by their features, in a form that keeps the order.

    A row holds `|g|^2 - 2 q.g`: the squared distance without `|q|^2`, which is the same for the whole row.
    Leaving it out saves a rounding; the value may be negative. Nothing of the size of the gallery is made but
    a row for each query of a tile: features that need converting are converted in parts.

    Args:
        query, gallery: floating [Q, D] and [G, D], tensors or arrays, as for `rank`.
        removed: bool [G], images to leave out of every query's gallery, junk say; what is left of a mapped
            gallery need not be copied then.

    Raises:
        ValueError: a wrong type, shape, dtype or device, or features that are not finite, removed ones among
            them.
    """

    def __init__(
        self, query: Tensor | np.ndarray, gallery: Tensor | np.ndarray, removed: Tensor | None = None
    ):
        query, gallery = feature_tensors(query, gallery)
        self.query, self.gallery = query, gallery  # [Q, D], [G, D]
        self.shape, self.device = (len(query), len(gallery)), query.device
        self.removed = None if removed is None else _removed_images(removed, len(gallery)).to(query.device)
        self.dtype = query.dtype if query.dtype == torch.float64 else torch.float32
        squares = [_squares(features, self.dtype) for features in (query, gallery)]
        for name, found in zip(("query_features", "gallery_features"), squares):
            check_finite(name, found)
        small = len(query) * gallery.numel() <= SMALL_PRODUCT
        if self.dtype == torch.float32 and (small or _needs_double(squares[0], squares[1], gallery)):
            self.dtype = torch.float64
            squares = [_squares(features, self.dtype) for features in (query, gallery)]
        self.query_square, self.square = squares  # [Q], [G]
        self.copies, self.originals = _copies(gallery)
        self.memory = torch.empty(0, len(gallery), dtype=self.dtype, device=self.device)

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop, [stop - start, G], in memory that the next call overwrites."""
        if stop - start > len(self.memory):  # fresh pages cost a tenth of the product
            self.memory = self.memory.new_empty(stop - start, len(self.gallery))
        rows = self.memory[: stop - start]
        self.product(start, stop, rows)
        # In parts, as most of the gallery may be copies.
        step = _rows_of(len(rows))
        for copies, originals in zip(self.copies.split(step), self.originals.split(step)):
            rows[:, copies] = rows[:, originals]
        if self.removed is not None:
            rows.index_fill_(1, self.removed, float("inf"))
        return rows

    def euclidean(self, query: int, images: Tensor) -> Tensor:
        """The distances of a query to some images of the gallery, in the features' dtype, [images]."""
        dtype = torch.promote_types(self.gallery.dtype, torch.float32)
        other = self.gallery[images.to(self.device)].to(dtype)
        return (other - self.query[query].to(dtype)).norm(dim=1)

    def product(self, start: int, stop: int, out: Tensor) -> None:
        """Fill out [stop - start, G] with what the matrix product gives, where copies may not tie."""
        query = self.query[start:stop].to(self.dtype)
        as_it_lies = self.gallery.dtype == self.dtype
        step = len(self.gallery) if as_it_lies else _rows_of(self.gallery.shape[1])
        with _full_precision(self.device.type):
            for first in range(0, len(self.gallery), step):
                part = slice(first, first + step)
                gallery = self.gallery[part].to(self.dtype)
                torch.addmm(self.square[part], query, gallery.T, alpha=-2, out=out[:, part])


def _removed_images(removed: Tensor, count: int) -> Tensor:
    """Indices of the images that a mask removes, int64."""
    if removed.dtype != torch.bool or removed.shape != (count,):
        raise ValueError(f"removed must be bool [{count}], not {removed.dtype} {list(removed.shape)}")
    return removed.nonzero().squeeze(1)


def _squares(features: Tensor, dtype: torch.dtype) -> Tensor:
    """The squared norm of each row [N, D], in `dtype`, [N]."""
    return _in_parts(lambda rows: rows.to(dtype).square().sum(1), features, features.shape[1], dtype)


def _needs_double(query_squares: Tensor, gallery_squares: Tensor, gallery: Tensor) -> bool:
    """Whether the features differ by so little, against their size, that float32 loses the order.

    |g|^2 - 2 q.g is rounded by about 2**-24 of the squared norms; the differences that decide the
    order are of the size of the features' variance.
    """
    gallery_size, query_size = (squares.double().mean() for squares in (gallery_squares, query_squares))
    total = torch.zeros(gallery.shape[1], dtype=torch.float64, device=gallery.device)
    for part in gallery.split(_rows_of(gallery.shape[1])):
        total += part.float().sum(0).double()
    variance = gallery_size - (total / len(gallery)).square().sum()
    return bool(variance < 0.01 * (gallery_size + query_size))


def _copies(gallery: Tensor) -> tuple[Tensor, Tensor]:
    """Gallery rows equal to another one, and that other one, both int64 [copies].

    Where a matrix product is split, equal rows may get sums rounded differently. Equal features
    must tie all the same, so a copy takes the distance of its original.
    """
    # Most rows differ from every other in a few columns already; only the rest is read whole.
    width = gallery.shape[1]
    hashes = _in_parts(_hash_rows, gallery[:, :64], min(width, 64), torch.int64)
    _, which, count = hashes.unique(return_inverse=True, return_counts=True)
    suspects = (count[which] > 1).nonzero().squeeze(1)
    if not len(suspects):
        return suspects, suspects
    hashes = _in_parts(lambda some: _hash_rows(gallery[some]), suspects, width, torch.int64)
    hashes, order = hashes.sort(stable=True)
    order = suspects[order]
    starts = torch.ones(len(order), dtype=torch.bool, device=order.device)
    starts[1:] = hashes[1:] != hashes[:-1]
    originals = order[starts.nonzero().squeeze(1)[starts.cumsum(0) - 1]]  # of each of `order`
    pairs = torch.stack([order[~starts], originals[~starts]], 1)  # [copies, 2]

    def equal(pairs: Tensor) -> Tensor:  # not mere equals in hash
        return (gallery[pairs[:, 0]] == gallery[pairs[:, 1]]).all(1)

    pairs = pairs[_in_parts(equal, pairs, width, torch.bool)]
    copies, originals = pairs.unbind(1)
    return copies.contiguous(), originals.contiguous()


def _hash_rows(features: Tensor) -> Tensor:
    """int64 [N] of floating [N, D]: the same for equal rows, and nearly surely for no others."""
    features = features if features.dtype == torch.float64 else features.float()
    bits = torch.int32 if features.dtype == torch.float32 else torch.int64
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (features.shape[1],), generator=generator)
    factors = factors.to(features.device)
    # Adding 0 makes -0 the 0 it equals. Integer sums wrap: exact in any order.
    return ((features + 0.0).view(bits).long() * factors).sum(1)


def _in_parts(function: Callable[[Tensor], Tensor], rows: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """function(rows) -> [N] for rows [N, ...], in parts, so that no copy of all is made; it handles `width`
    elements a row."""
    # Not joined at the end: malloc does not use the memory of a part again for the next, if the small result
    # lies behind it, and would need as much as a copy of all.
    found = torch.empty(len(rows), dtype=dtype, device=rows.device)
    step = _rows_of(width)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = function(rows[part])
    return found


def _rows_of(width: int) -> int:
    """How many rows of so many elements make a part."""
    return max(1, _PART // width)


@contextlib.contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    """A matrix product in the features' own precision: no TF32, no bfloat16, no autocast."""
    mkldnn: Any = torch.backends.mkldnn
    settings = (torch.backends.cuda.matmul, mkldnn.matmul)
    chosen = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        with torch.autocast(device_type, enabled=False):
            yield
    finally:
        for setting, precision in zip(settings, chosen):
            setting.fp32_precision = precision
