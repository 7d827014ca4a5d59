"""What is counted of maps, against figures reckoned by hand and pixel by pixel."""

import math

import numpy as np
import pytest

from dsa_ext.parts import GROUPS
from dsareid.densepose.agreement import SCALES, Agreement, compare_pixels, compare_points
from dsareid.synth.body import BodyLayer, load_body
from dsareid.synth.chart import cylinder_table, group_scores, locate, to_charts


def draw_map(seed, height=24, width=16, people=0.6):
    draw = np.random.default_rng(seed)
    chart = draw.integers(0, 256, (3, height, width), dtype=np.uint8)
    chart[0] = draw.integers(1, 25, (height, width)) * (draw.random((height, width)) < people)
    chart[1:] *= chart[0] > 0
    return chart


def alike(seed):
    """Two maps that agree on most parts."""
    a, b = draw_map(seed), draw_map(seed + 100)
    same = np.random.default_rng(seed).random(a.shape[1:]) < 0.7
    b[0][same] = a[0][same]
    b[1:] *= b[0] > 0
    return a, b


@pytest.mark.parametrize("seed", range(3))
def test_scores_pixel_by_pixel(seed):
    a, b = alike(seed)
    points, right, overlap, union, off, near = 0, 0, 0, 0, ([], []), 0.0
    for y in range(a.shape[1]):
        for x in range(a.shape[2]):
            (i, u, v), (j, s, t) = a[:, y, x].astype(float), b[:, y, x].astype(float)
            overlap += i > 0 and j > 0
            union += i > 0 or j > 0
            points += j > 0
            if j and i == j:
                right += 1
                off[0].append(abs(u - s) / 255)
                off[1].append(abs(v - t) / 255)
                kappa, side_u, side_v = SCALES[GROUPS[8][int(j) - 1]]
                g = math.hypot(off[0][-1] * side_u, off[1][-1] * side_v)
                near += math.exp(-(g**2) / (2 * kappa**2))
    found = compare_pixels(a, b).scores()
    assert found.iou == pytest.approx(overlap / union) and found.parts == pytest.approx(right / overlap)
    assert found.gps == pytest.approx(near / points)
    assert found.gpsm == pytest.approx(math.sqrt(near / points * overlap / union))
    for got, expected, share in zip(found[2:6], (off[0], off[0], off[1], off[1]), (50, 90, 50, 90)):
        assert got == pytest.approx(np.percentile(expected, share, method="inverted_cdf"), abs=1e-9)


def test_a_map_agrees_with_itself_and_not_with_nobody():
    a = draw_map(0)
    assert compare_pixels(a, a).scores() == (1, 1, 0, 0, 0, 0, 1, 1)
    nobody = np.zeros_like(a)
    found = compare_pixels(nobody, a).scores()
    assert (found.iou, found.gps, found.gpsm) == (0, 0, 0) and math.isnan(found.parts)
    assert math.isnan(compare_pixels(a, nobody).scores().gps)
    assert all(map(math.isnan, Agreement().scores()))


def test_counts_add_up_and_fall_into_parts():
    pairs = [alike(seed) for seed in range(3)]
    together = compare_pixels(*(np.concatenate([pair[k] for pair in pairs], 1) for k in (0, 1)))
    added = sum((compare_pixels(a, b) for a, b in pairs), Agreement())
    assert added.scores() == pytest.approx(together.scores())
    for part in (1, 7, 24):
        a, b = (np.concatenate([pair[k] for pair in pairs], 1) for k in (0, 1))
        only = [chart * (chart[0] == part) for chart in (a, b)]
        found, expected = together.of_part(part).scores(), compare_pixels(*only).scores()
        assert found.iou == pytest.approx(expected.iou)
        assert found[2:7] == pytest.approx(expected[2:7])
        assert found.parts == np.mean(a[0][(a[0] > 0) & (b[0] == part)] == part)


def test_points():
    a = np.array([[2, 2, 0, 3], [255, 0, 0, 51], [0, 0, 0, 51]], np.uint8)
    uv = np.array([[1.0, 0.5, 0.5, 0.2], [0, 0, 0, 0.2]])
    found = compare_points(a, np.array([2, 2, 2, 4]), uv)
    assert found.points[1] == 3 and found.covered[1] == 2 and found.right[1] == 2
    assert found.points[3] == 1 and found.covered[3] == 1 and found.right[3] == 0
    expected = 1 + math.exp(-((0.5 * SCALES[0].u) ** 2) / (2 * SCALES[0].kappa ** 2))
    assert found.similarity.sum() == pytest.approx(expected)
    assert found.errors[1, 0, [0, 128]].tolist() == [1, 1] and found.errors[1, 1, 0] == 2


def test_the_lengths_of_charts_are_those_of_the_synthetic_body():
    """The median over a chart's surface of how far one goes when U, or V, grows by 1."""
    body = load_body()
    group = group_scores(body, body.points).argmax(1)
    table = cylinder_table(body.points)[np.arange(len(group)), group]
    part, *uv = to_charts(locate(table, group, body.points[:, 0]))
    skin = np.isin(body.point_layer, (BodyLayer.SKIN, BodyLayer.SUIT))
    faces = body.faces[skin[body.faces].all(1)]
    faces = faces[(part[faces] == part[faces[:, :1]]).all(1)]
    one, two = (body.points[faces[:, k]] - body.points[faces[:, 0]] for k in (1, 2))  # [F, 3]
    (u1, u2), (v1, v2) = ([x[faces[:, k]] - x[faces[:, 0]] for k in (1, 2)] for x in uv)
    with np.errstate(divide="ignore", invalid="ignore"):
        along_u = np.linalg.norm(one * v2[:, None] - two * v1[:, None], axis=1) / abs(u1 * v2 - u2 * v1)
        along_v = np.linalg.norm(two * u1[:, None] - one * u2[:, None], axis=1) / abs(u1 * v2 - u2 * v1)
    area = np.linalg.norm(np.cross(one, two), axis=1)
    for index, scale in enumerate(SCALES):
        for length, name in ((along_u, "u"), (along_v, "v")):
            at = np.isin(part[faces[:, 0]], [k + 1 for k in range(24) if GROUPS[8][k] == index])
            at &= np.isfinite(length)
            order = np.argsort(length[at])
            weight = area[at][order].cumsum()
            median = length[at][order][np.searchsorted(weight, weight[-1] / 2)]
            assert getattr(scale, name) == pytest.approx(median, abs=0.006), (index, name)
