"""The compiled rasteriser."""

import numpy as np
import pytest

from dsareid.ground import _core

# A square of 4 x 4 pixels in two faces of opposite winding, at depth 5
SQUARE = np.array([[1, 1, 5], [5, 1, 5], [5, 5, 5], [1, 5, 5]], np.float32)
TWO_FACES = np.array([[0, 1, 2], [0, 3, 2]], np.int32)


def test_covers_exactly_the_pixels_whose_centres_are_inside():
    face, weights = _core.rasterize(SQUARE, TWO_FACES, 6, 7)
    expected = np.zeros((6, 7), bool)
    expected[1:5, 1:5] = True
    assert face.dtype == np.int32 and weights.dtype == np.float32
    assert np.array_equal(face >= 0, expected)
    assert np.allclose(weights.sum(2), expected)


def test_weights_interpolate_positions():
    points = np.array([[0.3, 0.1, 1], [9.7, 2.2, 1], [3.1, 8.9, 1]], np.float32)
    face, weights = _core.rasterize(points, np.array([[0, 1, 2]], np.int32), 10, 10)
    rows, columns = np.nonzero(face == 0)
    assert len(rows) > 20
    centres = weights[rows, columns] @ points[:, :2]
    assert np.allclose(centres, np.stack([columns, rows], 1) + 0.5, atol=1e-5)


@pytest.mark.parametrize("near_first", [True, False])
def test_the_nearest_face_is_seen(near_first):
    points = np.concatenate([SQUARE, SQUARE - [0, 0, 2]]).astype(np.float32)
    faces = np.concatenate([TWO_FACES, TWO_FACES + 4])
    faces = faces[::-1].copy() if near_first else faces
    face, _ = _core.rasterize(points, faces, 6, 6)
    assert (points[faces[face[face >= 0]]][..., 2] == 3).all()


def test_what_lies_outside_or_has_no_area_is_not_drawn():
    points = np.array(
        [[-1e30, 0, 1], [1e30, -5, 1], [0, -1, 1], [2, 2, 1], [3, 3, 1], [4, 4, 1], [np.nan, 0, 1]],
        np.float32,
    )
    faces = np.array([[0, 1, 2], [3, 4, 5], [6, 3, 5]], np.int32)
    face, weights = _core.rasterize(points, faces, 5, 5)
    assert (face == -1).all() and (weights == 0).all()


@pytest.mark.parametrize(
    ("points", "faces", "size", "message"),
    [
        (SQUARE[:, :2], TWO_FACES, (4, 4), "points"),
        (SQUARE, TWO_FACES[:, :2], (4, 4), "faces"),
        (SQUARE, TWO_FACES + 1, (4, 4), "0..3, found 4"),
        (SQUARE, TWO_FACES - 1, (4, 4), "found -1"),
        (SQUARE, TWO_FACES, (0, 4), "height"),
    ],
)
def test_wrong_arguments(points, faces, size, message):
    with pytest.raises(ValueError, match=message):
        _core.rasterize(points, faces, *size)
