"""The colours of a synthetic person: skin, hair, clothes with their patterns, belongings."""

from dataclasses import dataclass

import numpy as np

from dsareid.synth.body import BodyGroup, BodyLayer, load_body
from dsareid.synth.chart import Places
from dsareid.synth.person import (
    Clothes,
    SyntheticPerson,
    arm_reach,
    cap_cover,
    hairline,
    is_back,
    leg_reach,
    torso_across,
)


@dataclass(frozen=True)
class Spots:
    """n visible spots of a person, with the measures that clothes are cut by."""

    layer: np.ndarray  # uint8 [n]
    places: Places
    position: np.ndarray  # float32 [n, 3] on the canonical body
    is_top: np.ndarray  # bool [n]: covered by shirt, jacket or coat
    is_bottom: np.ndarray  # bool [n]: covered by trousers or skirt
    rise: np.ndarray  # float32 [n]: metres above the hip joint

    @property
    def group(self) -> np.ndarray:
        return self.places.group

    def on(self, mask: np.ndarray) -> "Spots":
        """The spots that a mask, bool [n], selects."""
        places = Places(
            self.places.group[mask],
            self.places.is_left[mask],
            self.places.along[mask],
            self.places.angle[mask],
        )
        rest = (self.position, self.is_top, self.is_bottom, self.rise)
        return Spots(self.layer[mask], places, *(array[mask] for array in rest))


def find_spots(clothes: Clothes, layer: np.ndarray, places: Places, position: np.ndarray) -> Spots:
    """Decide what covers each of n spots.

    layer: uint8 [n]; position: float32 [n, 3], both on the canonical body.
    """
    group, along = places.group, places.along
    rise = position[:, 2] - np.float32(load_body().hip_height)
    arm, leg = arm_reach(group, along), leg_reach(group, along)
    trunk = (group == BodyGroup.TORSO) | (group == BodyGroup.UPPER_LEG)
    is_suit, is_skirt = layer == BodyLayer.SUIT, layer == BodyLayer.SKIRT
    is_top = is_suit & ((trunk & (rise > clothes.hem)) | ((arm >= 0) & (arm < clothes.sleeve)))
    in_bottom = (group == BodyGroup.TORSO) | ((leg >= 0) & (leg < clothes.bottom_length))
    is_bottom = is_suit & ~is_top & in_bottom
    if clothes.is_coat:
        is_top = is_top | is_skirt
    else:
        is_bottom = is_bottom | is_skirt
    return Spots(layer, places, position, is_top, is_bottom, rise)


def paint(person: SyntheticPerson, spots: Spots) -> np.ndarray:
    """Colours of n spots before light falls on them: RGB float32 [n, 3] in [0, 1]."""
    colours = np.empty((len(spots.layer), 3), np.float32)
    colours[:] = person.skin
    _paint_bottom(person, spots, colours)
    _paint_top(person, spots, colours)
    _paint_chest(person, spots, colours)
    _paint_back(person, spots, colours)
    _paint_feet(person, spots, colours)
    _paint_head(person, spots, colours)
    colours[spots.layer == BodyLayer.HAIR] = person.hair
    colours[spots.layer == BodyLayer.EYES] = (0.22, 0.19, 0.17)
    return colours


def _paint_bottom(person: SyntheticPerson, spots: Spots, colours: np.ndarray) -> None:
    clothes, places, bottom = person.clothes, spots.places, spots.is_bottom
    colours[bottom] = clothes.bottom
    on_leg = bottom & ((spots.group == BodyGroup.UPPER_LEG) | (spots.group == BodyGroup.LOWER_LEG))
    if clothes.bottom_kind == "jeans":  # faded in the middle of the front and the back
        middle = np.sin(places.angle[on_leg]) / np.float32(0.6)
        colours[on_leg] *= (1 + 0.35 * np.exp(-(middle**2)))[:, None]
    if person.side_stripe is not None:
        colours[on_leg & (np.sin(places.angle) > 0.95)] = person.side_stripe
    if person.has_belt:
        belt = (spots.layer == BodyLayer.SUIT) & ~spots.is_top & (spots.group == BodyGroup.TORSO)
        colours[belt & (spots.rise > clothes.hem - 0.035)] = (0.08, 0.06, 0.05)


def _paint_top(person: SyntheticPerson, spots: Spots, colours: np.ndarray) -> None:
    clothes, top = person.clothes, np.flatnonzero(spots.is_top)
    colours[top] = clothes.top
    colours[top[_in_second_colour(clothes, spots.on(top))]] = clothes.top_second


def _in_second_colour(clothes: Clothes, spots: Spots) -> np.ndarray:
    """Where the pattern of the top shows its other colour, bool [n]."""
    is_arm = (spots.group == BodyGroup.UPPER_ARM) | (spots.group == BodyGroup.LOWER_ARM)
    arm = arm_reach(spots.group, spots.places.along)
    down = np.where(is_arm, 0.29 * arm, spots.position[:, 2])  # metres
    around = spots.places.angle / np.float32(np.pi) + 1  # half turns
    frequency = clothes.pattern_frequency
    match clothes.pattern:
        case "stripes":
            return np.sin(np.pi * frequency * down) > 0.2
        case "bars":
            return np.sin(0.8 * frequency * around) > 0.3
        case "check":
            return (np.sin(2.5 * frequency * down) > 0) ^ (np.sin(0.6 * frequency * around) > 0)
        case "dots":
            return np.sin(3 * frequency * down) * np.sin(0.9 * frequency * around) > 0.45
        case "sleeves":
            return is_arm
        case "halves":
            return ~is_arm & (spots.rise < 0.24)
    return np.zeros(len(down), bool)


def _paint_chest(person: SyntheticPerson, spots: Spots, colours: np.ndarray) -> None:
    """Neckline, then what an open jacket shows, or the logo, then the straps of a backpack."""
    chest = np.flatnonzero(
        (spots.layer == BodyLayer.SUIT) & (spots.group == BodyGroup.TORSO) & ~is_back(spots.places)
    )
    along = spots.places.along[chest]
    across = torso_across(spots.on(chest).places)
    off_middle = np.abs(across - 0.5)
    is_top = spots.is_top[chest]
    if person.clothes.has_jacket:
        colours[chest[is_top & (off_middle < 0.07 + 0.05 * (1 - along))]] = person.clothes.inner
    else:
        shown = is_top & _in_logo(person, across, along)
        colours[chest[shown]] = person.logo_colour
    neckline = (off_middle < 0.12) & (along < 0.1 + 0.25 * (0.12 - off_middle))
    colours[chest[is_top & neckline]] = person.skin * 0.95
    if person.backpack is not None:
        strap = (np.abs(off_middle - 0.24) < 0.035) & (along < 0.45)
        colours[chest[strap]] = person.backpack * 0.7


def _in_logo(person: SyntheticPerson, across: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Which places of the chest [n] the logo covers."""
    logo_across, logo_along, size = person.logo_place
    x, y = (across - logo_across) / size + 0.5, (along - logo_along) / size + 0.5
    inside = (x > 0) & (x < 1) & (y > 0) & (y < 1)
    match person.logo:
        case "blocks":
            rows, columns = person.logo_blocks.shape
            row = np.clip((y * rows).astype(int), 0, rows - 1)
            column = np.clip((x * columns).astype(int), 0, columns - 1)
            return inside & person.logo_blocks[row, column]
        case "circle":
            return (x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.25
        case "square":
            return inside
        case "band":
            return inside & (np.abs(y - 0.5) < 0.2)
    return np.zeros(len(across), bool)


def _paint_back(person: SyntheticPerson, spots: Spots, colours: np.ndarray) -> None:
    """The print on the back, or the backpack over it."""
    back = np.flatnonzero(
        (spots.layer == BodyLayer.SUIT) & (spots.group == BodyGroup.TORSO) & is_back(spots.places)
    )
    along = spots.places.along[back]
    across = torso_across(spots.on(back).places)
    if person.backpack is not None:
        pack = (across > 0.24) & (across < 0.76) & (along > 0.13) & (along < 0.7)
        colours[back[pack]] = person.backpack
        seam = (np.abs(along - 0.45) < 0.015) | (np.abs(along - 0.22) < 0.01)
        colours[back[pack & seam]] = person.backpack * 0.4
    elif person.back_print is not None:
        x, y = (across - 0.25) / 0.5, (along - 0.22) / 0.32
        inside = spots.is_top[back] & (x > 0) & (x < 1) & (y > 0) & (y < 1)
        rows, columns = person.back_print.shape
        row = np.clip((y * rows).astype(int), 0, rows - 1)
        column = np.clip((x * columns).astype(int), 0, columns - 1)
        colours[back[inside & person.back_print[row, column]]] = person.logo_colour


def _paint_feet(person: SyntheticPerson, spots: Spots, colours: np.ndarray) -> None:
    suit = spots.layer == BodyLayer.SUIT
    foot = suit & (spots.group == BodyGroup.FOOT)
    colours[foot] = person.shoe
    colours[foot & (np.abs(spots.places.angle) > 0.68 * np.pi)] = person.sole
    reach = leg_reach(spots.group, spots.places.along)
    colours[suit & (reach > 1.86) & (reach > person.clothes.bottom_length)] = person.sock


def _paint_head(person: SyntheticPerson, spots: Spots, colours: np.ndarray) -> None:
    head = np.flatnonzero((spots.layer == BodyLayer.SKIN) & (spots.group == BodyGroup.HEAD))
    here = spots.on(head)
    eye = load_body().eye
    cover = hairline(here.places.angle, here.places.along)[:, None]
    if person.hair_style == "bald":
        cover = cover * 0.15
    colour = colours[head] * (1 - cover) + person.hair * cover
    aside = np.abs(here.position[:, 0])
    above = here.position[:, 2] - eye[2]  # metres above the eyes
    is_face = here.position[:, 1] < eye[1] + 0.02
    by_eye = is_face & (np.abs(aside - eye[0]) < 0.022)
    colour[by_eye & (np.abs(above - 0.022) < 0.0055)] = person.hair * 0.9  # eyebrows
    colour[by_eye & (np.abs(above) < 0.012)] *= 0.72
    colour[is_face & (aside < 0.024) & (np.abs(above + 0.07) < 0.0065)] *= (0.85, 0.55, 0.55)
    if person.cap is not None:
        colour[cap_cover(here.places) > 0.5] = person.cap
    colours[head] = colour
