"""torchvision's ResNet-18, guided while it trains, alone afterwards.

    dsareid synth demo/data
    python examples/guide_resnet18.py demo/data resnet18.pth cpu

The ResNet gets a head for eight part features, which it keeps; the guide's features are added to all of its
own (section 3 of the paper). Each part reads the whole image with weights of its own, as the paper's do: a
hand may be anywhere.
"""

import sys

import torch
from torch import nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from dsareid.models.guide import Guide, LossConfig, losses


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        # weights="IMAGENET1K_V1" downloads trained ones
        self.trunk = create_feature_extractor(resnet18(weights=None), ["layer4"])
        self.parts = nn.Sequential(nn.Conv2d(512, 8 * 64, 1), nn.BatchNorm2d(8 * 64), nn.ReLU())

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.trunk(image)["layer4"]  # [B, 512, H/32, W/32]
        return x.mean((2, 3)), self.parts(x).mean((2, 3)).unflatten(1, (8, 64))


def train(batches, identities: int, device: str) -> nn.Module:
    """The backbone, without its guide. A batch has image, dsap and label."""
    backbone = Backbone().to(device)
    guide = Guide(identities, global_size=512, local_size=64, width=1 / 8).to(device)
    optimizer = torch.optim.Adam([*backbone.parameters(), *guide.parameters()], lr=3e-4)
    for step, batch in enumerate(batches, 1):
        output = guide(*backbone(batch.image.to(device)), batch.dsap.to(device))
        loss = sum(losses(output, batch.label.to(device), LossConfig()).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.3f}")
    return backbone.eval()


if __name__ == "__main__":
    from guide_batches import batches

    torch.save(train(*batches(sys.argv[1]), sys.argv[3]).state_dict(), sys.argv[2])
