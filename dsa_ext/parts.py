"""The body's parts, read from csrc/parts.h: DensePose's 24, merged to 13 and then to 8.

Index 0 of every table over the 24 parts is DensePose's part I = 1.
"""

import torch  # noqa: F401 (its libraries must be loaded before _C)

from dsa_ext._C import part_tables

_PARTS, _MIRROR, _BODY = part_tables()

NAMES: tuple[str, ...] = tuple(name for name, *_ in _PARTS)
"""The 24 parts."""

MIRROR_NAMES: tuple[str, ...] = tuple(name for name, _ in _MIRROR)
"""The 13 groups of the first merge (left and right)."""

BODY_NAMES: tuple[str, ...] = tuple(_BODY)
"""The 8 groups of the second merge (front and back); the order of the local features f_L."""

TWIN: tuple[int, ...] = tuple(twin for _, twin, *_ in _PARTS)
"""The part (1..24) that each part becomes in the mirrored image."""

FLIP_U: tuple[bool, ...] = tuple(flip for *_, flip, _ in _PARTS)
"""Whether the mirrored image also needs u -> 1 - u (hands, feet, head)."""

FLIP_V: tuple[bool, ...] = tuple(flip for *_, flip in _PARTS)
"""Whether the mirrored image also needs v -> 1 - v (torso)."""

MIRROR_GROUP: tuple[int, ...] = tuple(group for _, _, group, *_ in _PARTS)
"""The group (0..12) of each of the 24 parts."""

FRONT_BACK_GROUP: tuple[int, ...] = tuple(group for _, group in _MIRROR)
"""The group (0..7) of each of the 13 parts."""

GROUPS: dict[int, tuple[int, ...]] = {
    24: tuple(range(24)),
    13: MIRROR_GROUP,
    8: tuple(FRONT_BACK_GROUP[group] for group in MIRROR_GROUP),
}
"""For 24, 13 and 8 part images: which of them each of the 24 parts goes to."""
