"""Who a synthetic person is: body shape, hair, clothes and belongings, and the mesh they make."""

import colorsys
import functools
from dataclasses import dataclass, replace

import numpy as np

from dsareid.synth import chart
from dsareid.synth.body import Body, BodyGroup, BodyLayer, Skin, load_body, point_normals

PATTERNS = ("plain", "plain", "stripes", "bars", "check", "dots", "sleeves", "halves")
LOGOS = ("none", "blocks", "blocks", "circle", "square", "band")
HAIR_COLOURS = (
    (0.45, (0.07, 0.06, 0.06)),
    (0.25, (0.22, 0.14, 0.09)),
    (0.15, (0.40, 0.27, 0.14)),
    (0.10, (0.75, 0.60, 0.35)),
    (0.05, (0.60, 0.58, 0.55)),
)


@dataclass(frozen=True)
class Clothes:
    """What the members of a family of look-alikes have in common. Colours are RGB in [0, 1]."""

    top: np.ndarray
    top_second: np.ndarray  # the pattern's other colour
    pattern: str  # one of PATTERNS
    pattern_frequency: float
    sleeve: float  # 1 reaches the elbow, 2 the wrist
    hem: float  # metres above the hip joint at which the top ends
    has_jacket: bool  # open at the front
    inner: np.ndarray  # what is seen under the open jacket
    bottom_kind: str  # trousers, jeans, shorts, skirt
    bottom: np.ndarray
    bottom_length: float  # 1 reaches the knee, 2 the ankle

    @property
    def is_coat(self) -> bool:
        return self.hem < -0.06 and self.bottom_kind != "skirt"


@dataclass(frozen=True)
class SyntheticPerson:
    """A synthetic identity. Colours are RGB in [0, 1]."""

    clothes: Clothes
    shape: np.ndarray  # [K] coefficients of the body's shape
    is_female: bool
    skin: np.ndarray
    hair: np.ndarray
    hair_style: str  # short, long, bald
    hair_length: float  # of long hair: metres below the neck
    cap: np.ndarray | None  # colour of a cap
    looseness_top: float  # metres between skin and cloth
    looseness_bottom: float
    logo: str  # one of LOGOS, on the chest
    logo_colour: np.ndarray
    logo_place: tuple[float, float, float]  # across, along, size: fractions of the torso
    logo_blocks: np.ndarray  # bool [5, 6]
    back_print: np.ndarray | None  # bool [4, 8], in the logo's colour
    backpack: np.ndarray | None  # its colour
    side_stripe: np.ndarray | None  # colour of stripes down the legs
    has_belt: bool
    shoe: np.ndarray
    sole: np.ndarray
    sock: np.ndarray


@dataclass(frozen=True)
class Dressed:
    """The mesh of one dressed person at rest, with P points and F faces that are in use."""

    person: SyntheticPerson
    joints: np.ndarray  # float32 [B, 3]
    points: np.ndarray  # float32 [P, 3], clothes included
    normals: np.ndarray  # float32 [P, 3]
    skin: Skin
    faces: np.ndarray  # int32 [F, 3]
    face_layer: np.ndarray  # uint8 [F]
    face_group: np.ndarray  # int64 [F]; -1 where a border of groups crosses the face
    canonical: np.ndarray  # float32 [P, 3]: the same points on the canonical body
    group_scores: np.ndarray  # float32 [P, 8]
    cylinders: np.ndarray  # float32 [P, 8, 3]


def random_person(rng: np.random.Generator) -> SyntheticPerson:
    """Draw a person that is like nobody else."""
    body = load_body()
    shape, is_female = _random_shape(body, rng)
    clothes = _random_clothes(rng, is_female)
    darkness = rng.uniform()
    skin = np.array([0.93, 0.76, 0.65]) * (1 - darkness) + np.array([0.42, 0.27, 0.19]) * darkness
    shares = [share for share, _ in HAIR_COLOURS]
    style = "long" if is_female and rng.random() < 0.75 else "short"
    if not is_female and rng.random() < 0.1:
        style = "bald"
    return SyntheticPerson(
        clothes=clothes,
        shape=shape,
        is_female=is_female,
        skin=skin,
        hair=np.array(HAIR_COLOURS[rng.choice(len(shares), p=shares)][1]),
        hair_style=style,
        hair_length=rng.uniform(-0.02, 0.22),
        cap=_maybe(rng, 0.18),
        looseness_top=rng.uniform(0.01, 0.035),
        looseness_bottom=rng.uniform(0.008, 0.032),
        logo=LOGOS[rng.integers(len(LOGOS))],
        logo_colour=_contrasting(rng, clothes.top),
        logo_place=(rng.uniform(0.35, 0.65), rng.uniform(0.22, 0.42), rng.uniform(0.14, 0.3)),
        logo_blocks=rng.random((5, 6)) < 0.5,
        back_print=rng.random((4, 8)) < 0.5 if rng.random() < 0.55 else None,
        backpack=_maybe(rng, 0.3),
        side_stripe=_maybe(rng, 0.25),
        has_belt=bool(rng.random() < 0.4),
        shoe=cloth_colour(rng),
        sole=np.full(3, rng.choice([0.08, 0.9])),
        sock=cloth_colour(rng),
    )


def look_alike(person: SyntheticPerson, family: SyntheticPerson, rng: np.random.Generator) -> SyntheticPerson:
    """The person in the clothes of their family, in slightly different shades."""
    clothes = family.clothes

    def shade(colour: np.ndarray) -> np.ndarray:
        return np.clip(colour * rng.uniform(0.92, 1.08) + rng.normal(0, 0.015, 3), 0.02, 0.98)

    if clothes.bottom_kind == "skirt" and not person.is_female:
        length = min(clothes.bottom_length, 0.95)
        clothes = replace(clothes, bottom_kind="shorts", bottom_length=length)
    clothes = replace(
        clothes,
        top=shade(clothes.top),
        top_second=shade(clothes.top_second),
        bottom=shade(clothes.bottom),
    )
    return replace(person, clothes=clothes)


def dress(person: SyntheticPerson) -> Dressed:
    """Make the person's mesh: shape, clothes, hair; faces that nobody can see are left out."""
    body = load_body()
    points, joints = body.shaped(person.shape)
    normals = point_normals(points, body.faces)
    points = points + normals * _cloth_thickness(body, person)[:, None]
    canonical = body.points.copy()
    kept = np.isin(body.face_layer, (BodyLayer.SKIN, BodyLayer.SUIT, BodyLayer.EYES))
    clothes = person.clothes
    if clothes.bottom_kind == "skirt":
        kept |= _cut_below(body, BodyLayer.SKIRT, _skirt_hem(body, clothes), points, canonical)
    elif clothes.is_coat:
        hem = body.hip_height + clothes.hem - 0.12
        kept |= _cut_below(body, BodyLayer.SKIRT, hem, points, canonical)
    if person.hair_style == "long":
        ends = body.neck_height - 0.03 - person.hair_length
        hair = _cut_below(body, BodyLayer.HAIR, ends, points, canonical)
        kept |= hair & ~_covers_face(body)
    return _compact(body, person, joints, points, canonical, kept)


def leg_reach(group: np.ndarray, along: np.ndarray) -> np.ndarray:
    """How far down the leg: 0 hip, 1 knee, 2 ankle; -1 elsewhere."""
    reach = np.where(group == BodyGroup.UPPER_LEG, along, -1)
    return np.where(group == BodyGroup.LOWER_LEG, 1 + along, reach)


def arm_reach(group: np.ndarray, along: np.ndarray) -> np.ndarray:
    """How far down the arm: 0 shoulder, 1 elbow, 2 wrist; -1 elsewhere."""
    reach = np.where(group == BodyGroup.UPPER_ARM, along, -1)
    return np.where(group == BodyGroup.LOWER_ARM, 1 + along, reach)


def hairline(angle: np.ndarray, along: np.ndarray) -> np.ndarray:
    """How much hair covers a place of the head, 0..1, from its place in the head's cylinder."""
    latitude = np.arcsin(2 * along - 1) / np.pi + 0.5
    turn = np.abs(angle) / np.pi  # 0 at the face
    lowest = np.interp(turn, [0, 0.22, 0.36, 0.5, 1], [0.80, 0.78, 0.62, 0.30, 0.26])
    return smooth_step(0, 0.06, latitude - lowest)


def smooth_step(start: float, end: float, value: np.ndarray) -> np.ndarray:
    """0 before start, 1 after end, smooth between."""
    t = np.clip((value - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def cloth_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour that clothes have: often black, white or grey. RGB [3] in [0, 1]."""
    kind = rng.random()
    if kind < 0.18:
        return np.full(3, rng.uniform(0.05, 0.15))
    if kind < 0.32:
        return np.full(3, rng.uniform(0.8, 0.95))
    if kind < 0.42:
        return np.full(3, rng.uniform(0.3, 0.6))
    return _hsv(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.9))


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value))


def _maybe(rng: np.random.Generator, rate: float) -> np.ndarray | None:
    """A colour at this rate; draws the same numbers either way."""
    colour = cloth_colour(rng)
    return colour if rng.random() < rate else None


def _contrasting(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """A cloth colour that can be told from the ground it is printed on."""
    for _ in range(20):
        colour = cloth_colour(rng)
        if np.abs(colour - ground).max() > 0.35:
            return colour
    return 1 - np.round(ground)


def _random_shape(body: Body, rng: np.random.Generator) -> tuple[np.ndarray, bool]:
    """A mixture of two bodies of one sex, a little exaggerated."""
    first = rng.integers(len(body.shape_samples))
    is_female = bool(body.sample_is_female[first])
    second = rng.choice(np.flatnonzero(body.sample_is_female == is_female))
    share = rng.uniform()
    mixed = share * body.shape_samples[first] + (1 - share) * body.shape_samples[second]
    return 1.15 * mixed, is_female


def _random_clothes(rng: np.random.Generator, is_female: bool) -> Clothes:
    last_kind = "skirt" if is_female else "shorts"
    kind = str(rng.choice(["trousers", "trousers", "jeans", "shorts", last_kind]))
    bottom = cloth_colour(rng)
    if kind == "jeans":
        bottom = _hsv(0.6 + rng.normal(0, 0.02), rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.6))
    lengths = {"shorts": (0.5, 0.95), "skirt": (0.5, 1.5), "trousers": (2, 2), "jeans": (2, 2)}
    hem = rng.choice([0.07, 0.03, -0.02, -0.09, -0.25], p=[0.15, 0.3, 0.3, 0.15, 0.1])
    hem = hem + rng.normal(0, 0.01)
    if kind == "skirt":
        hem = max(hem, -0.02)
    sleeve = float(rng.choice([0.45, 0.45, 0.6, 1.0, 2.0, 2.0]))
    top = cloth_colour(rng)
    return Clothes(
        top=top,
        top_second=_contrasting(rng, top),
        pattern=PATTERNS[rng.integers(len(PATTERNS))],
        pattern_frequency=rng.uniform(14, 34),
        sleeve=sleeve,
        hem=hem,
        has_jacket=bool(sleeve >= 2 and rng.random() < 0.5),
        inner=_contrasting(rng, top),
        bottom_kind=kind,
        bottom=bottom,
        bottom_length=rng.uniform(*lengths[kind]),
    )


def _cloth_thickness(body: Body, person: SyntheticPerson) -> np.ndarray:
    """How far clothes and hair move each point of the body [V] out along its normal, metres."""
    places = _canonical_places()
    group, along, clothes = places.group, places.along, person.clothes
    thickness = np.zeros(len(body.points), np.float32)
    arm, leg = arm_reach(group, along), leg_reach(group, along)
    rise = body.points[:, 2] - body.hip_height
    loose_top, loose_bottom = person.looseness_top, person.looseness_bottom
    sleeve = (arm >= 0) & (arm < clothes.sleeve)
    thickness[sleeve] = 0.75 * loose_top
    in_bottom = (leg >= 0) & (leg < clothes.bottom_length)
    thickness[in_bottom] = loose_bottom * (1 + 0.3 * np.maximum(leg[in_bottom] - 1, 0))
    thickness[group == BodyGroup.TORSO] = loose_top
    waist = np.isin(group, (BodyGroup.TORSO, BodyGroup.UPPER_LEG)) & (rise < 0.25)
    under_top = loose_top + 0.012 * smooth_step(0.2, 0, rise - clothes.hem)
    below_top = np.minimum(thickness, loose_bottom)
    thickness[waist] = np.where(rise > clothes.hem, under_top, below_top)[waist]
    if clothes.is_coat:
        thickness[waist & (rise < -0.02)] = 0.4 * loose_bottom
    if person.backpack is not None:
        thickness += _backpack_depth(places)
    thickness[group == BodyGroup.FOOT] = _shoe_thickness(places)[group == BodyGroup.FOOT]
    thickness[body.point_layer != BodyLayer.SUIT] = 0
    is_head = (body.point_layer == BodyLayer.SKIN) & (group == BodyGroup.HEAD)
    thickness[is_head] = _head_cover(person, places)[is_head]
    skirt = body.point_layer == BodyLayer.SKIRT
    thickness[skirt] = 0.8 * loose_top + 0.012 if clothes.is_coat else 0.004
    return thickness


def _backpack_depth(places: chart.Places) -> np.ndarray:
    outer, along = torso_across(places), places.along
    middle = smooth_step(0.22, 0.3, outer) * smooth_step(0.78, 0.7, outer)
    depth = 0.13 * middle * smooth_step(0.1, 0.2, along) * smooth_step(0.72, 0.62, along)
    return np.where((places.group == BodyGroup.TORSO) & is_back(places), depth, 0)


def _shoe_thickness(places: chart.Places) -> np.ndarray:
    """Shoes are wider at the sole and longer at the toes."""
    sole = np.abs(places.angle) / np.pi
    return 0.007 + 0.011 * smooth_step(0.45, 0.8, sole) + 0.012 * smooth_step(0.75, 1, places.along)


def _head_cover(person: SyntheticPerson, places: chart.Places) -> np.ndarray:
    hair = hairline(places.angle, places.along)
    depth = {"short": 0.022, "long": 0.012, "bald": 0.0}[person.hair_style] * hair
    if person.cap is not None:
        peak = smooth_step(0.09, 0.05, np.abs(places.along - 0.77))
        peak = peak * smooth_step(0.3, 0.16, np.abs(places.angle) / np.pi)
        depth = np.maximum(depth, 0.018 * cap_cover(places)) + 0.055 * peak
    return depth


def cap_cover(places: chart.Places) -> np.ndarray:
    """How much of a place of the head a cap covers, 0..1."""
    return smooth_step(0.68, 0.73, places.along)


def is_back(places: chart.Places) -> np.ndarray:
    """Which places of the torso are on its back, bool [n]."""
    return np.cos(places.angle) <= 0


def torso_across(places: chart.Places) -> np.ndarray:
    """Across the front or the back of the torso: 0 at the person's right, 1 at the left."""
    return 0.5 + np.arctan2(np.sin(places.angle), np.abs(np.cos(places.angle))) / np.pi


@functools.cache
def _canonical_places() -> chart.Places:
    """The places of all points of the canonical body."""
    body = load_body()
    group = chart.group_scores(body, body.points).argmax(1)
    table = chart.cylinder_table(body.points)
    return chart.locate(table[np.arange(len(group)), group], group, body.points[:, 0])


def _skirt_hem(body: Body, clothes: Clothes) -> float:
    heights = [body.hip_height, body.knee_height, body.ankle_height]
    return float(np.interp(clothes.bottom_length, [0, 1, 2], heights))


def _cut_below(
    body: Body, layer: BodyLayer, height: float, points: np.ndarray, canonical: np.ndarray
) -> np.ndarray:
    """Cut a layer at a canonical height; returns its faces that are left, bool [F].

    Points below the cut that are still in use are moved up to it, in both arrays.
    """
    kept = (body.face_layer == layer) & (canonical[body.faces][:, :, 2].max(1) > height)
    used = np.unique(body.faces[kept])
    below = used[canonical[used, 2] < height]
    points[below, 2] += height - canonical[below, 2]
    canonical[below, 2] = height
    return kept


def _covers_face(body: Body) -> np.ndarray:
    """Faces of the long hair that would hang before the eyes, bool [F]."""
    corners = body.points[body.faces]
    before = corners[:, :, 1].min(1) < body.eye[1] + 0.035
    return before & (corners[:, :, 2].min(1) < body.eye[2] + 0.045)


def _compact(
    body: Body,
    person: SyntheticPerson,
    joints: np.ndarray,
    points: np.ndarray,
    canonical: np.ndarray,
    kept: np.ndarray,
) -> Dressed:
    """Keep the faces that are visible and the points that they use."""
    used, faces = np.unique(body.faces[kept], return_inverse=True)
    faces = faces.reshape(-1, 3).astype(np.int32)
    scores = chart.group_scores(body, canonical)[used]
    points, canonical = points[used], canonical[used]
    group = scores.argmax(1)[faces]
    return Dressed(
        person=person,
        joints=joints,
        points=points.astype(np.float32),
        normals=point_normals(points, faces).astype(np.float32),
        skin=Skin(body.bone_weights[used]),
        faces=faces,
        face_layer=body.face_layer[kept],
        face_group=np.where((group == group[:, :1]).all(1), group[:, 0], -1),
        canonical=canonical.astype(np.float32),
        group_scores=scores,
        cylinders=chart.cylinder_table(canonical),
    )
