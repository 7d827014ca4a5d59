"""Poses of synthetic people: random attitudes of everyday life, as rotations of the bones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dsareid.synth.body import Body

_X, _Y, _Z = np.eye(3)
_FORWARD = np.array([0.0, -1, 0])


@dataclass(frozen=True)
class Attitude:
    """Ranges, in radians, from which a pose of one kind is drawn."""

    frequency: float  # weight among the attitudes
    stride: tuple[float, float] = (0.2, 0.5)  # swing of the legs
    elbow: tuple[float, float] = (-0.2, 0.1)  # bend of both elbows
    right_elbow: tuple[float, float] | None = None  # of the right one, where it differs
    right_raise: tuple[float, float] = (0.0, 0.0)  # the right upper arm, forwards
    spread: tuple[float, float] = (0.1, 0.22)  # of the upper arms from the body
    lean: tuple[float, float] = (-0.03, 0.1)  # of the back, forwards
    nod: tuple[float, float] = (-0.05, 0.15)  # of the head, forwards


ATTITUDES = {
    "walking": Attitude(4.0),
    "standing": Attitude(2.0, stride=(0.0, 0.12)),
    "running": Attitude(0.6, stride=(0.5, 0.75), elbow=(1.0, 1.5), lean=(0.05, 0.2)),
    "phoning": Attitude(
        1.0, stride=(0.0, 0.35), right_elbow=(1.5, 1.9), right_raise=(0.2, 0.6), nod=(0.1, 0.35)
    ),
    "carrying": Attitude(0.8, stride=(0.1, 0.4), elbow=(1.0, 1.4), spread=(0.05, 0.15)),
    "pointing": Attitude(
        0.5, stride=(0.0, 0.2), right_elbow=(-0.2, 0.4), right_raise=(0.8, 1.7), spread=(0.1, 0.3)
    ),
    "waiting": Attitude(0.6, stride=(0.0, 0.1), elbow=(0.9, 1.3), spread=(0.45, 0.7)),
    "stooping": Attitude(0.5, stride=(0.05, 0.3), lean=(0.25, 0.55), nod=(0.2, 0.4)),
}


def rotation(axis: np.ndarray | Sequence[float], angle: float) -> np.ndarray:
    """The rotation by an angle (radians, right-handed) about an axis [3] of any length: [3, 3]."""
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def upright_pose(body: Body, joints: np.ndarray) -> dict[str, np.ndarray]:
    """Rotations by bone of a person who stands straight with hanging arms."""
    pose: dict[str, np.ndarray] = {}
    for side, sign in (("L", 1), ("R", -1)):
        pose |= _arm(body, joints, side, sign, swing=0.0, spread=0.15, elbow=-0.1)
    return pose


def random_pose(body: Body, joints: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Rotations [3, 3] by bone name of a random pose, for a person with joints [B, 3] at rest."""
    names = list(ATTITUDES)
    weights = np.array([ATTITUDES[name].frequency for name in names])
    attitude = ATTITUDES[names[rng.choice(len(names), p=weights / weights.sum())]]
    stride, phase = rng.uniform(*attitude.stride), rng.uniform(0, 2 * np.pi)
    pose: dict[str, np.ndarray] = {}
    for side, sign in (("L", 1), ("R", -1)):
        step = phase if side == "L" else phase + np.pi
        pose |= _leg(side, sign, stride, step, rng.uniform(0.04, 0.09))
        swing = -0.75 * stride * np.sin(step)
        elbow = rng.uniform(*attitude.elbow) + 0.35 * max(0.0, swing)
        if side == "R" and attitude.right_elbow is not None:
            elbow, swing = rng.uniform(*attitude.right_elbow), rng.uniform(*attitude.right_raise)
        spread = rng.uniform(*attitude.spread)
        pose |= _arm(body, joints, side, sign, swing, spread, elbow)
    twist = 0.12 * stride * np.sin(phase)
    pose["spine03"] = rotation(_Z, twist) @ rotation(_X, rng.uniform(*attitude.lean))
    pose["spine01"] = rotation(_Z, twist)
    pose["neck02"] = rotation(_Z, rng.normal(0, 0.15)) @ rotation(_X, rng.uniform(*attitude.nod))
    pose["head"] = rotation(_Z, rng.normal(0, 0.2))
    return pose


def bone_transforms(body: Body, joints: np.ndarray, pose: dict[str, np.ndarray]) -> np.ndarray:
    """Transforms float32 [B, 3, 4] that take a person at rest, with joints [B, 3], into a pose."""
    turn = np.empty((len(body.bones), 3, 3))
    place = np.empty((len(body.bones), 3))
    for bone, (name, parent) in enumerate(zip(body.bones, body.parents, strict=True)):
        own = pose.get(name, np.eye(3))
        if parent < 0:
            turn[bone], place[bone] = own, joints[bone]
        else:
            turn[bone] = turn[parent] @ own
            place[bone] = place[parent] + turn[parent] @ (joints[bone] - joints[parent])
    shift = place - np.einsum("bij,bj->bi", turn, joints)
    return np.concatenate([turn, shift[:, :, None]], 2).astype(np.float32)


def _leg(side: str, sign: int, stride: float, step: float, spread: float) -> dict[str, np.ndarray]:
    """A leg at one moment of its step; `sign` is +1 on the left."""
    knee = 0.06 + 1.45 * stride * max(0.0, np.cos(step))
    ankle = -0.25 * knee + 0.3 * stride * max(0.0, -np.sin(step))
    return {
        f"upperleg01.{side}": rotation(_X, -stride * np.sin(step) - 0.05) @ rotation(_Y, sign * spread),
        f"lowerleg01.{side}": rotation(_X, knee),
        f"foot.{side}": rotation(_X, ankle),
    }


def _arm(
    body: Body, joints: np.ndarray, side: str, sign: int, swing: float, spread: float, elbow: float
) -> dict[str, np.ndarray]:
    """An arm: at rest it is spread halfway, so it is first brought down to `spread`."""
    shoulder, elbow_joint, wrist = (
        joints[body.bones.index(f"{bone}.{side}")] for bone in ("upperarm01", "lowerarm01", "wrist")
    )
    upper, lower = elbow_joint - shoulder, wrist - elbow_joint
    rest_spread = np.arctan2(abs(upper[0]), -upper[2])
    hinge = np.cross(lower / np.linalg.norm(lower), _FORWARD)
    return {
        f"upperarm01.{side}": rotation(_X, 0.12 - swing) @ rotation(_Y, sign * (rest_spread - spread)),
        f"lowerarm01.{side}": rotation(hinge, elbow),
    }
