"""The draws of an augmentation."""

import itertools
from typing import Any

import torch

from dsa_ext.augment import _draw_augmentation, draw_augmentation
from dsa_ext.selftest.operation import Case, Operation

INDEX = torch.tensor([0, 1, 2, 77, 77, 5, 2**31, 2**32 - 1, 2**32 - 1, 12935, *range(100, 120)])
REPEAT = torch.tensor([0, 0, 0, 0, 1, 2**32 - 1, 3, 0, 2**31, *[0] * 21])
SEEDS = ((0, 0), (1, 0), (2**32, 5), (12345678901, 3), (2**63 - 1, 2**32 - 1), (0x1234567_89ABCDEF, 319))
"""Seed and epoch."""

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "nothing": {"pad": 0, "flip": 0.0, "erase": 0.0},
    "everything": {"pad": 30, "flip": 1.0, "erase": 1.0, "drop_person": 1.0, "drop_part": 1.0},
    "parts": {"drop_part": 0.3},
    "people": {"drop_person": 0.4},
    "both": {"drop_person": 0.2, "drop_part": 0.5, "erase": 0.9},
    "wide": {"height": 20, "width": 300, "erase": 1.0},
    "narrow": {"height": 300, "width": 4, "erase": 1.0},
    "no room": {"height": 9, "width": 1, "erase": 1.0},
    "one pixel": {"height": 1, "width": 1, "pad": 0, "erase": 1.0},
    "far": {"pad": 1 << 20, "height": 1 << 20, "width": 1 << 20, "erase": 1.0},
}


def draw_case(label: str, seed: int, epoch: int, **settings: Any) -> Case:
    """draw_augmentation, which runs on the CPU whatever the device."""
    settings = {"height": 256, "width": 128} | settings

    def run(draw):
        return [draw(seed, epoch, INDEX, REPEAT, **settings), draw(seed, epoch, INDEX, **settings)]

    return Case(label, lambda device: run(draw_augmentation), lambda: run(_draw_augmentation))


def cases() -> dict[str, list[Case]]:
    return {
        "augment: seeds and settings": [
            draw_case(f"seed {seed}, epoch {epoch}, {name}", seed, epoch, **settings)
            for (name, settings), (seed, epoch) in itertools.product(SETTINGS.items(), SEEDS)
        ]
    }


OPERATION = Operation(name="augment", function=draw_augmentation, twin=_draw_augmentation, cases=cases)
