"""Tiny runs for tests: their settings, and folders with random weights, as train would have left them."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from dsareid.data.augment import AugmentConfig
from dsareid.engine.learner import Learner
from dsareid.models.options import NetworkConfig
from dsareid.runs.config import OptimConfig, TrainConfig
from dsareid.runs.folder import Position, RunFolder

HEIGHT, WIDTH = 64, 32
NETWORK = NetworkConfig(width=1 / 8, head_width=1 / 8, depths=(1, 1, 1, 1))

ARGUMENTS = f"""
--preset demo --identities 2 --images 2 --height {HEIGHT} --width {WIDTH} --dsap-size 8
--network.depths 1 1 1 1 --device cpu
""".split()
"""Options of dsareid train: an epoch takes seconds."""


def tiny_config(data: Path, out: Path, **changes: Any) -> TrainConfig:
    """Settings of a training that takes seconds."""
    config = TrainConfig(
        data=data,
        out=out,
        epochs=2,
        height=HEIGHT,
        width=WIDTH,
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


def make_run(folder: Path, data: Path = Path("data"), classifier: str = "two-layer", **changes) -> Path:
    """A run of 4 identities whose layers, BatchNorm's statistics too, are all random."""
    network = dataclasses.replace(NETWORK, classifier=classifier)
    config = tiny_config(data, folder, **{"epochs": 1, "network": network, **changes})
    learner, generator = Learner(config, 4, torch.device("cpu")), torch.Generator().manual_seed(config.seed)
    for module in learner.model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=generator)
    folder.mkdir(parents=True)
    write_untrained(RunFolder(folder), learner, Position(1, 0, 1))
    return folder


def write_untrained(run: RunFolder, learner: Learner, position: Position, data: dict | None = None) -> None:
    """Write settings and checkpoint of a learner as it is."""
    run.write_config(learner.config)
    run.write_checkpoint(learner.state_dict(), position, learner.model.num_classes, data or {})
