"""The settings of a training that takes seconds."""

import dataclasses
from pathlib import Path
from typing import Any

from dsareid.data.augment import AugmentConfig
from dsareid.models.options import NetworkConfig
from dsareid.runs.config import OptimConfig, TrainConfig

NETWORK = NetworkConfig(width=1 / 8, head_width=1 / 8, depths=(1, 1, 1, 1))


def tiny_config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    config = TrainConfig(
        data=data,
        out=out,
        epochs=2,
        height=64,
        width=32,
        dsap_size=8,
        identities=2,
        images=2,
        weights="none",
        device="cpu",
        network=NETWORK,
        optim=OptimConfig(rate=1e-3, warm_up_epochs=1),
        augment=AugmentConfig(pad=2),
    )
    return dataclasses.replace(config, **changes)
