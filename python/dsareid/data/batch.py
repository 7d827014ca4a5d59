"""Batches and how they are made: one pass of compiled code (dsa_ext.assemble_batch) gathers, resizes,
augments and normalises the images, and warps the DSAP-images.
"""

from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsa_ext import assemble_batch, draw_augmentation
from dsareid.data.augment import AugmentConfig
from dsareid.data.guide_input import GUIDE_INPUTS, Samples
from dsareid.models.options import GUIDE_INPUT_NEEDS_IUV, MEAN, POOLED_INPUTS, STD, InputName


class Batch(NamedTuple):
    """A training batch. The next one may be written to the same memory."""

    image: Tensor  # (B, 3, H, W), normalised, channels_last
    dsap: Tensor | None  # (B, 24, 3, S, S), the guide input; DSAP-images have 0 in empty cells (section 3.1)
    # with guidance pool uint8 (B, H, W): the part of each pixel
    label: Tensor  # int64 (B,), 0..identities - 1


@dataclass(frozen=True)
class InputConfig:
    """The network's input, in training and evaluation."""

    height: int  # pixels
    width: int
    guide: InputName | None  # None: the network, or this use of it, has no guide
    dsap_size: int  # S of a part image
    dtype: torch.dtype = torch.float32

    @property
    def warped(self) -> bool:
        """Whether assemble_batch makes the guide input, in the pass that makes the images."""
        return self.guide is not None and GUIDE_INPUTS[self.guide] is None

    @property
    def needs_iuv(self) -> bool:
        return self.guide is not None and GUIDE_INPUT_NEEDS_IUV[self.guide]

    def guide_shape(self, count: int) -> tuple[int, ...]:
        """The shape of the guide input of `count` samples."""
        if self.guide in POOLED_INPUTS:
            return count, self.height, self.width
        return count, 24, 3, self.dsap_size, self.dsap_size

    def guide_input(self, samples: Samples, image: Tensor, dsap: Tensor | None) -> Tensor | None:
        """The guide input of a batch: its DSAP-images, or what GUIDE_INPUTS makes instead."""
        make = None if self.guide is None else GUIDE_INPUTS[self.guide]
        return dsap if make is None else make(samples, image, self.dsap_size)


@dataclass(frozen=True)
class BatchConfig:
    """How training batches are made: the network's input, the number of images, their augmentation."""

    input: InputConfig
    batch: int  # B
    augment: AugmentConfig
    seed: int

    def draw(self, epoch: int, rows: np.ndarray, repeat: np.ndarray) -> Tensor:
        """The augmentation of each sample of a batch, int32 (B, 8); see dsa_ext.draw_augmentation."""
        size = {"height": self.input.height, "width": self.input.width}
        return draw_augmentation(self.seed, epoch, rows, repeat, **size, **asdict(self.augment))


def assemble(
    samples: Samples, config: InputConfig, out: tuple[Tensor, Tensor | None] | None = None
) -> tuple[Tensor, Tensor | None]:
    """The network's input: normalised images, and the guide input.

    Args:
        out: memory to write images and DSAP-images into, as empty_batch makes it.

    Returns:
        image (B, 3, H, W), channels_last, and the guide input (B, 24, 3, S, S) or None, on the device of the
        stored images.
    """
    device = samples.images.device if isinstance(samples.images, Tensor) else torch.device("cpu")
    image, dsap = assemble_batch(
        samples.images,
        samples.iuv if config.warped else None,
        samples.index,
        samples.drawn,
        height=config.height,
        width=config.width,
        size=config.dsap_size,
        mean=MEAN,
        std=STD,
        out=out or empty_batch(config, len(samples.index), torch.device(device)),
    )
    return image, config.guide_input(samples, image, dsap)


def empty_batch(
    config: InputConfig, count: int, device: torch.device, pinned: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Memory for `count` samples: images, channels_last for fast convolutions, and DSAP-images."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=config.dtype, device=device, pin_memory=pinned)

    image = empty(count, config.height, config.width, 3).permute(0, 3, 1, 2)
    return image, empty(*config.guide_shape(count)) if config.warped else None
