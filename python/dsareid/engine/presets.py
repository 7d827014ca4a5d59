"""Presets: a recipe's changes to the settings, whose defaults are the paper's. Imports no torch."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from dsareid.data.augment import AugmentConfig
from dsareid.models.options import PAPER_DEPTHS, RESNET, NetworkConfig
from dsareid.runs.config import OptimConfig, TrainConfig

PresetName = Literal["paper", "small", "demo", "study"]

_DEMO_OPTIM = OptimConfig(
    rate=1.2e-2, warm_up_from=1.2e-4, warm_up_epochs=2.5, schedule="cosine", weight_decay=1e-5
)

# A network for two CPU cores that learns from random weights in minutes. It departs from the paper
# (initialisation, classifier, learning rate, IUV dropping) only where a network this small, on so little
# data, needs it; the losses, the streams and the merging are the paper's.
_DEMO: dict[str, Any] = {
    "epochs": 30,
    "height": 96,
    "width": 48,
    "dsap_size": 16,
    "identities": 12,
    "images": 4,
    "weights": "none",
    "network": NetworkConfig(
        width=1 / 4, head_width=1 / 8, depths=(2, 2, 3, 2), classifier="batchnorm", zero_init=True
    ),
    "optim": _DEMO_OPTIM,
    "augment": AugmentConfig(pad=5, drop_person=0.3, drop_part=0.2),
}

# For comparing methods on the synthetic data set, one core, at most 8 minutes a run: the demo's network,
# trained for longer. Its learning rate was tuned on two-branch only (studies/synthetic).
_STUDY = _DEMO | {
    "epochs": 60,
    "precision": "bfloat16",
    "optim": replace(_DEMO_OPTIM, warm_up_epochs=5),
}

# For real people without a GPU: MobileNetV2 with ImageNet weights, at the size of small boxes. A person of
# 128 rows has some 4,000 pixels on a dozen parts: with S = 32 two thirds of the cells would be empty.
_SMALL: dict[str, Any] = {
    "epochs": 8,
    "height": 128,
    "width": 64,
    "dsap_size": 16,
    "identities": 12,
    "precision": "bfloat16",
    "network": NetworkConfig(
        trunk="mobilenetv2_100",
        trunk_stage="whole",
        head_width=26 / 32,  # with 320 channels 1/4: 16 channels a part in the guide, a full register
        depths=(*PAPER_DEPTHS[:3], 1),
        classifier="batchnorm",
        zero_init=True,
    ),
    "optim": OptimConfig(
        rate=3e-3, warm_up_from=3e-5, warm_up_epochs=1, schedule="cosine", weight_decay=5e-4
    ),
    "augment": AugmentConfig(pad=5, erase=0.25),
}

PRESETS: Mapping[PresetName, Mapping[str, Any]] = {
    "paper": {},
    "small": _SMALL,
    "demo": _DEMO,
    "study": _STUDY,
}
"""The fields of TrainConfig that differ from its defaults, for each preset."""


def preset(
    name: PresetName, data: Path, out: Path, *, trunk: str | None = None, **changes: Any
) -> TrainConfig:
    """The settings of a preset, with further changes.

    Args:
        name: which preset.
        data, out: see TrainConfig.
        trunk: see NetworkConfig; default: the preset's own. The sizes of the preset's trunk are not those of
            another.

    Raises:
        ValueError: no such preset.
        DSAError: a setting out of its bounds.
    """
    if name not in PRESETS:
        raise ValueError(f"name must be one of {', '.join(PRESETS)}, not {name!r}")
    values = {**PRESETS[name], **changes}
    network: NetworkConfig = values.get("network", NetworkConfig())
    if trunk not in (None, network.trunk):
        depths = (*PAPER_DEPTHS[:3], network.depths[3])
        # Heads keep their proportion to the trunk.
        heads = network.head_width / network.width
        stage = "sixteenth" if trunk == RESNET else network.trunk_stage
        values["network"] = replace(
            network, trunk=trunk, trunk_stage=stage, width=1.0, head_width=heads, depths=depths
        )
    return TrainConfig(data=data, out=out, **values)
