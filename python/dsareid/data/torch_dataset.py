"""For your own training loop: a torch Dataset over plain folders, and part images for its batches::

    dataset = DSAPDataset("Market-1501", transform=transform)
    loader = DataLoader(dataset, batch_size=64, shuffle=True, num_workers=8, collate_fn=collate_dsap)
    for batch in loader:
        ...  # batch.image, batch.dsap, batch.label

examples/torchvision_loop.py is a whole loop.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.functional import to_tensor

from dsa_ext import iuv_to_dsap
from dsareid.data.iuv import read_pair
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import LAYOUT, SPLITS, TRAIN
from dsareid.ground.errors import DSAError, logger
from dsareid.models.options import MEAN, STD


class DSAPSample(NamedTuple):
    """An image of a data set. H and W are those of its file."""

    image: object  # what the transform made of it
    pixels: Tensor  # uint8 [H, W, 3] RGB, as stored
    iuv: Tensor  # uint8 [H, W, 3] in the order I, U, V
    label: int  # 0..identities - 1
    id: int  # the number in the file's name; own labels are numbered from 1; 0 is a distractor
    camera: int


class DSAPBatch(NamedTuple):
    """B samples."""

    image: Tensor  # (B, ...), the transformed images
    dsap: Tensor  # float32 (B, 24, 3, S, S), normalised, empty cells 0
    label: Tensor  # int64 (B,)
    id: Tensor  # int64 (B,)
    camera: Tensor  # int64 (B,)


class DSAPDataset(Dataset):
    """The images of one split of a data set, each with its IUV map.

    A file is read when its sample is asked for, and is not kept open. For many epochs a store, as
    `dsareid pack` writes it, with dsa_ext.assemble_batch is faster.

    Args:
        root: the data set's folder, with its IUV maps; its default protocol is used.
        split: "bounding_box_train", "query" or "bounding_box_test", whatever the layout calls them. Junk
            (identity -1) is left out.
        transform: a function of a PIL image, as in torchvision; None: to a float32 tensor (3, H, W) in 0..1.
            It gets the image only: pixels and IUV map stay as they are in the files.

    Raises:
        ValueError: a split of another name.
        DSAError: not a data set, no images of the split, a misnamed image, an image without an IUV map; and,
            when a sample is asked for, a file that is not readable.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str = TRAIN,
        transform: Callable[[Image.Image], object] | None = None,
    ):
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        self.root, self.split, self.transform = Path(root), split, transform
        listing = list_data(root)
        for note in listing.notes:
            logger.warning(note)
        self.entries = [entry for entry in listing.entries if entry.split == split]
        if not self.entries:
            raise DSAError(f"{self.root}: no images of {split}; {LAYOUT}")
        for entry in self.entries:
            if entry.misnamed:
                raise DSAError(f"{self.root / entry.name}: {entry.misnamed}")
        listing.check_maps([split])
        self._maps = [str(entry.iuv) for entry in self.entries]
        ids = [entry.identity for entry in self.entries]
        identities, self.labels = np.unique(ids, return_inverse=True)  # labels: int64 [N]
        self.identities = len(identities)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> DSAPSample:
        entry = self.entries[index]
        pixels, iuv = read_pair(self.root / entry.name, self.root / self._maps[index])
        image = to_tensor(pixels) if self.transform is None else self.transform(Image.fromarray(pixels))
        return DSAPSample(
            image,
            torch.from_numpy(pixels),
            torch.from_numpy(iuv),
            int(self.labels[index]),
            entry.identity,
            entry.camera,
        )


def collate_dsap(
    samples: Sequence[DSAPSample], size: int = 32, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> DSAPBatch:
    """Make a batch from samples and warp their DSAP-images; a collate_fn for a DataLoader.

    For other settings: functools.partial(collate_dsap, size=16). In a DataLoader's workers it computes on
    one thread, as all of torch does there.

    The DSAP-images are those of the images as stored, whatever the transform did: if it flips or crops
    an image, its DSAP-images stay unflipped and whole. dsa_ext.assemble_batch augments both alike.

    Args:
        samples: of a DSAPDataset; files may differ in size, transformed images may not.
        size: side S of a DSAP-image in cells, 1..256.
        mean, std: per channel; a pixel becomes ((x / 255) - mean) / std.

    Raises:
        ValueError: images that are not tensors of one shape; else as dsa_ext.iuv_to_dsap.
    """
    made = [sample.image for sample in samples]
    images = [image for image in made if isinstance(image, Tensor)]
    kinds = sorted({str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in made})
    if len(kinds) > 1 or len(images) < len(made):
        raise ValueError(
            "the transform must make tensors of one shape (torchvision's Resize and ToTensor do), but the "
            f"images of a batch are {', '.join(kinds)}"
        )
    dsap = torch.empty(len(samples), 24, 3, size, size)
    for sample, out in zip(samples, dsap.split(1)):
        pixels, iuv = (x.permute(2, 0, 1)[None] for x in (sample.pixels, sample.iuv))  # [1, 3, H, W]
        iuv_to_dsap(pixels, iuv, size=size, mean=mean, std=std, out=out)
    numbers = torch.tensor([(x.label, x.id, x.camera) for x in samples])  # [B, 3]
    return DSAPBatch(torch.stack(images), dsap, *numbers.unbind(1))
