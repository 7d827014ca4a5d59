"""Distances of queries to a gallery, computed a few rows at a time, so that no whole [Q, G] matrix is needed.

`FeatureDistances` are Euclidean and exact enough to rank by: equal features tie, and float64 is used where
float32 would lose differences.
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
# Queries of a tile: with fewer, a matrix product mostly re-reads the gallery. Bytes of a tile: the limit.
_TILE_QUERIES, _TILE_BYTES = 128, 1 << 29
_PART = 1 << 21  # elements of the features that are converted, or copied, at once: 8 MiB of float32

# A matrix product of at most so many multiply-adds is computed in float64, which then costs next to nothing.
SMALL_PRODUCT = 1 << 29


@runtime_checkable
class Distances(Protocol):
    """Distances of queries to a gallery, computed a few rows at a time: the input of `Ranking`."""

    shape: tuple[int, int]  # queries, gallery
    dtype: torch.dtype  # float32 or float64
    device: torch.device
    removed: Tensor | None  # int64, images left out of every gallery; they alone are infinitely far

    @property
    def query_square(self) -> Tensor | None:
        """[Q], to add to rows so that queries can be compared; None if they can be already."""

    def rows(self, start: int, stop: int) -> Tensor:
        """Distances of queries start..stop, [stop - start, G]; the next call may overwrite them."""


def tile_of(distances: Distances, positives: int = 0) -> int:
    """How many queries to handle at once; each takes a distance per image, and `positives` ranks."""
    gallery = distances.shape[1]
    elements = _TILE_ELEMENTS.get(distances.device.type, _TILE_ELEMENTS["cpu"])
    most = _TILE_BYTES // (distances.dtype.itemsize * gallery + 48 * positives)
    return max(1, min(256, max(_TILE_QUERIES, elements // gallery), most))


class MatrixDistances:
    """Distances that were computed before, given as a matrix.

    Args:
        distances: floating [Q, G], only read. Infinity is a distance like any other: it comes after all
            finite ones and ties with itself. `rows` raises ValueError if it finds NaN.

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
        """Whether rows are used in place; otherwise they are copied."""
        return self.distances.dtype in (torch.float32, torch.float64) and self.distances.stride(1) == 1

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start..stop, [stop - start, G]; a view of the given distances if `as_it_lies`."""
        part = self.distances[start:stop]
        if part.amax().isnan():
            query = start + int(part.isnan().any(1).nonzero()[0])
            raise ValueError(f"distances must not be NaN, found NaN for query {query}")
        return part.to(self.dtype)  # float16 fits in exactly


class FeatureDistances:
    """Euclidean distances of queries to the gallery by their features, in a form that keeps the order.

    A row holds `|g|^2 - 2 q.g`: the squared distance without `|q|^2`, which is the same for the whole row.
    Leaving it out saves a rounding; the value may be negative. The gallery is not copied: a tile needs a row
    for each of its queries, and features that need conversion are converted in parts.

    Args:
        query, gallery: floating [Q, D] and [G, D], tensors or arrays, as for `rank`.
        removed: bool [G], images to leave out of every query's gallery, such as junk, without copying
            the others of a memory-mapped gallery.

    Raises:
        ValueError: a wrong type, shape, dtype or device, or features that are not finite, even those of
            removed images.
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
        if stop - start > len(self.memory):  # newly allocated pages cost a tenth of the product's time
            self.memory = self.memory.new_empty(stop - start, len(self.gallery))
        rows = self.memory[: stop - start]
        self.product(start, stop, rows)
        # In parts, because most of the gallery may be copies.
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
        """Fill out [stop - start, G] with the matrix product, in which copies may not tie."""
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
    """Whether the features differ so little, relative to their size, that float32 loses the order.

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
    """Gallery rows that equal an earlier row, and that earlier row, both int64 [copies].

    A matrix product that is split may round the sums of equal rows differently. Equal features must
    tie nevertheless, so a copy takes the distance of its original.
    """
    # A few columns tell most rows apart; only the other rows are read whole.
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
    originals = order[starts.nonzero().squeeze(1)[starts.cumsum(0) - 1]]  # for each row in `order`
    pairs = torch.stack([order[~starts], originals[~starts]], 1)  # [copies, 2]

    def equal(pairs: Tensor) -> Tensor:  # equal hashes are not enough
        return (gallery[pairs[:, 0]] == gallery[pairs[:, 1]]).all(1)

    pairs = pairs[_in_parts(equal, pairs, width, torch.bool)]
    copies, originals = pairs.unbind(1)
    return copies.contiguous(), originals.contiguous()


def _hash_rows(features: Tensor) -> Tensor:
    """Hashes, int64 [N], of floating [N, D]: the same for equal rows, almost surely different for others."""
    features = features if features.dtype == torch.float64 else features.float()
    bits = torch.int32 if features.dtype == torch.float32 else torch.int64
    generator = torch.Generator().manual_seed(0)
    factors = torch.randint(-(2**62), 2**62, (features.shape[1],), generator=generator)
    factors = factors.to(features.device)
    # Adding 0 makes -0 the 0 it equals. Integer sums wrap: exact in any order.
    return ((features + 0.0).view(bits).long() * factors).sum(1)


def _in_parts(function: Callable[[Tensor], Tensor], rows: Tensor, width: int, dtype: torch.dtype) -> Tensor:
    """function(rows) -> [N] for rows [N, ...], in parts of a fixed size, so that it never copies all rows; it
    handles `width` elements per row."""
    # Results are not joined at the end: a small result that lies behind a part's memory keeps malloc from
    # reusing that memory for the next part, so all parts together would need as much as a copy of all rows.
    found = torch.empty(len(rows), dtype=dtype, device=rows.device)
    step = _rows_of(width)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = function(rows[part])
    return found


def _rows_of(width: int) -> int:
    """How many rows of `width` elements make a part."""
    return max(1, _PART // width)


@contextlib.contextmanager
def _full_precision(device_type: str) -> Iterator[None]:
    """Compute matrix products in the features' own precision: no TF32, no bfloat16, no autocast."""
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
