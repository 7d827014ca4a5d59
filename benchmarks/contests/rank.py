"""Counting ranks against sorting the gallery for every query."""

from collections.abc import Iterator

import torch
from contests.contest import SETS, Contest, equal
from torch import Tensor

from dsa_ext import count_ranks
from dsa_ext.rank import columns
from dsa_ext.selftest.operations.rank import GALLERY, IDENTITIES, rank_bytes, ranking


def sort_ranks(distances, members, first, count, query_cams, gallery_cams) -> tuple[Tensor, Tensor]:
    """What most evaluations do: sort the whole gallery for every query, drop junk, find the hits."""
    queries, gallery = distances.shape
    most = columns(count)
    step = torch.arange(most, device=distances.device)
    mine = step < count[:, None]  # [T, M]
    candidates = members[(first[:, None] + step).clamp(max=gallery - 1)]  # [T, M]
    same_cam = gallery_cams[candidates] == query_cams[:, None]
    kind = torch.zeros((queries, gallery), dtype=torch.int32, device=distances.device)
    label = torch.where(same_cam, 2, 1).int() * mine  # 1 a positive, 2 junk
    kind.scatter_reduce_(1, candidates.where(mine, 0), label, "amax")
    order = distances.sort(dim=1, stable=True).indices  # [T, G]
    kind = kind.gather(1, order)
    place = (kind != 2).cumsum(1) - 1  # [T, G] among the images that are kept
    found = (kind == 1).sum(1)
    ranks = place.where(kind == 1, gallery).sort(dim=1).values[:, :most]
    return ranks, found


def contests(batch: int, device: str, gallery: int = GALLERY) -> Iterator[Contest]:
    """A tile of four queries for each image of the batch."""
    queries = 4 * batch
    cases = [ranking(queries, gallery, IDENTITIES, seed=seed) for seed in range(SETS)]
    sets = [tuple(x.to(device) for x in case) for case in cases]
    moved = rank_bytes(queries, gallery, columns(cases[0][3]))
    yield Contest(
        f"count_ranks, {queries} x {gallery}, float32",
        moved,
        lambda turn: count_ranks(*sets[turn % SETS]),
        {"torch, a sort per query": lambda: lambda turn: sort_ranks(*sets[turn % SETS])},
        equal,
    )
