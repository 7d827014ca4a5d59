"""A ViT from timm, guided while it trains, alone afterwards.

    dsareid synth demo/data
    python examples/guide_timm_vit.py demo/data vit.pth cpu

Its class token is the global feature. Each of eight part features is a mean of the other tokens, by an
attention that learns where to look. Stripes of the image would not do: hands lie in the rows of the legs, and
boxes are inexact.
"""

import sys

import timm
import torch
from torch import nn

from dsareid.models.guide import Guide, LossConfig, losses


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        # pretrained=True downloads trained weights
        self.vit = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True)
        self.parts = nn.Linear(self.vit.embed_dim, 8)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        whole, patches = self.vit.forward_features(image).tensor_split([1], 1)  # [B, 1, 192], [B, N, 192]
        attention = self.parts(patches).softmax(1)  # [B, N, 8]
        return whole[:, 0], attention.mT @ patches


def train(batches, identities: int, device: str) -> nn.Module:
    """The backbone, without its guide. A batch has image, dsap and label."""
    backbone = Backbone().to(device)
    guide = Guide(identities, global_size=192, local_size=192, width=1 / 8).to(device)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *guide.parameters()], lr=3e-4)
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
