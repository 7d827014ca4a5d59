"""torchvision's ConvNeXt-Tiny, taught by a guide while it trains, alone afterwards.

    dsareid synth demo/data
    python examples/guide_convnext.py demo/data convnext.pth cpu

The ConvNeXt has only a global feature, and nothing is added to it. The guide learns by losses of its own, and
after the first 100 steps its logits teach those of the ConvNeXt (guidance "distill", not in the paper).
"""

import sys

import torch
from torch import nn
from torchvision.models import convnext_tiny

from dsareid.models.guide import Guide, LossConfig, losses


def train(batches, identities: int, device: str, teach_after: int = 100) -> nn.Module:
    """The backbone, without its guide. A batch has image, dsap and label."""
    backbone = convnext_tiny(weights=None)  # "IMAGENET1K_V1" downloads trained ones
    backbone.classifier = backbone.classifier[:2]  # without the last layer: the feature, (B, 768)
    backbone.to(device)
    guide = Guide(identities, global_size=768, guidance="distill", width=1 / 8).to(device)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *guide.parameters()], lr=3e-4)
    for step, batch in enumerate(batches, 1):
        output = guide(backbone(batch.image.to(device)), None, batch.dsap.to(device))
        terms = losses(output, batch.label.to(device), LossConfig(), teaching=step > teach_after)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
        print(f"step {step}: " + ", ".join(f"{name} {loss.item():.3f}" for name, loss in terms.items()))
    return backbone.eval()


if __name__ == "__main__":
    from guide_batches import batches

    torch.save(train(*batches(sys.argv[1]), sys.argv[3]).state_dict(), sys.argv[2])
