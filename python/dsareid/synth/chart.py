"""Charts of the synthetic body: from a place on the body to DensePose's part, U and V.

Every group of the body is wrapped in a generalised cylinder: an axis, and at each height along it
a centre and two radii. A place then has a position `along` the axis in [0, 1] and an `angle` around
it, 0 at the front and growing towards the person's outer side (in torso and head: towards the
left). The right side of the body is measured as the mirror image of the left.

U and V follow from the two in the directions of real DensePose charts: limbs and torso have a front
and a back chart, with U along the body and V across it; hands and feet have one chart that goes all
around; the head has a left and a right chart. Mirroring a person therefore swaps the labels of left
and right, and reverses U of hands, feet and head, and V of the torso.
"""

import functools
from dataclasses import dataclass

import numpy as np

from dsareid.synth.body import Body, BodyGroup, BodyLayer, load_body

_SLICES = 14  # heights at which a cylinder's centre and radii are measured
_NEVER = -1e3  # the score of a group that a place cannot belong to

Charted = tuple[np.ndarray, np.ndarray, np.ndarray]  # part uint8 [n], u and v float32 [n]


@dataclass(frozen=True)
class LimbCharts:
    """The two charts of a limb or the torso."""

    front: tuple[int, int]  # part index on the person's right and left
    back: tuple[int, int]
    u_towards_end: tuple[bool, bool]  # front, back: U grows away from the head, in limb and torso
    v_outwards: tuple[bool, bool]  # front, back: V grows towards the outer side (torso: the left)
    turn: float = 0.0  # radians by which the middle of the front chart is turned inwards


# The arms' front charts are turned inwards: if a hanging arm is seen from the front, the back charts
# cover its outer part, as in real DensePose maps.
LIMBS = {
    BodyGroup.TORSO: LimbCharts((2, 2), (1, 1), (True, True), (False, False)),
    BodyGroup.UPPER_ARM: LimbCharts((16, 15), (18, 17), (True, True), (True, True), turn=0.8),
    BodyGroup.LOWER_ARM: LimbCharts((20, 19), (22, 21), (False, True), (False, True), turn=1.3),
    BodyGroup.UPPER_LEG: LimbCharts((9, 10), (7, 8), (False, True), (False, True)),
    BodyGroup.LOWER_LEG: LimbCharts((13, 14), (11, 12), (True, False), (True, True)),
}
HANDS, FEET, HEAD = (3, 4), (6, 5), (23, 24)  # right, left


@dataclass(frozen=True)
class Cylinder:
    """The wrapping of one group of the canonical body's left side."""

    axis: np.ndarray  # [3] unit vector; along the body, away from its middle (head: upwards)
    front: np.ndarray  # [3] unit vector, across the axis; angle 0
    outward: np.ndarray  # [3] unit vector; angle pi/2
    heights: np.ndarray  # [S] positions along the axis, metres, ascending
    centres: np.ndarray  # [S, 2] outward, front
    radii: np.ndarray  # [S, 2] outward, front

    def coordinates(self, points: np.ndarray) -> np.ndarray:
        """[n, 3] of points [n, 3]: outward and front in radii, and along, 0..1 on the group's own points."""
        height = np.einsum("ni,i->n", points, self.axis)
        across = np.stack([np.einsum("ni,i->n", points, d) for d in (self.outward, self.front)], 1)
        centre, radius = (
            np.stack([np.interp(height, self.heights, table[:, k]) for k in (0, 1)], 1)
            for table in (self.centres, self.radii)
        )
        low, high = self.heights[0], self.heights[-1]
        along = (height - low) / (high - low)
        return np.concatenate([(across - centre) / radius, along[:, None]], 1)


@dataclass(frozen=True)
class Places:
    """n places on the body: where they are, in the body's own terms."""

    group: np.ndarray  # int64 [n]
    is_left: np.ndarray  # bool [n]
    along: np.ndarray  # float32 [n] in [0, 1]
    angle: np.ndarray  # float32 [n] radians in [-pi, pi]; head: turned so that + is the left


def group_scores(body: Body, points: np.ndarray) -> np.ndarray:
    """Scores [V, 8] of points [V, 3]: the group of a point is the one with the largest score.

    They may be interpolated linearly within a face. Skirt and hair, which hang freely, are cut at
    the height of hip, knee and neck; everything else follows its bones.
    """
    scores = body.group_weights.copy()
    height = points[:, 2]
    skirt, hair = body.point_layer == BodyLayer.SKIRT, body.point_layer == BodyLayer.HAIR
    scores[skirt | hair] = _NEVER
    scores[skirt, BodyGroup.TORSO] = height[skirt] - (body.hip_height - 0.02)
    scores[skirt, BodyGroup.UPPER_LEG] = 0
    scores[skirt, BodyGroup.LOWER_LEG] = body.knee_height - height[skirt]
    scores[hair, BodyGroup.HEAD] = height[hair] - body.neck_height
    scores[hair, BodyGroup.TORSO] = 0
    return scores


def cylinder_table(points: np.ndarray) -> np.ndarray:
    """Cylinder coordinates of points [V, 3] of the canonical body in all groups: [V, 8, 3]."""
    table = np.empty((len(points), len(BodyGroup), 3), np.float32)
    on_the_left = np.concatenate([np.abs(points[:, :1]), points[:, 1:]], 1)
    for group, cylinder in _cylinders().items():
        is_middle = group in (BodyGroup.TORSO, BodyGroup.HEAD)
        table[:, group] = cylinder.coordinates(points if is_middle else on_the_left)
    return table


def locate(coordinates: np.ndarray, group: np.ndarray, x: np.ndarray) -> Places:
    """Places from cylinder coordinates [n, 3] in the places' groups [n] and canonical x [n]."""
    outward, front = coordinates[:, 0], coordinates[:, 1]
    return Places(
        group=group,
        is_left=x > 0,
        along=np.clip(coordinates[:, 2], 0, 1),
        angle=np.arctan2(outward, front),
    )


def to_charts(places: Places) -> Charted:
    """DensePose's part index uint8 [n] (1..24), u and v float32 [n] in [0, 1] of n places."""
    part = np.zeros(len(places.group), np.uint8)
    u, v = np.zeros((2, len(part)), np.float32)
    for group in BodyGroup:
        at = np.flatnonzero(places.group == group)
        if len(at):
            left, along, angle = places.is_left[at], places.along[at], places.angle[at]
            part[at], u[at], v[at] = _CHART_OF_GROUP[group](group, left, along, angle)
    return part, u, v


def _limb_charts(group: BodyGroup, left: np.ndarray, along: np.ndarray, angle: np.ndarray) -> Charted:
    """U along, V across: each half circle, front and back, fills [0, 1]."""
    charts = LIMBS[group]
    turned = angle + np.float32(charts.turn)
    across, front = np.sin(turned), np.cos(turned)
    is_back = front <= 0
    part = np.array([charts.front, charts.back], np.uint8)[is_back.astype(int), left.astype(int)]
    outer = np.arctan2(across, np.abs(front)) / np.float32(np.pi) + np.float32(0.5)
    u = np.where(np.array(charts.u_towards_end)[is_back.astype(int)], along, 1 - along)
    v = np.where(np.array(charts.v_outwards)[is_back.astype(int)], outer, 1 - outer)
    return part, u, v


def _hand_chart(_: BodyGroup, left: np.ndarray, along: np.ndarray, angle: np.ndarray) -> Charted:
    """V towards the finger tips; U around: palm 0, thumb 1/4, back of the hand 1/2 (right hand)."""
    around = np.float32(0.5) + angle / np.float32(2 * np.pi)  # angle 0: the back of the hand
    return np.array(HANDS, np.uint8)[left.astype(int)], np.where(left, 1 - around, around), along


def _foot_chart(_: BodyGroup, left: np.ndarray, along: np.ndarray, angle: np.ndarray) -> Charted:
    """U from the ankle to the toes (left foot); V around: sole 0, instep 1/2, outer side 3/4."""
    around = np.float32(0.5) + angle / np.float32(2 * np.pi)
    return np.array(FEET, np.uint8)[left.astype(int)], np.where(left, along, 1 - along), around


def _head_chart(_: BodyGroup, left: np.ndarray, along: np.ndarray, angle: np.ndarray) -> Charted:
    """U from the back of the head over the right (23), then over the left side (24); V upwards."""
    half_turn = np.abs(angle) / np.float32(np.pi)  # 0 at the face, 1 at the back
    u = np.where(left, half_turn, 1 - half_turn)
    latitude = np.arcsin(2 * along - 1) / np.float32(np.pi) + np.float32(0.5)
    return np.array(HEAD, np.uint8)[left.astype(int)], u, latitude


_CHART_OF_GROUP = {
    **dict.fromkeys(LIMBS, _limb_charts),
    BodyGroup.HAND: _hand_chart,
    BodyGroup.FOOT: _foot_chart,
    BodyGroup.HEAD: _head_chart,
}


@functools.cache
def _cylinders() -> dict[BodyGroup, Cylinder]:
    body = load_body()
    group = group_scores(body, body.points).argmax(1)
    fitted = np.isin(body.point_layer, (BodyLayer.SKIN, BodyLayer.SUIT))
    return {g: _fit_cylinder(body, g, body.points[fitted & (group == g)]) for g in BodyGroup}


def _directions(body: Body, group: BodyGroup) -> tuple[np.ndarray, np.ndarray]:
    """The axis of a group's left side and its front, not yet at right angles nor of unit length."""
    forward, up = np.array([0.0, -1, 0]), np.array([0.0, 0, 1])
    middle_tip, index_root, little_root = body.finger_joints.astype(np.float64)

    def bone(start: str, end: str) -> np.ndarray:
        return (body.joint(f"{end}.L") - body.joint(f"{start}.L")).astype(np.float64)

    hand = middle_tip - body.joint("wrist.L")
    back_of_hand = np.cross(index_root - little_root, hand)
    return {
        BodyGroup.TORSO: (-up, forward),
        BodyGroup.HEAD: (up, forward),
        BodyGroup.UPPER_ARM: (bone("upperarm01", "lowerarm01"), forward),
        BodyGroup.LOWER_ARM: (bone("lowerarm01", "wrist"), forward),
        BodyGroup.HAND: (hand, back_of_hand),
        BodyGroup.UPPER_LEG: (bone("upperleg01", "lowerleg01"), forward),
        BodyGroup.LOWER_LEG: (bone("lowerleg01", "foot"), forward),
        BodyGroup.FOOT: (forward - 0.6 * up, up),
    }[group]


def _fit_cylinder(body: Body, group: BodyGroup, points: np.ndarray) -> Cylinder:
    """Wrap a group's points [n, 3] of the canonical body (both sides of it) in a cylinder."""
    axis, front = _directions(body, group)
    axis = axis / np.linalg.norm(axis)
    front = front - axis * (front @ axis)
    front /= np.linalg.norm(front)
    outward = np.cross(front, axis)
    if group == BodyGroup.HEAD:
        outward = -outward  # its axis points the other way, and + is the left there too
    if group in (BodyGroup.TORSO, BodyGroup.HEAD):
        points = np.concatenate([points, points * [-1, 1, 1]])  # exactly symmetric
    else:
        points = points[points[:, 0] > 0].astype(np.float64)
    height = points @ axis
    across = np.stack([points @ outward, points @ front], 1)
    heights = np.linspace(height.min(), height.max(), _SLICES)
    reach = max((height.max() - height.min()) / _SLICES, 0.012)
    slices = [across[np.abs(height - at) < reach] for at in heights]
    low, high = (np.array([f(s, axis=0) for s in slices]) for f in (np.min, np.max))
    radii = (high - low) / 2
    radii = np.maximum(radii, 0.6 * np.median(radii, 0))  # the tips are not needles
    centres, radii = _smoothed((low + high) / 2), _smoothed(radii)
    if group in (BodyGroup.TORSO, BodyGroup.HEAD):
        centres[:, 0] = 0
    return Cylinder(axis, front, outward, heights, centres, radii)


def _smoothed(table: np.ndarray) -> np.ndarray:
    """[S, k] smoothed along S by (1/4, 1/2, 1/4)."""
    padded = np.pad(table, ((1, 1), (0, 0)), "edge")
    return padded[:-2] / 4 + padded[1:-1] / 2 + padded[2:] / 4
