"""What each person of a training split looks like: targets of guidance "texture", merged from all views.

part-images  the person's texture: 13 part images, left and right folded, the torso symmetric, so that a
             mirrored picture has the same; a cell that no view shows is left out
others       the same textures, each given to another person (a control)
pictures     the person's mean picture, made symmetric: not aligned (a control)
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsa_ext import iuv_to_dsap
from dsa_ext.parts import MIRROR_GROUP
from dsareid.data.store.reader import Split
from dsareid.models.options import MEAN, STD, GuideInputName
from dsareid.models.texture_head import PersonTargets

_AT_ONCE = 256  # images
_TORSO = MIRROR_GROUP[:2]  # its halves, each in an image of its own; their mirror twins are themselves


def person_targets(split: Split, kind: GuideInputName, size: int, picture: tuple[int, int]) -> PersonTargets:
    """The targets of a split's people, by label: identities in ascending order.

    Args:
        kind: see the module.
        size: S of a part image.
        picture: rows and columns of a mean picture.
    """
    identities, label = np.unique(split.ids, return_inverse=True)
    total: Tensor | None = None
    count: Tensor | None = None
    for start in range(0, len(split), _AT_ONCE):
        rows = split.rows[start : start + _AT_ONCE]
        labels = torch.from_numpy(label[start : start + _AT_ONCE])
        pixels = torch.from_numpy(split.store.images[rows]).permute(0, 3, 1, 2)
        if kind == "pictures":
            values, seen = _picture(pixels, picture)
        else:
            assert split.store.iuv is not None  # the split was selected with maps
            values, seen = _texture(pixels, torch.from_numpy(split.store.iuv[rows]).permute(0, 3, 1, 2), size)
        if total is None or count is None:
            total, count = (torch.zeros(len(identities), x.shape[1]) for x in (values, values))
        total.index_add_(0, labels, values * seen)
        count.index_add_(0, labels, seen.float())
    assert total is not None and count is not None  # a split has images
    found = PersonTargets(total / count.clamp(min=1), count > 0)
    if kind == "others":
        found = PersonTargets(*(x.roll(len(identities) // 2, 0) for x in found))
    return found


def _texture(pixels: Tensor, iuv: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Part images [B, 13 * 3 * S * S], and which of their values a pixel gave."""
    images, source = iuv_to_dsap(
        pixels,
        iuv,
        size=size,
        parts=13,
        mirror=True,
        dtype=torch.float32,
        mean=MEAN,
        std=STD,
        return_source=True,
    )
    seen = (source >= 0)[:, :, None].expand_as(images).float()  # [B, 13, 3, S, S]
    images = images * seen
    torso = list(_TORSO)
    both, images = seen.clone(), images.clone()
    both[:, torso] += seen[:, torso].flip(4)  # V runs across the torso
    images[:, torso] += images[:, torso].flip(4)
    return (images / both.clamp(min=1)).flatten(1), (both > 0).float().flatten(1)


def _picture(pixels: Tensor, picture: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The picture and its mirror image, averaged, [B, 3 * H * W]; all of it is known."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    values = (F.adaptive_avg_pool2d(pixels.float() / 255, picture) - mean) / std
    values = ((values + values.flip(3)) / 2).flatten(1)
    return values, torch.ones_like(values)
