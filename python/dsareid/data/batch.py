"""From stored pixels to what the network takes. The DSAP-images are made here, on the fly."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsa_ext import iuv_to_dsap
from dsareid.data.augment import AugmentConfig, augment, draw_augmentation
from dsareid.data.market import Split
from dsareid.data.sampler import Draw

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class Batch(NamedTuple):
    """A training batch."""

    image: Tensor  # float32 (B, 3, H, W), normalised
    dsap: Tensor | None  # float32 (B, 24, 3, S, S), normalised, empty cells 0
    label: Tensor  # int64 (B,), 0..identities - 1


def eval_images(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] -> float32 (B, 3, H, W), normalised; channels_last, nothing is copied over."""
    mean, std = (torch.tensor(x, device=images.device) for x in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def eval_dsap(images: Tensor, iuv: Tensor, size: int) -> Tensor:
    """uint8 [B, H, W, 3] images and IUV maps -> float32 (B, 24, 3, size, size), normalised.

    Empty cells hold 0, which is the mean of the images (section 3.1).
    """
    image, iuv = images.permute(0, 3, 1, 2), iuv.permute(0, 3, 1, 2)
    return iuv_to_dsap(image, iuv, size=size, dtype=torch.float32, mean=MEAN, std=STD)


class TrainData:
    """A training split whose batches are assembled on `device`.

    Args:
        split: with IUV maps if dsap_size is given.
        dsap_size: S of the DSAP-images, or None for networks that take none.
    """

    def __init__(
        self,
        split: Split,
        augmentation: AugmentConfig,
        dsap_size: int | None,
        seed: int,
        device: torch.device,
    ):
        self.config, self.dsap_size, self.seed, self.device = augmentation, dsap_size, seed, device
        identities, label = np.unique(split.ids, return_inverse=True)
        self.identities = len(identities)
        self.label = torch.from_numpy(label)
        self.images = torch.from_numpy(split.images)
        self.iuv = torch.from_numpy(split.iuv) if dsap_size else None

    def batch(self, epoch: int, draw: Draw) -> Batch:
        """The augmented batch of a draw; the DSAP-images are warped from the augmented view."""
        _, height, width, _ = self.images.shape
        drawn = draw_augmentation(
            self.config, self.seed, epoch, draw.index, draw.repeat, height, width
        )
        index = torch.from_numpy(draw.index)
        images = self.images[index].to(self.device)
        iuv = None if self.iuv is None else self.iuv[index].to(self.device)
        images, iuv, valid = augment(images, iuv, drawn)
        image = eval_images(images) * valid[:, None]  # 0 is the mean
        dsap = None if iuv is None else eval_dsap(images, iuv, self.dsap_size)
        return Batch(image, dsap, self.label[index].to(self.device))
