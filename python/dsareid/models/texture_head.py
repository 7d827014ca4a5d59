"""Guidance "texture": a head on f predicts what the person looks like, in training only.

A relative is SAN (Jin, Lan, Zeng, Wei, Chen: Semantics-Aligned Representation Learning for Person
Re-identification, AAAI 2020), whose decoder grows a picture's own texture from the feature map.
"""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dsareid.models.features import Features


class PersonTargets(NamedTuple):
    """What is predicted of each of N people, and where it is known."""

    values: Tensor  # float32 (N, D), normalised colours
    known: Tensor  # bool (N, D)

    def digest(self) -> str:
        """SHA-256 of all values, in hex."""
        both = (x.cpu().numpy().tobytes() for x in self)
        return hashlib.sha256(b"".join(both)).hexdigest()


class TextureHead(nn.Module):
    """BatchNorm and one linear layer on [f_G, f_L].

    Args:
        inputs: length of [f_G, f_L].
        outputs: values that are predicted.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs)
        self.predict = nn.Linear(inputs, outputs)

    def forward(self, f: Features) -> Tensor:
        """f of a batch; returns (B, outputs)."""
        return self.predict(self.norm(torch.cat(f.vectors(), 1)))
