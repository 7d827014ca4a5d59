"""Labels of queries and gallery, and which gallery images are a query's matches."""

from typing import NamedTuple

import torch
from torch import Tensor

import dsa_ext
from dsareid.evaluation.arguments import check_labels


class Labels(NamedTuple):
    """Identities (>= 0) and cameras of query and gallery images; integer tensors."""

    query_ids: Tensor  # [Q]
    gallery_ids: Tensor  # [G]
    query_cams: Tensor  # [Q]
    gallery_cams: Tensor  # [G]

    def pairs(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Identity and camera of each query, and of each gallery image."""
        query = zip(self.query_ids.tolist(), self.query_cams.tolist())
        return list(query), list(zip(self.gallery_ids.tolist(), self.gallery_cams.tolist()))


class Positives:
    """The gallery images that share each query's identity, from one grouping of the gallery by identity.

    Its tensors are on the distances' device if dsa_ext can count there, else on the CPU.

    Args:
        shape: queries, gallery.
        removed: int64, images left out of every query's gallery.

    Raises:
        ValueError: labels have a wrong type, shape, dtype or value (it is named).
    """

    def __init__(
        self, labels: Labels, shape: tuple[int, int], device: torch.device, removed: Tensor | None = None
    ):
        served = device.type == "cuda" and dsa_ext.CUDA_ERROR is None
        self.device = device if served else torch.device("cpu")
        counts = dict(zip(Labels._fields, (*shape, *shape)))
        checked = [check_labels(name, x, counts[name], self.device) for name, x in labels._asdict().items()]
        self.query_ids, ids, self.query_cams, self.gallery_cams = checked
        self.size = len(ids)
        if removed is not None:
            self.size -= len(removed)
            ids = ids.index_fill(0, removed.to(self.device), int(max(ids.max(), self.query_ids.max())) + 1)
        for name, identities in (("query_ids", self.query_ids), ("gallery_ids", ids)):
            if identities.min() < 0:
                raise ValueError(
                    f"{name} must be >= 0, found {int(identities.min())} "
                    "(-1 marks junk, which is dropped when a data set is loaded)"
                )
        self.gallery_ids = ids  # removed images have one that no query has
        grouped, self.members = ids.sort(stable=True)
        self.first = torch.searchsorted(grouped, self.query_ids)  # [Q]
        self.count = torch.searchsorted(grouped, self.query_ids, right=True) - self.first  # [Q]

    def tile(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What `dsa_ext.count_ranks` takes after the distances of queries start..stop."""
        rows = slice(start, stop)
        return self.members, self.first[rows], self.count[rows], self.query_cams[rows], self.gallery_cams

    def pairs(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Row, within queries start..stop, and column of the pairs that show one person, int64 [n, 2]: first
        the pairs from two cameras, then those from one."""
        count = self.count[start:stop]
        row = torch.arange(stop - start, device=self.device).repeat_interleave(count)
        place = torch.arange(len(row), device=self.device) - (count.cumsum(0) - count)[row]
        column = self.members[self.first[start:stop][row] + place]
        junk = self.gallery_cams[column] == self.query_cams[start:stop][row]
        every = torch.stack([row, column], 1)
        return every[~junk], every[junk]

    def junk(self, query: int) -> Tensor:
        """Gallery indices of the query's identity and camera, int64 [junk]."""
        same_id = self.members[self.first[query] :][: self.count[query]]
        return same_id[self.gallery_cams[same_id] == self.query_cams[query]]

    def junk_count(self) -> Tensor:
        """How many gallery images are junk to each query, int64 [Q]."""
        ids = torch.cat([self.query_ids, self.gallery_ids])
        cams = torch.cat([self.query_cams, self.gallery_cams])
        pairs, pair = torch.stack([ids, cams], 1).unique(dim=0, return_inverse=True)
        queries = len(self.query_ids)
        return pair[queries:].bincount(minlength=len(pairs))[pair[:queries]]
