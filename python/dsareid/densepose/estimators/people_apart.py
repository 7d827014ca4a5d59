"""Which person a pixel belongs to, if a picture shows several: BodyPix's head float_long_offsets.

Channels k and 17 + k point from a pixel down and right, in pixels of what the network sees, to key point k of
the pixel's person. They fall short, so they are followed several times, as refineSteps in tfjs-models'
decode_multiple_masks does. Their mean over the 17 key points leads to the middle of the person: after a few
steps all pixels of one person have met, and those of two people who stand apart have met in two places.
People whose middles are nearer than about a fifth of their height flow together, and stay one.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

STEPS = 8  # after these the pixels of one person have met
REACH = 0.2  # of the root of the mask's area: ends that are nearer belong to one person
FEWEST = 0.08  # share of the mask's pixels; a smaller group is no person
MOST = 8  # people
BESIDE = 1.0  # how much further to the side than up or down somebody must be: broken masks break up and down


def toward_middle(long_offsets: Tensor, size: Sequence[int], stride: int) -> Tensor:
    """The way from each cell to its person's middle: (B, 34, h, w) -> (B, 2, h, w), down and right.

    Args:
        size: height and width of the picture; the way is in its pixels.
        stride: pixels of what the network sees from one cell to the next.
    """
    steps = long_offsets.unflatten(1, (2, 17)).mean(2)
    scales = [(n - 1) / (stride * max(m - 1, 1)) for n, m in zip(size, long_offsets.shape[2:])]
    return steps * steps.new_tensor(scales)[:, None, None]


def mirror_toward(toward: Tensor) -> Tensor:
    """What the ways (2, H, W) in the mirrored image say of the image itself."""
    return toward.flip(2) * toward.new_tensor([1, -1])[:, None, None]


def tell_apart(body: Tensor, toward: Tensor) -> Tensor:
    """Whose a pixel of a mask is.

    Args:
        body: bool [H, W], the mask of everybody.
        toward: (2, H, W), as toward_middle gives it.

    Returns:
        int64 [H, W]: 0 outside of the mask, 1 for the main person, who is the largest and most central, and
        2, 3, ... for others, the larger first.
    """
    pixels = body.nonzero()  # [N, 2]
    reach = REACH * len(pixels) ** 0.5
    cells, cell_of, counts = (
        (_follow(pixels, toward) * 4 / max(reach, 1e-6))
        .round()
        .unique(dim=0, return_inverse=True, return_counts=True)
    )
    places = cells * reach / 4  # [C, 2], where pixels end
    middles, sizes = _find_people(places, counts.float(), reach, FEWEST * len(pixels))
    if len(middles) < 2:
        return body.long()
    width = max(body.shape[1] - 1, 1)
    central = 1 - (2 * middles[:, 1] / width - 1).abs()
    main = int((sizes * central).argmax())
    down, right = (middles - middles[main]).abs().unbind(1)
    beside = right >= BESIDE * down  # the main person too
    nearest = _distances(places, middles).masked_fill(~beside, torch.inf).argmin(1)
    largest = [k for k in sizes.argsort(descending=True, stable=True).tolist() if beside[k] and k != main]
    numbers = torch.zeros(len(middles), dtype=torch.int64, device=body.device)
    numbers[[main, *largest]] = torch.arange(1, len(largest) + 2, device=body.device)
    found = body.long()
    found[body] = numbers[nearest][cell_of]
    return found


def _follow(pixels: Tensor, toward: Tensor) -> Tensor:
    """Where pixels [N, 2] end after STEPS steps, float32 [N, 2]."""
    last = torch.tensor(toward.shape[1:], device=toward.device) - 1
    ends = pixels.float()
    for _ in range(STEPS):
        y, x = ends.round().long().unbind(1)
        ends = (ends + toward[:, y, x].T).clamp(torch.zeros_like(last), last)
    return ends


def _find_people(places: Tensor, counts: Tensor, reach: float, fewest: float) -> tuple[Tensor, Tensor]:
    """The middles [P, 2] of people and their sizes [P], in pixels. Takes, again and again, the place near
    which most of the pixels end that belong to nobody yet."""
    near = (_distances(places, places) < reach).float()
    middles: list[Tensor] = []
    sizes: list[Tensor] = []
    while len(middles) < MOST and len(places):
        votes = near @ counts
        best = votes.argmax()
        if votes[best] < max(fewest, 1):
            break
        members = near[best] * counts
        middles.append(members @ places / votes[best])
        sizes.append(votes[best])
        counts = counts - members
    if not middles:
        return places[:0], counts[:0]
    return torch.stack(middles), torch.stack(sizes)


def _distances(one: Tensor, other: Tensor) -> Tensor:
    """[n, 2], [m, 2] -> [n, m], with the same bits on any number of threads."""
    return torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
