"""Training batches from the files of a data set: ways a to d of loader.py."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dsareid.data.layouts.base import TRAIN
from dsareid.data.torch_dataset import DSAPDataset, collate_dsap
from dsareid.models.options import MEAN, STD

BATCH, HEIGHT, WIDTH, SIZE, THREADS = 64, 256, 128, 32, 2
AHEAD = 4  # batches that loaders keep ready; not timed
Batches = Iterator[tuple[Tensor, Tensor]]  # (B, 3, H, W) and (B, 24, 3, S, S)


def image_transforms(augment: bool) -> transforms.Compose:
    steps = [transforms.Resize((HEIGHT, WIDTH))]
    if augment:
        crop = [transforms.Pad(10), transforms.RandomCrop((HEIGHT, WIDTH))]
        steps += [*crop, transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    if augment:
        steps.append(transforms.RandomErasing(0.5, (0.02, 0.4), (0.3, 1 / 0.3)))
    return transforms.Compose(steps)


def cells(iuv: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every pixel, int64 [H, W] each."""
    return tuple(np.minimum(iuv[..., k].astype(np.int64) * SIZE // 255, SIZE - 1) for k in (1, 2))


def normalised(pixels: np.ndarray) -> np.ndarray:
    return (pixels / np.float32(255) - np.float32(MEAN)) / np.float32(STD)


def loop_over_parts(pixels: np.ndarray, iuv: np.ndarray) -> np.ndarray:
    """What most people write. uint8 [H, W, 3] each -> float32 [24, 3, S, S]."""
    out = np.zeros((24, 3, SIZE, SIZE), np.float32)
    row, column = cells(iuv)
    for part in range(24):
        where = iuv[..., 0] == part + 1
        out[part][:, row[where], column[where]] = normalised(pixels[where]).T
    return out


def flat_scatter(pixels: np.ndarray, iuv: np.ndarray) -> np.ndarray:
    out = np.zeros((25 * SIZE * SIZE, 3), np.float32)  # the first part image takes the background
    row, column = cells(iuv)
    out[((iuv[..., 0] * np.int64(SIZE) + row) * SIZE + column).ravel()] = normalised(pixels.reshape(-1, 3))
    return out.reshape(25, SIZE, SIZE, 3)[1:].transpose(0, 3, 1, 2)


class Files(Dataset):
    """a and b: image and DSAP-images of one file."""

    def __init__(self, root: Path, warp: Callable, augment: bool):
        self.files = sorted((root / TRAIN).iterdir())
        self.maps = [root / "iuv" / TRAIN / f"{path.stem}.png" for path in self.files]
        self.warp, self.transform = warp, image_transforms(augment)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, np.ndarray]:
        image = Image.open(self.files[index]).convert("RGB")
        iuv = np.asarray(Image.open(self.maps[index]))[..., ::-1]
        return self.transform(image), self.warp(np.asarray(image), iuv)


def data_loader(dataset: Dataset, augment: bool, **options) -> Iterator:
    loader = DataLoader(
        dataset,
        BATCH,
        shuffle=augment,
        drop_last=True,
        num_workers=THREADS,
        persistent_workers=True,
        prefetch_factor=AHEAD // THREADS,
        **options,
    )
    while True:
        yield from loader


def numpy_way(root: Path, warp: Callable) -> Callable[[bool], Batches]:
    return lambda augment: data_loader(Files(root, warp, augment), augment)


def collate_way(root: Path) -> Callable[[bool], Batches]:
    def batches(augment: bool) -> Batches:
        dataset = DSAPDataset(root, transform=image_transforms(augment))
        for batch in data_loader(dataset, augment, collate_fn=collate_dsap):
            yield batch.image, batch.dsap

    return batches


def spdl_way(root: Path) -> Callable[[bool], Batches]:
    from spdl.pipeline import PipelineBuilder

    def batches(augment: bool) -> Batches:
        dataset = DSAPDataset(root, transform=image_transforms(augment))
        rng = np.random.default_rng(0)

        def order() -> Iterator[int]:
            while True:
                chosen = rng.permutation(len(dataset)) if augment else range(len(dataset))
                yield from (int(i) for i in chosen[: len(dataset) // BATCH * BATCH])

        pipeline = (
            PipelineBuilder()
            .add_source(order())
            .pipe(dataset.__getitem__, concurrency=THREADS, output_order="input")
            .aggregate(BATCH)
            .pipe(collate_dsap)
            .add_sink(AHEAD)
            .build(num_threads=THREADS)
        )
        torch.set_num_threads(1)  # as in the workers of a DataLoader: the pipeline has the cores
        with pipeline.auto_stop():
            for batch in pipeline:
                yield batch.image, batch.dsap

    return batches
