"""Matches by the angle between the sides, by hand."""

import numpy as np
import torch

from studies.real import sides


class Images:
    """Two people, each from all eight sides."""

    def __init__(self):
        self.names = [f"{person:03d}/01_{side}.png" for person in (1, 2) for side in range(1, 9)]
        self.ids = np.repeat([1, 2], 8)

    def __len__(self):
        return len(self.ids)


def test_only_matches_at_the_angle_count():
    """The nearest image of the same person is the one at the angle in question, or the farthest of all."""
    images = Images()
    side = torch.tensor([sides.side_of(name) for name in images.names])
    turn = (side[None] - side[:, None]) % 8
    same = torch.from_numpy(images.ids[None] == images.ids[:, None])
    for turns in sides.ANGLES.values():
        at = torch.isin(turn, torch.tensor(turns)) & same
        near = torch.where(at, 0.0, 1.0) + 0.01 * torch.arange(16)[None]
        assert sides._mAP(near, images, images, turns) == 1
        far = torch.where(at, 9.0, 1.0) + 0.01 * torch.arange(16)[None]
        matches = len(turns)
        worst = np.mean([(k + 1) / (8 + k + 1) for k in range(matches)])
        assert np.isclose(sides._mAP(far, images, images, turns), worst)
