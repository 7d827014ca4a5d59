"""A plain torchvision training loop that learns from DSAP-images as well: the lines marked DSAP.

    dsareid synth demo/data
    python examples/torchvision_loop.py demo/data --epochs 1

A small network looks at the 24 part images of each person. Its feature is added to the ResNet's, so that the
ResNet is drawn towards aligned features (section 3 of the paper); afterwards the ResNet works alone.
"""

import argparse

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.models import resnet18
from tqdm import tqdm

from dsareid.data.torch_dataset import DSAPDataset, collate_dsap  # DSAP

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train(data: str, epochs: int) -> nn.Module:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    transform = transforms.Compose(
        [transforms.Resize((128, 64)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    dataset = DSAPDataset(data, transform=transform)  # DSAP
    loader = DataLoader(
        dataset,
        batch_size=32,
        shuffle=True,
        num_workers=2,
        collate_fn=collate_dsap,  # DSAP
    )

    network = resnet18(weights=None)
    network.fc = nn.Identity()  # the feature, (B, 512)
    classifier = nn.Linear(512, dataset.identities)
    guide = nn.Sequential(  # DSAP
        nn.Flatten(1, 2), nn.Conv2d(24 * 3, 64, 5, stride=2), nn.BatchNorm2d(64), nn.ReLU(),  # DSAP
        nn.Conv2d(64, 512, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),  # DSAP
    )  # fmt: skip  # DSAP
    model = nn.ModuleList(
        [
            network,
            classifier,
            guide,  # DSAP
        ]
    ).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)

    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in tqdm(loader, desc=f"epoch {epoch}", unit="batch"):
            feature, label = network(batch.image.to(device)), batch.label.to(device)
            loss = cross_entropy(classifier(feature), label)
            loss += cross_entropy(classifier(feature + guide(batch.dsap.to(device))), label)  # DSAP
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(label)
        print(f"epoch {epoch}: loss {total / len(dataset):.3f}")
    return network


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="folder in Market-1501's layout, with iuv/")
    parser.add_argument("--epochs", type=int, default=10)
    train(**vars(parser.parse_args()))
