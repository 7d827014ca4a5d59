"""DensePose-COCO's annotations: what is read, and what is refused."""

import json

import numpy as np
import pytest
from coco_files import coco

from dsareid.densepose.coco_points import read_marked_people
from dsareid.ground.errors import DSAError


def read(tmp_path, content):
    (tmp_path / "coco.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_marked_people(tmp_path / "coco.json")


def test_a_person(tmp_path):
    draw = np.random.default_rng(0)
    masks = [draw.random((256, 256)) < 0.3, np.zeros((256, 256), bool), np.ones((256, 256), bool)]
    masks[2][:, :200] = False
    (person,) = read(tmp_path, coco(masks))
    assert person.image == "a" and person.box == (10, 20, 51, 102)
    assert person.part.tolist() == [2, 24] and person.uv.tolist() == [[0.25, 1], [0, 0.5]]
    assert np.allclose(person.points, [[10, 61], [71, 30.2]])
    assert np.array_equal(person.mask, masks[0] | masks[2])
    assert read(tmp_path, coco())[0].mask is None
    rows, columns = person.pixels(60, 100)
    assert rows.tolist() == [59, 30] and columns.tolist() == [10, 61]  # the first is below the picture


def test_what_a_map_shows_in_the_box(tmp_path):
    (person,) = read(tmp_path, coco(bbox=[-8, 4, 16, 8]))
    body = np.zeros((8, 6), bool)
    body[4:6, 1:3] = True
    seen = person.seen_in(body)
    expected = np.zeros((256, 256), bool)
    expected[:64, 144:176] = True  # a pixel is 16 columns wide and 32 rows high there
    assert np.array_equal(seen, expected)


def damaged(counts, size=(256, 256)):
    return coco() | {
        "annotations": [coco()["annotations"][1] | {"dp_masks": [{"counts": counts, "size": list(size)}]}]
    }


@pytest.mark.parametrize(
    "content,words",
    [
        ("{", "not readable as JSON"),
        ("[]", "not annotations of DensePose-COCO"),
        ({"images": [], "annotations": []}, "nobody in it has points"),
        (coco(image_id=8), "annotations.1: its image_id 8 is not in images"),
        (coco(dp_U=[0.5]), "annotations.1: dp_I, dp_U, dp_V, dp_x and dp_y must have the same length"),
        (coco(bbox=[0, 0, 0, 5]), "annotations.1: its bbox is empty"),
        (coco(dp_I=[0, 25]), "annotations.1.dp_I.0: Input should be greater than or equal to 1"),
        (coco(dp_V=[2, 0]), "annotations.1.dp_V.0"),
        (coco(dp_I=[1.5, 2]), "annotations.1.dp_I.0: Input should be a valid integer"),
        (coco() | {"images": 2 * coco()["images"]}, "images: each must have an id of its own"),
        (coco(bbox=[0, 0, 1e300, 5]), "annotations.1.bbox.2"),
        (damaged("\xff"), "annotations.0: the run lengths of a mask are damaged"),
        (damaged("o" * 9), "the run lengths of a mask are damaged"),
        (damaged("0"), "do not make 256 x 256 pixels"),
        (damaged(""), "do not make 256 x 256 pixels"),
        (damaged("o"), "do not make 256 x 256 pixels"),
        (damaged("0", (1, 1)), r"a mask must be 256 x 256, not \(1, 1\)"),
    ],
)
def test_what_is_refused(tmp_path, content, words):
    with pytest.raises(DSAError, match=words):
        read(tmp_path, content)
    with pytest.raises(DSAError, match="nowhere.json: no such file"):
        read_marked_people(tmp_path / "nowhere.json")
