"""The settings of a synthetic data set, and what its three difficulties mean."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import Ge, Le

from dsareid.ground.bounds import check_bounds
from dsareid.ground.errors import DSAError

Side = Annotated[int, Ge(16), Le(4096)]
NotNegative = Annotated[int, Ge(0)]


@dataclass(frozen=True)
class SynthConfig:
    """A synthetic data set: people in six cameras, with their IUV maps."""

    identities: Annotated[int, Ge(2), Le(9999)] = 100  # four digits in a file name
    """People with an identity of their own; half of them are for training, half for the test."""
    images: Annotated[int, Ge(2)] = 10
    """Images of each identity, spread over up to six cameras."""
    height: Side = 128
    """Height of the images in pixels."""
    width: Side = 64
    """Width of the images in pixels."""
    difficulty: Literal["easy", "default", "hard"] = "default"
    """easy: aligned boxes, no look-alikes.
    default: misaligned boxes, families of look-alikes.
    hard: larger families, stronger colour casts, more occlusion."""
    seed: NotNegative = 0
    """The same seed gives the same files, whatever the number of processes."""
    boxes: Literal["aligned", "misaligned"] | None = None
    """How well boxes fit their people; default: by the difficulty. misaligned: as in difficulty default."""
    iuv: Literal["exact", "mild", "strong"] | None = None
    """Errors of a DensePose network that are imitated in the IUV maps; default: by the difficulty.
    exact: none. mild: those of default. strong: 30 % of the people and 20 % of their parts are missing."""
    processes: NotNegative = 0
    """Processes that render; 0: one for each core."""

    @property
    def settings(self) -> "Difficulty":
        """What the difficulty means, with `boxes` and `iuv` replacing its own where they are given."""
        own = DIFFICULTIES[self.difficulty]
        boxes, faults = BOXES.get(self.boxes or "", own), FAULTS.get(self.iuv or "", own)
        chosen = {name: getattr(boxes, name) for name in BOX_FIELDS}
        return replace(own, **chosen, **{name: getattr(faults, name) for name in FAULT_FIELDS})

    def check(self) -> None:
        """Raise DSAError for a value out of its bounds."""
        check_bounds(self)
        if self.difficulty not in DIFFICULTIES:
            raise DSAError(f"`difficulty` must be one of {', '.join(DIFFICULTIES)}, not {self.difficulty!r}")


@dataclass(frozen=True)
class Difficulty:
    """Everything that a difficulty changes. Rates are probabilities per image unless noted otherwise."""

    family_size: int  # identities in a row that wear the same clothes and differ in details
    # How a camera renders colours
    cast: float  # spread of the gains of red, green and blue around 1
    gain: tuple[float, float]  # brightness
    ambient: tuple[float, float]  # light from everywhere
    directed: tuple[float, float]  # light from one side
    sharpness: tuple[float, float]  # resolution of the sensor in image heights; < 1 loses details
    # How well a box fits its person
    margin: tuple[float, float]  # space above and below, in heights of the person; < 0 cuts
    shift: float  # spread of the sideways shift, in widths of the box
    aspect: tuple[float, float]  # of the box, relative to the image's
    loose_rate: float  # boxes much too large
    cut_legs_rate: float
    cut_head_rate: float
    occluder_rate: float  # something stands before the person
    # Faults of the IUV map
    missing_person_rate: float  # no detection: the whole map is background
    missing_part_rate: float  # per part of a person
    border_shift: float  # pixels by which borders move, at a height of 128
    uv_error: float  # spread of the smooth error of u and v


DIFFICULTIES = {
    "easy": Difficulty(
        family_size=1,
        cast=0.03,
        gain=(0.85, 1.1),
        ambient=(0.5, 0.65),
        directed=(0.35, 0.55),
        sharpness=(0.75, 1.1),
        margin=(0.03, 0.05),
        shift=0.0,
        aspect=(1.0, 1.0),
        loose_rate=0.0,
        cut_legs_rate=0.0,
        cut_head_rate=0.0,
        occluder_rate=0.0,
        missing_person_rate=0.03,
        missing_part_rate=0.03,
        border_shift=0.5,
        uv_error=0.01,
    ),
    "default": Difficulty(
        family_size=4,
        cast=0.08,
        gain=(0.7, 1.25),
        ambient=(0.45, 0.65),
        directed=(0.3, 0.7),
        sharpness=(0.65, 1.05),
        margin=(-0.04, 0.12),
        shift=0.05,
        aspect=(0.88, 1.18),
        loose_rate=0.15,
        cut_legs_rate=0.12,
        cut_head_rate=0.06,
        occluder_rate=0.15,
        missing_person_rate=0.1,
        missing_part_rate=0.1,
        border_shift=1.0,
        uv_error=0.02,
    ),
    "hard": Difficulty(
        family_size=8,
        cast=0.16,
        gain=(0.5, 1.25),
        ambient=(0.3, 0.6),
        directed=(0.2, 0.85),
        sharpness=(0.5, 1.0),
        margin=(-0.07, 0.16),
        shift=0.08,
        aspect=(0.8, 1.25),
        loose_rate=0.25,
        cut_legs_rate=0.2,
        cut_head_rate=0.1,
        occluder_rate=0.35,
        missing_person_rate=0.2,
        missing_part_rate=0.15,
        border_shift=1.5,
        uv_error=0.035,
    ),
}

# The fields that `boxes` and `iuv` replace, and the values that they put there.
BOX_FIELDS = ("margin", "shift", "aspect", "loose_rate", "cut_legs_rate", "cut_head_rate")
BOXES = {"aligned": DIFFICULTIES["easy"], "misaligned": DIFFICULTIES["default"]}
FAULT_FIELDS = ("missing_person_rate", "missing_part_rate", "border_shift", "uv_error")
FAULTS = {
    "exact": replace(
        DIFFICULTIES["default"],
        missing_person_rate=0.0,
        missing_part_rate=0.0,
        border_shift=0.0,
        uv_error=0.0,
    ),
    "mild": DIFFICULTIES["default"],
    "strong": replace(
        DIFFICULTIES["hard"], missing_person_rate=0.3, missing_part_rate=0.2, border_shift=2.0, uv_error=0.05
    ),
}
