"""The body that synthetic people are made of: one mesh, its shapes and its skeleton.

Coordinates are metres: x grows towards the person's left, y towards the back, z upwards; at rest
the person faces -y with the arms spread halfway. body.npz is made by bake.py.

The "canonical" body is the mean shape at rest. It is where positions on the body are measured, so
that a shirt's hem or a chart's border lies at the same place on everybody.
"""

import functools
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np

BODY_FILE = Path(__file__).with_name("body.npz")


class BodyLayer(IntEnum):
    """What a face of the mesh is made of."""

    SKIN = 0  # head and hands
    SUIT = 1  # the rest of the body; clothes are painted on it
    SKIRT = 2
    HAIR = 3  # long hair; short hair is painted on the head
    EYES = 4


class BodyGroup(IntEnum):
    """The eight pieces of the body that carry charts of their own."""

    TORSO = 0
    HEAD = 1
    UPPER_ARM = 2
    LOWER_ARM = 3
    HAND = 4
    UPPER_LEG = 5
    LOWER_LEG = 6
    FOOT = 7


_GROUP_OF_BONE = {
    "neck02": BodyGroup.HEAD,
    "neck03": BodyGroup.HEAD,
    "head": BodyGroup.HEAD,
    "upperarm01": BodyGroup.UPPER_ARM,
    "upperarm02": BodyGroup.UPPER_ARM,
    "lowerarm01": BodyGroup.LOWER_ARM,
    "lowerarm02": BodyGroup.LOWER_ARM,
    "wrist": BodyGroup.HAND,
    "upperleg01": BodyGroup.UPPER_LEG,
    "upperleg02": BodyGroup.UPPER_LEG,
    "lowerleg01": BodyGroup.LOWER_LEG,
    "lowerleg02": BodyGroup.LOWER_LEG,
    "foot": BodyGroup.FOOT,
}  # every other bone moves the torso


@dataclass(frozen=True)
class Body:
    """The mesh (V points, F faces), B bones, and K shape coefficients."""

    bones: tuple[str, ...]  # B names; .L is the person's left
    parents: np.ndarray  # int64 [B]: index of the parent, -1 for the root; parents come first
    joints: np.ndarray  # float32 [B, 3]: where the canonical body's bones begin
    points: np.ndarray  # float32 [V, 3]: the canonical body
    faces: np.ndarray  # int32 [F, 3]
    face_layer: np.ndarray  # uint8 [F]
    point_layer: np.ndarray  # uint8 [V]
    bone_weights: np.ndarray  # float32 [V, B]: how much each bone moves each point; rows sum to 1
    group_weights: np.ndarray  # float32 [V, 8]: the bone weights summed by group
    finger_joints: np.ndarray  # float32 [3, 3]: left middle tip, index and little finger's roots
    shape_mean: np.ndarray  # float32 [(V + B) * 3]: points, then joints
    shape_basis: np.ndarray  # float32 [K, (V + B) * 3]
    shape_samples: np.ndarray  # float32 [N, K]: coefficients of N random adults
    sample_is_female: np.ndarray  # bool [N]

    def joint(self, bone: str) -> np.ndarray:
        """Where a bone of the canonical body begins, float32 [3]."""
        return self.joints[self.bones.index(bone)]

    def shaped(self, coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points [V, 3] and joints [B, 3] at rest of the body with these coefficients [K]."""
        # einsum, not @: a BLAS may add up in another order with another number of threads
        offset = np.einsum("k,kn->n", coefficients.astype(np.float32), self.shape_basis)
        everything = (self.shape_mean + offset).reshape(-1, 3)
        return everything[: len(self.points)], everything[len(self.points) :]

    @property
    def hip_height(self) -> float:
        return float(self.joint("upperleg01.L")[2])

    @property
    def knee_height(self) -> float:
        return float(self.joint("lowerleg01.L")[2])

    @property
    def ankle_height(self) -> float:
        return float(self.joint("foot.L")[2])

    @property
    def neck_height(self) -> float:
        return float(self.joint("neck02")[2])

    @functools.cached_property
    def eye(self) -> np.ndarray:
        """The middle of the left eye on the canonical body, [3]."""
        eyes = self.points[self.point_layer == BodyLayer.EYES]
        return eyes[eyes[:, 0] > 0].mean(0)


@functools.cache
def load_body() -> Body:
    """Read body.npz. Every call returns the same object: do not change its arrays."""
    with np.load(BODY_FILE) as file:
        data = {name: file[name] for name in file.files}
    bones = tuple(str(name) for name in data.pop("bones"))
    weights = data.pop("bone_weights").astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    point_layer = np.zeros(len(data["points"]), np.uint8)
    point_layer[data["faces"].ravel()] = np.repeat(data["face_layer"], 3)
    return Body(
        bones=bones,
        point_layer=point_layer,
        bone_weights=weights,
        group_weights=_sum_by_group(bones, weights),
        shape_basis=data.pop("shape_basis").astype(np.float32),
        **data,
    )


def point_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3] of points [V, 3]: area-weighted means over the faces [F, 3] around."""
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    face_normals = np.cross(b - a, c - a)
    normals = np.empty_like(points)
    for axis in range(3):
        normals[:, axis] = np.bincount(
            faces.ravel(), np.repeat(face_normals[:, axis], 3), minlength=len(points)
        )
    return normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9)


class Skin:
    """Linear blend skinning of some points: bones move points, each by its weight."""

    def __init__(self, bone_weights: np.ndarray) -> None:
        """bone_weights: float32 [V, B], every row with a weight above 0."""
        point, self._bone = np.nonzero(bone_weights)
        self._weight = bone_weights[point, self._bone][:, None]
        self._first = np.searchsorted(point, np.arange(len(bone_weights)))

    def move(
        self, transforms: np.ndarray, points: np.ndarray, normals: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Points and normals, both [V, 3], moved by the bones' transforms [B, 3, 4].

        The normals are not of unit length.
        """
        rows = transforms.reshape(-1, 12).astype(np.float32)
        blended = np.add.reduceat(self._weight * rows[self._bone], self._first)
        blended = blended.reshape(-1, 3, 4)
        turn, shift = blended[:, :, :3], blended[:, :, 3]
        moved = np.einsum("vij,vj->vi", turn, points) + shift
        return moved, np.einsum("vij,vj->vi", turn, normals)


def _sum_by_group(bones: tuple[str, ...], weights: np.ndarray) -> np.ndarray:
    """Bone weights [V, B] summed to group weights [V, 8]."""
    by_group = np.zeros((len(weights), len(BodyGroup)), np.float32)
    for index, name in enumerate(bones):
        group = _GROUP_OF_BONE.get(name.split(".")[0], BodyGroup.TORSO)
        by_group[:, group] += weights[:, index]
    return by_group
