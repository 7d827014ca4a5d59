"""From the store to what the network takes: the one way by which training sees data.

Images are gathered, resized, augmented and normalised, and the DSAP-images warped, in one pass of compiled
code (dsa_ext.assemble_batch). Where the training split fits into a CUDA device's memory it is put there
once and batches are made there; otherwise threads assemble the next batches on the host while the model
computes. Both give the same bits.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsa_ext import CUDA_ERROR, assemble_batch, draw_augmentation
from dsa_ext.batch import seen_pixels
from dsareid.data.guide_input import image_patches, part_crops
from dsareid.data.store.format import IMAGES, IUV
from dsareid.data.store.reader import Split
from dsareid.ground import _core
from dsareid.ground.errors import DSAError
from dsareid.ground.files import readable_size
from dsareid.ground.machine import cores

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's
_AHEAD = 3  # batches in memory: one in use, the others being made
_COPIED_AT_ONCE = 1024  # images, on their way to a device


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are varied."""

    pad: int = 10
    """Pixels of padding on each side before the random crop."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    erase: float = 0.5
    """Probability of random erasing (area 0.02..0.4, aspect 0.3..3.33, filled with the mean)."""
    drop_person: float = 0.0
    """Probability that a sample's whole IUV map is taken away (not in the paper)."""
    drop_part: float = 0.0
    """Probability that a single part of a sample's IUV map is taken away (not in the paper)."""


@dataclass(frozen=True)
class GuideConfig:
    """What the guiding stream is fed; the defaults are the paper's."""

    fed: Literal["dsap", "crops", "patches"] = "dsap"
    """dsap: the 24 part images, densely aligned.
    crops: the 24 parts cut out, not aligned inside (CSA, Table 4).
    patches: 24 patches of a grid, which take no DensePose at all (a control, not in the paper)."""
    parts: Literal[24, 8] = 24
    """24 branches that are merged to 13 and 8.
    8: as many branches from the start, their part images merged in the warp (not in the paper)."""
    reversed_charts: bool = False
    """Before hands, feet and head are merged, turn round one of their two mirrored charts.
    (Not in the paper.)"""
    augmented: bool = True
    """Make them from the augmented view, as we read the paper; otherwise from the image as stored."""

    def __post_init__(self):
        if self.fed != "dsap" and (self.parts != 24 or self.reversed_charts):
            raise DSAError(f"--guide.fed {self.fed} has no charts to merge: it goes with 24 parts alone")
        if self.fed == "patches" and not self.augmented:
            raise DSAError("--guide.fed patches are cut out of the augmented image; there are no others")

    @property
    def needs_iuv(self) -> bool:
        return self.fed != "patches"

    @property
    def mirror(self) -> bool:
        """Whether the warp turns charts round; of 24 parts the network does."""
        return self.reversed_charts and self.parts == 8


@dataclass(frozen=True)
class BatchConfig:
    """What batches are made of."""

    batch: int  # B
    height: int  # of the network's input, pixels
    width: int
    guide: GuideConfig | None  # None for networks without a guiding stream
    dsap_size: int  # S of the DSAP-images
    augment: AugmentConfig
    seed: int
    dtype: torch.dtype = torch.float32


class Batch(NamedTuple):
    """A training batch. It may lie in memory that the next one is written to."""

    image: Tensor  # (B, 3, H, W), normalised, channels_last
    dsap: Tensor | None  # (B, parts, 3, S, S), normalised, empty cells 0, which is the mean (section 3.1)
    label: Tensor  # int64 (B,), 0..identities - 1


class TrainData:
    """A training split as batches on `device`.

    Args:
        split: with IUV maps if what the guide is fed is made from them.
        resident: whether its pixels go to the device; None: where it is a CUDA device that our kernels
            serve, and they take at most half of its free memory.

    Raises:
        DSAError: not enough memory.
    """

    def __init__(self, split: Split, config: BatchConfig, device: torch.device, resident: bool | None = None):
        identities, label = np.unique(split.ids, return_inverse=True)
        self.identities, self.images = len(identities), len(split)
        self._label, self._rows, self._device = torch.from_numpy(label), split.rows, device
        store, maps = split.store, 2 if config.guide and config.guide.needs_iuv else 1
        size = len(split) * store.height * store.width * 3 * maps
        if resident is None:
            served = device.type == "cuda" and CUDA_ERROR is None
            resident = served and size <= torch.cuda.mem_get_info(device)[0] // 2
        # What a run must find again when it goes on: as many images, and the same pixels.
        files = (IMAGES, IUV)[:maps]
        self.fingerprint = {
            "images": len(split),
            "dataset": store.header.dataset,
            "protocol": store.header.protocol,
            **{x: store.header.arrays[x].sha256 for x in files},
        }
        self._source = (_Resident if resident else _Stream)(split, config, device)
        self.described = f"{readable_size(size)} of pixels, {self._source.described}"

    def batches(self, epoch: int, index: np.ndarray, repeat: np.ndarray) -> Iterator[Batch]:
        """The augmented batches of the sampler's index and repeat, int64 [batches, B] each.

        A batch is good until the next one is taken, and one epoch is gone through at a time.

        Raises:
            DSAError: a sample that cannot be read, by its name; a store that changed.
            ValueError: an index that no image has.
        """
        if index.size and not 0 <= index.min() <= index.max() < self.images:
            raise ValueError(f"index must be 0..{self.images - 1}, not {index.min()}..{index.max()}")
        pixels = self._source.batches(epoch, self._rows[index], repeat)
        for chosen, (image, dsap) in zip(index, pixels):
            yield Batch(image, dsap, self._label[chosen].to(self._device, non_blocking=True))


class _Resident:
    """The pixels on the device."""

    def __init__(self, split: Split, config: BatchConfig, device: torch.device):
        self.described = f"held on {device}, where the batches are made"
        self.config, store = config, split.store
        self.images = _copy(store.images, split.rows, device)
        self.iuv = None
        if config.guide and config.guide.needs_iuv:
            self.iuv = _copy(store.iuv, split.rows, device)
        store.check_unchanged()
        self.position = np.full(len(store.images), -1)  # of a row of the store
        self.position[split.rows] = np.arange(len(split))

    def batches(
        self, epoch: int, rows: np.ndarray, repeat: np.ndarray
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        for chosen, times in zip(rows, repeat):
            drawn, index = _drawn(self.config, epoch, chosen, times), torch.from_numpy(self.position[chosen])
            out = _empty(self.config, len(chosen), self.images.device)
            yield assemble(self.images, self.iuv, index, drawn, self.config, out)


class _Stream:
    """Batches assembled ahead on the host, in memory that is used again."""

    def __init__(self, split: Split, config: BatchConfig, device: torch.device):
        # On the CPU the model's own threads have the cores.
        threads = 1 if device.type == "cpu" else min(8, cores())
        self.described = f"read from {split.store.path} by {threads} thread{'s' if threads > 1 else ''}"
        self.device, self.names, self.path = device, split.store.names, split.store.path
        self.config, self.store = config, split.store
        store, guide = split.store, config.guide or GuideConfig()
        host, pinned = torch.device("cpu"), device.type == "cuda"
        self.slots = [_empty(config, config.batch, host, pinned) for _ in range(_AHEAD)]
        image, dsap = self.slots[0]
        self.prefetcher = _core.Prefetcher(
            images=store.images,
            iuv=None if dsap is None else store.iuv,
            files=[(file, *stamp) for file, stamp in zip(store.descriptors, store.stamps)],
            slots=[tuple(map(_memory, slot)) for slot in self.slots],
            type=str(config.dtype).removeprefix("torch."),
            batch=config.batch,
            height=config.height,
            width=config.width,
            image_stride=image.stride(),
            size=config.dsap_size,
            parts=guide.parts,
            dsap_stride=(1,) * 5 if dsap is None else dsap.stride(),
            mirror=guide.mirror,
            augmented_dsap=guide.augmented,
            fill=(0, 0, 0),
            mean=MEAN,
            std=STD,
            **asdict(config.augment),
            seed=config.seed,
            threads=threads,
            owners=(self.slots, store),
        )

    def batches(
        self, epoch: int, rows: np.ndarray, repeat: np.ndarray
    ) -> Iterator[tuple[Tensor, Tensor | None]]:
        begun = done = 0
        try:
            while done < len(rows):
                while begun < min(done + _AHEAD, len(rows)):
                    self.prefetcher.submit(begun % _AHEAD, epoch, rows[begun], repeat[begun])
                    begun += 1
                self._wait(done % _AHEAD)
                done += 1
                for image, dsap in self._delivered((done - 1) % _AHEAD):
                    yield image, self._fed(image, dsap, epoch, rows[done - 1], repeat[done - 1])
        finally:  # also where the consumer stops early: the slots are to be free
            for step in range(done, begun):
                try:
                    self.prefetcher.wait(step % _AHEAD)
                except (RuntimeError, ValueError):
                    pass  # of a batch that nobody wants any more, or that has failed already

    def _fed(
        self, image: Tensor, dsap: Tensor | None, epoch: int, rows: np.ndarray, repeat: np.ndarray
    ) -> Tensor | None:
        """What the guide is fed in place of DSAP-images, where it is."""
        if self.config.guide is None or self.config.guide.fed == "dsap":
            return dsap
        drawn = _drawn(self.config, epoch, rows, repeat)
        return _in_place_of_dsap(
            self.store.images, self.store.iuv, torch.from_numpy(rows), drawn, self.config, image
        )

    def _wait(self, slot: int) -> None:
        try:
            self.prefetcher.wait(slot)
        except _core.SampleError as error:
            name = self.names[error.index]
            raise DSAError(f"{self.path}: {name}: {error}; pack the data set again") from error

    def _delivered(self, slot: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        if self.device.type == "cpu":
            yield self.slots[slot]
            return
        copied = torch.cuda.Event()
        try:
            try:
                pair = self.slots[slot]
                there = tuple(x if x is None else x.to(self.device, non_blocking=True) for x in pair)
            finally:
                copied.record(torch.cuda.current_stream(self.device))
            yield there
        finally:
            copied.synchronize()  # before the slot is written to again


def assemble(
    images: np.ndarray | Tensor,
    iuv: np.ndarray | Tensor | None,
    index: Tensor,
    drawn: Tensor | None,
    config: BatchConfig,
    out: tuple[Tensor, Tensor | None] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The network's input: normalised images, and what the guide is fed.

    Args:
        images, iuv: of a store, uint8 (N, h, w, 3); iuv may be missing where the guide needs none.
        index: int64 (B,), rows of them.
        drawn: of draw_augmentation, or None.
        out: memory to write into, as assemble_batch takes it.

    Returns:
        image (B, 3, H, W), channels_last, and dsap (B, parts, 3, S, S) or None, on the device of images.
    """
    guide = config.guide
    warped = guide is not None and guide.fed == "dsap"
    device = images.device if isinstance(images, Tensor) else torch.device("cpu")
    out = out or _empty(config, len(index), device)
    image, dsap = assemble_batch(
        images,
        iuv if warped else None,
        index,
        drawn,
        height=config.height,
        width=config.width,
        size=config.dsap_size,
        parts=guide.parts if warped else 24,
        mirror=warped and guide.mirror,
        augmented_dsap=not warped or guide.augmented,
        mean=MEAN,
        std=STD,
        out=out,
    )
    if guide is None or warped:
        return image, dsap
    return image, _in_place_of_dsap(images, iuv, index, drawn, config, image)


def _in_place_of_dsap(images, iuv, index: Tensor, drawn, config: BatchConfig, image: Tensor) -> Tensor:
    """Crops or patches, (B, 24, 3, S, S), on the device of `image`."""
    if config.guide.fed == "patches":
        return image_patches(image, config.dsap_size, drawn)
    stored, charts = (
        x[index.to(x.device)] if isinstance(x, Tensor) else torch.from_numpy(x[index.numpy()])
        for x in (images, iuv)
    )  # [B, h, w, 3]
    pixels, charts = seen_pixels(
        stored, charts, drawn, config.height, config.width, augmented=config.guide.augmented
    )
    crops = part_crops(pixels, charts[..., 0], config.dsap_size, MEAN, STD)
    return crops.to(image.device, image.dtype)


def _drawn(config: BatchConfig, epoch: int, rows: np.ndarray, repeat: np.ndarray) -> Tensor:
    return draw_augmentation(
        config.seed, epoch, rows, repeat, height=config.height, width=config.width, **asdict(config.augment)
    )


def _empty(
    config: BatchConfig, count: int, device: torch.device, pinned: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Memory for some samples: images channels_last, in which convolutions are fast, and DSAP-images."""
    options = {"dtype": config.dtype, "device": device, "pin_memory": pinned}
    image = torch.empty((count, config.height, config.width, 3), **options).permute(0, 3, 1, 2)
    if config.guide is None or config.guide.fed != "dsap":
        return image, None
    size = config.dsap_size
    return image, torch.empty((count, config.guide.parts, 3, size, size), **options)


def _memory(tensor: Tensor | None) -> tuple[int, int] | None:
    """Its address and bytes."""
    return None if tensor is None else (tensor.data_ptr(), tensor.nbytes)


def _copy(stored: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Rows of a mapped array on a device, a few at a time."""
    try:
        copy = torch.empty((len(rows), *stored.shape[1:]), dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError as error:
        raise DSAError(f"{len(rows)} images do not fit into the memory of {device}: {error}") from error
    for start in range(0, len(rows), _COPIED_AT_ONCE):
        part = slice(start, start + _COPIED_AT_ONCE)
        copy[part].copy_(torch.from_numpy(stored[rows[part]]))
    return copy
