"""The shipped body."""

import numpy as np

from dsareid.synth.body import BODY_FILE, BodyGroup, Skin, load_body, point_normals
from dsareid.synth.pose import bone_transforms, upright_pose


def test_file_is_small_and_consistent():
    body = load_body()
    assert BODY_FILE.stat().st_size < 1_300_000
    assert body.faces.min() == 0 and body.faces.max() == len(body.points) - 1
    assert len(body.bones) == len(body.parents) == len(body.joints) == body.bone_weights.shape[1]
    assert (body.parents < np.arange(len(body.bones))).all()
    assert np.allclose(body.bone_weights.sum(1), 1, atol=1e-5)
    assert set(body.group_weights.argmax(1)) == {int(group) for group in BodyGroup}


def test_shapes_are_adults():
    body = load_body()
    heights = np.array([np.ptp(body.shaped(c)[0][:, 2]) for c in body.shape_samples[:100]])
    is_female = body.sample_is_female[:100]
    assert 1.3 < heights.min() and heights.max() < 2.2
    assert heights[is_female].mean() < heights[~is_female].mean()


def test_no_pose_moves_nothing():
    body = load_body()
    transforms = bone_transforms(body, body.joints, {})
    normals = point_normals(body.points, body.faces)
    points, turned = Skin(body.bone_weights).move(transforms, body.points, normals)
    assert np.allclose(points, body.points, atol=1e-5)
    assert np.allclose(turned, normals, atol=1e-5)


def test_upright_arms_hang():
    body = load_body()
    transforms = bone_transforms(body, body.joints, upright_pose(body, body.joints))
    for side in "LR":
        shoulder, wrist = (body.bones.index(f"{b}.{side}") for b in ("upperarm01", "wrist"))
        turn, shift = transforms[..., :3], transforms[..., 3]
        ends = [turn[i] @ body.joints[i] + shift[i] for i in (shoulder, wrist)]
        assert ends[0][2] - ends[1][2] > 0.4
        assert abs(ends[0][0] - ends[1][0]) < 0.15
