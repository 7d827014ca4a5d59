"""Folders of runs for tests: a small network with random weights, as train would have left it."""

from pathlib import Path

import torch

from dsareid.engine.learner import Learner
from dsareid.models.options import NetworkConfig
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Position, RunFolder

HEIGHT, WIDTH = 64, 32


def make_run(folder: Path, data: Path = Path("data"), classifier: str = "two-layer", **changes) -> Path:
    """A run of 4 identities whose layers, BatchNorm's statistics too, are all random."""
    network = NetworkConfig(width=1 / 8, head_width=1 / 8, depths=(1, 1, 1, 1), classifier=classifier)
    config = TrainConfig(
        data=data,
        out=folder,
        epochs=1,
        height=HEIGHT,
        width=WIDTH,
        dsap_size=8,
        weights="none",
        network=network,
        **changes,
    )
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
