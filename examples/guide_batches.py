"""The training batches of the guide_*.py examples beside this file.

The DSAP-images are those of the images as stored, so nothing here flips or crops. TrainData in
dsareid.data.batch augments both alike, and its batches go into the same loops.
"""

from torch.utils.data import DataLoader
from torchvision import transforms

from dsareid.data.sampler import PKSampler
from dsareid.data.torch_dataset import DSAPDataset, collate_dsap
from dsareid.models.options import MEAN, STD


def batches(data: str, epochs: int = 10, size: tuple[int, int] = (128, 64)) -> tuple[DataLoader, int]:
    """Batches of 16 identities x 4 images, as the triplet loss needs them, and the number of identities.

    Args:
        data: folder of a data set, with iuv/.
        size: rows and columns of the images.
    """
    transform = [transforms.Resize(size), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    dataset = DSAPDataset(data, transform=transforms.Compose(transform))
    sampler = PKSampler(dataset.labels, identities=min(16, dataset.identities), images=4, seed=0)
    index = [batch for epoch in range(epochs) for batch in sampler.epoch(epoch)[0].tolist()]
    loader = DataLoader(dataset, batch_sampler=index, num_workers=2, collate_fn=collate_dsap)
    return loader, dataset.identities
