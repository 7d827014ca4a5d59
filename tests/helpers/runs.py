"""Folders of runs for tests: a small network with random weights, as train would have left it."""

from pathlib import Path

import torch

from dsareid.engine import TrainConfig
from dsareid.runs.config import NetworkConfig, save_config
from dsareid.runs.folder import CONFIG, Position, build_model, save_checkpoint

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
    model, generator = build_model(config, 4), torch.Generator().manual_seed(config.seed)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1, generator=generator)
    folder.mkdir(parents=True)
    save_config(config, folder / CONFIG)
    optimizer, scaler = torch.optim.Adam(model.parameters()), torch.amp.GradScaler("cpu", enabled=False)
    save_checkpoint(folder, model, optimizer, scaler, Position(1, 0, 1), {})
    return folder
