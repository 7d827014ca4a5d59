"""A training split as batches, made on the model's device or ahead on the host.

If the split fits into a CUDA device's memory, it is copied there once and batches are made there; otherwise
threads assemble the next batches on the host while the model computes. Both give the same bits.
"""

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dsa_ext import CUDA_ERROR
from dsareid.data.batch import Batch, BatchConfig, assemble, empty_batch
from dsareid.data.guide_input import Samples
from dsareid.data.store.format import IMAGES, IUV
from dsareid.data.store.reader import Split
from dsareid.ground import _core
from dsareid.ground.errors import DSAError
from dsareid.ground.files import readable_size
from dsareid.ground.machine import cores
from dsareid.models.options import MEAN, STD

Planned = tuple[int, np.ndarray, np.ndarray]
"""A batch to make: its epoch, and the sampler's index and repeat of its images."""

_AHEAD = 3  # batches in memory: one in use, the others being made
_COPIED_AT_ONCE = 1024  # images, in a copy to a device


class TrainData:
    """A training split as batches on `device`.

    Args:
        split: with IUV maps if the guide input is made from them.
        resident: whether to copy the pixels to the device; None: if it is a CUDA device for which our kernels
            are built, and they take at most half of its free memory.

    Raises:
        DSAError: not enough memory.
    """

    def __init__(self, split: Split, config: BatchConfig, device: torch.device, resident: bool | None = None):
        identities, label = np.unique(split.ids, return_inverse=True)
        self.identities, self.images = len(identities), len(split)
        self._label, self._rows, self._device = torch.from_numpy(label), split.rows, device
        store, maps = split.store, 2 if config.input.needs_iuv else 1
        size = len(split) * store.height * store.width * 3 * maps
        if resident is None:
            served = device.type == "cuda" and CUDA_ERROR is None
            resident = served and size <= torch.cuda.mem_get_info(device)[0] // 2
        # What a resumed run must find again: the same number of images, and the same pixels.
        files = (IMAGES, IUV)[:maps]
        self.fingerprint = {
            "images": len(split),
            "dataset": store.header.dataset,
            "protocol": store.header.protocol,
            **{x: store.header.arrays[x].sha256 for x in files},
        }
        self._source: _Resident | _Stream = (_Resident if resident else _Stream)(split, config, device)
        self.description = f"{readable_size(size)} of pixels, {self._source.description}"

    def batches(self, epoch: int, index: np.ndarray, repeat: np.ndarray) -> Iterator[Batch]:
        """Yield the augmented batches of an epoch; see planned().

        Args:
            index, repeat: as the sampler's epoch() gives them, int64 [batches, B] each.
        """
        return self.planned((epoch, rows, times) for rows, times in zip(index, repeat))

    def planned(self, plan: Iterable[Planned]) -> Generator[Batch, None, None]:
        """Yield augmented batches, one after the other, over the ends of epochs too.

        A batch is valid until the next one is taken. The plan is read some batches ahead. Iterate over one
        plan at a time.

        Args:
            plan: for each batch the epoch, and the sampler's index and repeat of its images, int64 [B] each.

        Raises:
            DSAError: a sample that cannot be read, by its name; a store that changed.
            ValueError: an index that no image has.
        """
        for index, image, dsap in self._source.batches(map(self._checked, plan)):
            yield Batch(image, dsap, self._label[index].to(self._device, non_blocking=True))

    def _checked(self, planned: Planned) -> "_Job":
        epoch, index, repeat = planned
        if index.size and not 0 <= index.min() <= index.max() < self.images:
            raise ValueError(f"index must be 0..{self.images - 1}, not {index.min()}..{index.max()}")
        return _Job(epoch, index, self._rows[index], repeat)


class _Job(NamedTuple):
    """A batch to make."""

    epoch: int
    images: np.ndarray  # int64 [B], of the split
    rows: np.ndarray  # the same, of the store
    repeat: np.ndarray


_Made = tuple[np.ndarray, Tensor, Tensor | None]
"""A job's images by their number, their pixels, their guide input."""


class _Resident:
    """The pixels on the device."""

    def __init__(self, split: Split, config: BatchConfig, device: torch.device):
        self.description = f"held on {device}, where the batches are made"
        self.config, store = config, split.store
        self.images = _copy(store.images, split.rows, device)
        self.iuv = None
        if config.input.needs_iuv and store.iuv is not None:
            self.iuv = _copy(store.iuv, split.rows, device)
        store.check_unchanged()
        self.position = np.full(len(store.images), -1)  # of a row of the store
        self.position[split.rows] = np.arange(len(split))

    def batches(self, jobs: Iterable[_Job]) -> Iterator[_Made]:
        for job in jobs:
            index = torch.from_numpy(self.position[job.rows])
            samples = Samples(self.images, self.iuv, index, self.config.draw(job.epoch, job.rows, job.repeat))
            yield job.images, *assemble(samples, self.config.input)


class _Stream:
    """Batches assembled ahead on the host, in memory that is reused."""

    def __init__(self, split: Split, config: BatchConfig, device: torch.device):
        # If the model runs on the CPU, its own threads need the cores.
        threads = 1 if device.type == "cpu" else min(8, cores())
        self.description = f"read from {split.store.path} by {threads} thread{'s' if threads > 1 else ''}"
        self.device, self.names, self.path = device, split.store.names, split.store.path
        self.config, self.store = config, split.store
        store, network_input = split.store, config.input
        host, pinned = torch.device("cpu"), device.type == "cuda"
        self.copies = None if device.type == "cpu" else torch.cuda.Stream(device)
        self.slots = [empty_batch(network_input, config.batch, host, pinned) for _ in range(_AHEAD)]
        image, dsap = self.slots[0]
        self.prefetcher = _core.Prefetcher(
            images=store.images,
            iuv=None if dsap is None else store.iuv,
            files=[(file, *stamp) for file, stamp in zip(store.descriptors, store.stamps)],
            slots=[(_memory(x), y if y is None else _memory(y)) for x, y in self.slots],
            type=str(network_input.dtype).removeprefix("torch."),
            batch=config.batch,
            height=network_input.height,
            width=network_input.width,
            image_stride=image.stride(),
            size=network_input.dsap_size,
            parts=24,
            dsap_stride=(1,) * 5 if dsap is None else dsap.stride(),
            mirror=False,
            augmented_dsap=True,
            fill=(0, 0, 0),
            mean=MEAN,
            std=STD,
            **asdict(config.augment),
            seed=config.seed,
            threads=threads,
            owners=(self.slots, store),
        )

    def batches(self, jobs: Iterable[_Job]) -> Iterator[_Made]:
        jobs, begun = iter(jobs), deque[tuple[int, _Job]]()
        slots = itertools.cycle(range(_AHEAD))
        try:
            while True:
                for job in itertools.islice(jobs, _AHEAD - len(begun)):
                    slot = next(slots)
                    self.prefetcher.submit(slot, job.epoch, job.rows, job.repeat)
                    begun.append((slot, job))
                if not begun:
                    return
                slot, job = begun[0]
                self._wait(slot)
                begun.popleft()
                for image, dsap in self._delivered(slot):
                    yield job.images, image, self._guide_input(image, dsap, job)
        finally:  # also if the consumer stops early: free the slots
            for slot, _ in begun:
                try:
                    self.prefetcher.wait(slot)
                except (RuntimeError, ValueError):
                    pass  # of a batch that nobody wants any more, or that has failed already

    def _guide_input(self, image: Tensor, dsap: Tensor | None, job: _Job) -> Tensor | None:
        network_input = self.config.input
        if network_input.guide is None or network_input.warped:
            return dsap
        drawn = self.config.draw(job.epoch, job.rows, job.repeat)
        samples = Samples(self.store.images, self.store.iuv, torch.from_numpy(job.rows), drawn)
        return network_input.guide_input(samples, image, dsap)

    def _wait(self, slot: int) -> None:
        try:
            self.prefetcher.wait(slot)
        except _core.SampleError as error:
            name = self.names[error.index]
            raise DSAError(f"{self.path}: {name}: {error}; pack the data set again") from error

    def _delivered(self, slot: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        if self.copies is None:
            yield self.slots[slot]
            return
        # On a stream of its own, so that a copy runs beside the kernels of the step before.
        using, copied = torch.cuda.current_stream(self.device), torch.cuda.Event()
        try:
            try:
                with torch.cuda.stream(self.copies):
                    image, dsap = (
                        None if x is None else x.to(self.device, non_blocking=True) for x in self.slots[slot]
                    )
            finally:
                copied.record(self.copies)
            using.wait_event(copied)
            for x in (image, dsap):
                if x is not None:
                    x.record_stream(using)  # its memory is not given away before that stream is done with it
            assert image is not None
            yield image, dsap
        finally:
            copied.synchronize()  # before the slot is written to again


def _memory(tensor: Tensor) -> tuple[int, int]:
    """The address of a tensor and its bytes."""
    return tensor.data_ptr(), tensor.nbytes


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
