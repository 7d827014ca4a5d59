"""The body's parts: DensePose's 24, merged to 13 and then to 8.

Index 0 of every table over the 24 parts is DensePose's part I = 1. The kernels read the same tables in
csrc/parts.h; a test keeps the two equal.
"""

_PARTS = (  # name, twin, mirror group, flip u, flip v
    ("torso back", 1, 0, False, True),
    ("torso front", 2, 1, False, True),
    ("right hand", 4, 2, True, False),
    ("left hand", 3, 2, True, False),
    ("left foot", 6, 3, True, False),
    ("right foot", 5, 3, True, False),
    ("right upper leg back", 8, 4, False, False),
    ("left upper leg back", 7, 4, False, False),
    ("right upper leg front", 10, 5, False, False),
    ("left upper leg front", 9, 5, False, False),
    ("right lower leg back", 12, 6, False, False),
    ("left lower leg back", 11, 6, False, False),
    ("right lower leg front", 14, 7, False, False),
    ("left lower leg front", 13, 7, False, False),
    ("left upper arm front", 16, 8, False, False),
    ("right upper arm front", 15, 8, False, False),
    ("left upper arm back", 18, 9, False, False),
    ("right upper arm back", 17, 9, False, False),
    ("left lower arm front", 20, 10, False, False),
    ("right lower arm front", 19, 10, False, False),
    ("left lower arm back", 22, 11, False, False),
    ("right lower arm back", 21, 11, False, False),
    ("head right", 24, 12, True, False),
    ("head left", 23, 12, True, False),
)
_MIRROR = (  # name, body group
    ("torso back", 0),
    ("torso front", 0),
    ("hands", 1),
    ("feet", 2),
    ("upper legs back", 3),
    ("upper legs front", 3),
    ("lower legs back", 4),
    ("lower legs front", 4),
    ("upper arms front", 5),
    ("upper arms back", 5),
    ("lower arms front", 6),
    ("lower arms back", 6),
    ("head", 7),
)
_BODY = ("torso", "hands", "feet", "upper legs", "lower legs", "upper arms", "lower arms", "head")

NAMES: tuple[str, ...] = tuple(name for name, *_ in _PARTS)
"""The 24 parts."""

MIRROR_NAMES: tuple[str, ...] = tuple(name for name, _ in _MIRROR)
"""The 13 groups of the first merge (left and right)."""

BODY_NAMES: tuple[str, ...] = _BODY
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
