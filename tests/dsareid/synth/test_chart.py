"""The charts run as DensePose's do."""

from dataclasses import replace

import numpy as np
import pytest

from dsareid.synth import chart
from dsareid.synth.body import load_body
from dsareid.synth.person import Dressed, dress, random_person
from dsareid.synth.pose import random_pose, upright_pose
from dsareid.synth.render import PersonBox, Posed, Projection, iuv_map, project, put_in_pose, trace_rays

HEIGHT, WIDTH = 384, 256


@pytest.fixture(scope="module")
def people() -> list[Dressed]:
    return [dress(random_person(np.random.default_rng(seed))) for seed in range(4)]


def fitting_box(projection: Projection) -> PersonBox:
    left, top, right, bottom = projection.extent
    height = 1.1 * max(bottom - top, (right - left) * HEIGHT / WIDTH)
    width = height * WIDTH / HEIGHT
    return PersonBox((left + right - width) / 2, (top + bottom - height) / 2, width, height)


def exact_map(posed: Posed, azimuth: float, elevation: float = 0.15, roll: float = 0.0):
    projection = project(posed, azimuth, elevation, roll, distance=8)
    hits = trace_rays(projection, posed.dressed.faces, fitting_box(projection), HEIGHT, WIDTH)
    return iuv_map(posed.dressed, hits, HEIGHT, WIDTH)


def flipped(iuv: np.ndarray) -> np.ndarray:
    """The closed form of DensePose's UV_symmetry tables."""
    part, u, v = np.moveaxis(iuv[:, ::-1], 2, 0)
    u = np.where(np.isin(part, [3, 4, 5, 6, 23, 24]), 255 - u, u)
    v = np.where(np.isin(part, [1, 2]), 255 - v, v)
    sym = [0, 1, 2, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23]
    return np.stack([np.array(sym)[part], u, v], 2)


def away_from_borders(part: np.ndarray) -> np.ndarray:
    """Pixels whose 8 neighbours have their part."""
    padded = np.pad(part, 1, "edge")
    same = np.ones(part.shape, bool)
    for row in range(3):
        for column in range(3):
            same &= padded[row : row + part.shape[0], column : column + part.shape[1]] == part
    return same


def mirrored(posed: Posed) -> Posed:
    """The same person as seen in a mirror: left and right of geometry and charts change places."""
    canonical = posed.dressed.canonical * np.float32([-1, 1, 1])
    dressed = replace(posed.dressed, canonical=canonical, cylinders=chart.cylinder_table(canonical))
    flip = np.float32([-1, 1, 1])
    return Posed(dressed, posed.points * flip, posed.normals * flip)


def agreement(one: np.ndarray, other: np.ndarray, tolerance: int) -> float:
    """Share of the foreground away from borders where labels are equal and U, V nearly so."""
    inside = away_from_borders(one[..., 0]) & (one[..., 0] > 0)
    same_part = one[..., 0] == other[..., 0]
    near = (np.abs(one.astype(int) - other)[..., 1:] <= tolerance).all(2)
    assert inside.sum() > 3000
    return float((same_part & near)[inside].mean())


@pytest.mark.parametrize("azimuth", [0.0, 0.7, 1.6, 2.5, 3.1, 4.4, 5.5])
def test_mirrored_scene_gives_the_closed_form_flip(people, azimuth):
    for seed, dressed in enumerate(people):
        rng = np.random.default_rng([1, seed])
        posed = put_in_pose(dressed, random_pose(load_body(), dressed.joints, rng))
        original = exact_map(posed, azimuth, roll=0.03)
        in_mirror = exact_map(mirrored(posed), -azimuth, roll=-0.03)
        assert agreement(flipped(original), in_mirror, tolerance=1) > 0.98


def test_left_and_right_of_the_mesh_itself_are_mirror_images(people):
    """The plain mesh in the mirrored pose, which is symmetric to some millimetres only."""
    body, flip = load_body(), np.diag([-1, 1, 1])
    for seed, dressed in enumerate(people):
        pose = random_pose(body, dressed.joints, np.random.default_rng([2, seed]))
        swap = {".L": ".R", ".R": ".L"}
        pose_in_mirror = {
            name[:-2] + swap[name[-2:]] if name[-2:] in swap else name: flip @ turn @ flip
            for name, turn in pose.items()
        }
        original = exact_map(put_in_pose(dressed, pose), 0.4)
        in_mirror = exact_map(put_in_pose(dressed, pose_in_mirror), -0.4)
        assert agreement(flipped(original), in_mirror, tolerance=8) > 0.9


def slope(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> tuple[float, float]:
    """Gradient of values over a part's pixels, by least squares: per column, per row."""
    plane = np.stack([columns, rows, np.ones(len(rows))], 1)
    right, down, _ = np.linalg.lstsq(plane, values.astype(float), rcond=None)[0]
    return right, down


# Signs of (U rightwards, U downwards, V rightwards, V downwards); 0: not told. Seen from the front
# the person's right side is on the left of the image.
FRONTAL = {
    2: (0, 1, -1, 0),
    3: (-1, 0, 0, 1),
    4: (-1, 0, 0, 1),
    5: (0, 1, 1, 0),
    6: (0, -1, -1, 0),
    9: (0, -1, 1, 0),
    10: (0, -1, -1, 0),
    13: (0, 1, -1, 0),
    14: (0, 1, 1, 0),
    15: (0, 1, 1, 0),
    16: (0, 1, -1, 0),
    17: (0, 1, 0, 0),
    18: (0, 1, 0, 0),
    19: (0, -1, -1, 0),
    20: (0, -1, 1, 0),
    21: (0, 1, -1, 0),
    22: (0, 1, 1, 0),
    23: (1, 0, 0, -1),
    24: (1, 0, 0, -1),
}
DORSAL = {
    1: (0, 1, 1, 0),
    7: (0, 1, 1, 0),
    8: (0, 1, -1, 0),
    11: (0, -1, 1, 0),
    12: (0, -1, -1, 0),
    17: (0, 1, -1, 0),
    18: (0, 1, 1, 0),
    21: (0, 1, -1, 0),
    22: (0, 1, 1, 0),
    23: (1, 0, 0, -1),
    24: (1, 0, 0, -1),
}


@pytest.mark.parametrize(("azimuth", "signs"), [(0.0, FRONTAL), (np.pi, DORSAL)])
def test_directions_on_an_upright_person(people, azimuth, signs):
    for dressed in people:
        posed = put_in_pose(dressed, upright_pose(load_body(), dressed.joints))
        iuv = exact_map(posed, azimuth)
        for part, expected in signs.items():
            rows, columns = np.nonzero(iuv[..., 0] == part)
            assert len(rows) > 15, f"part {part} is not seen"
            found = [s for k in (1, 2) for s in slope(iuv[rows, columns, k], rows, columns)]
            for got, sign, name in zip(found, expected, ("U/x", "U/y", "V/x", "V/y"), strict=True):
                assert sign == 0 or np.sign(got) == sign, f"part {part}: {name} is {got:.2f}"


def test_head_halves(people):
    posed = put_in_pose(people[0], upright_pose(load_body(), people[0].joints))
    for azimuth, upper, lower in ((0.0, 23, 24), (np.pi, 24, 23)):
        part, u, _ = np.moveaxis(exact_map(posed, azimuth), 2, 0)
        assert np.median(u[part == upper]) > 128 > np.median(u[part == lower])


def test_charts_are_filled(people):
    """Seen from all sides, every part occurs and its U and V span most of [0, 1]."""
    low, high = np.full((25, 2), 255), np.zeros((25, 2), int)
    for dressed in people:
        posed = put_in_pose(dressed, upright_pose(load_body(), dressed.joints))
        for azimuth in np.linspace(0, 2 * np.pi, 8, endpoint=False):
            iuv = exact_map(posed, azimuth)
            for part in np.unique(iuv[..., 0]):
                uv = iuv[iuv[..., 0] == part][:, 1:]
                low[part] = np.minimum(low[part], uv.min(0))
                high[part] = np.maximum(high[part], uv.max(0))
    assert ((high - low)[1:] > 180).all(), (high - low).tolist()


def test_background_is_zero(people):
    iuv = exact_map(put_in_pose(people[0], {}), 0.0)
    assert iuv.dtype == np.uint8 and iuv[..., 0].max() <= 24
    assert (iuv[iuv[..., 0] == 0] == 0).all()
