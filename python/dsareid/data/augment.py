"""The settings of augmentation, without torch; dsa_ext.draw_augmentation draws by them."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

Probability = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class AugmentConfig:
    """How training images are augmented."""

    pad: Annotated[int, Ge(0), Le(4096)] = 10
    """Pixels of padding on each side before the random crop."""
    flip: Probability = 0.5
    """Probability of a horizontal flip."""
    erase: Probability = 0.5
    """Probability of random erasing (area 0.02..0.4, aspect 0.3..3.33, filled with the mean)."""
    drop_person: Probability = 0.0
    """Probability that a sample's whole IUV map is taken away (not in the paper)."""
    drop_part: Probability = 0.0
    """Probability that a single part of a sample's IUV map is taken away (not in the paper)."""
