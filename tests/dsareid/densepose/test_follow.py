"""Following one of several people, who are drawn as boxes."""

import numpy as np
import pytest

from dsareid.densepose.estimators.base import EstimatedMap
from dsareid.densepose.follow import PATIENCE, Extent, Follower, extent_of
from dsareid.ground.errors import DSAError

SIZE = (60, 100)


def found(*boxes):
    """The map of people in boxes (top, left, bottom, right), who are numbered in this order."""
    instances = np.zeros(SIZE, np.uint8)
    for number, (top, left, bottom, right) in enumerate(boxes, 1):
        instances[top:bottom, left:right] = number
    iuv = np.stack([instances, 10 * instances, 20 * instances], 2)
    return EstimatedMap(iuv, iuv.transpose(2, 0, 1)[1:] / np.float32(255), 0.9, instances=instances)


def picked(follower, *boxes):
    each = follower.pick(found(*boxes))
    return extent_of(each.iuv[..., 0])


def test_boxes():
    assert extent_of(np.zeros(SIZE)) is None
    one = Extent(10, 20, 30, 40)
    assert extent_of(found(one).instances) == one and one.overlap(one) == 1
    assert one.overlap(Extent(10, 30, 30, 50)) == 200 / 600 and one.overlap(Extent(30, 20, 40, 40)) == 0


def test_the_largest_is_followed_whatever_their_numbers():
    follower = Follower()
    first = follower.pick(found((0, 0, 20, 10), (10, 40, 50, 60)))
    assert extent_of(first.iuv[..., 0]) == (10, 40, 50, 60) and abs(first.others - 0.2) < 1e-9
    assert first.instances is None and not first.uv[:, :5].any() and first.uv[:, 20, 50].all()
    assert picked(follower, (10, 44, 50, 64), (0, 0, 60, 30)) == (10, 44, 50, 64)
    assert picked(follower, (0, 0, 60, 30), (10, 50, 50, 70)) == (10, 50, 50, 70)
    assert follower.begins == [0]


def test_who_is_lost_is_waited_for():
    follower = Follower()
    assert picked(follower, (10, 40, 50, 60)) == (10, 40, 50, 60)
    for _ in range(PATIENCE - 1):
        assert picked(follower, (0, 0, 20, 10)) is None
    assert picked(follower, (0, 0, 20, 10), (10, 42, 50, 62)) == (10, 42, 50, 62)
    for _ in range(PATIENCE):
        assert picked(follower) is None
    assert picked(follower, (0, 0, 20, 10)) == (0, 0, 20, 10)
    assert follower.begins == [0, 2 * PATIENCE + 1]


def test_a_start_picks_somebody_smaller():
    follower = Follower(Extent(0, 0, 22, 12))
    assert picked(follower, (10, 40, 50, 60), (0, 0, 20, 10)) == (0, 0, 20, 10)
    assert follower.begins == [0]
    with pytest.raises(DSAError, match="`box=0,0,9,9`: in the first frame nobody overlaps"):
        Follower(Extent(0, 0, 9, 9)).pick(found((10, 40, 50, 60)))


def test_a_resumed_call_goes_on_from_the_maps():
    boxes = [[(10, 40 + 3 * k, 50, 60 + 3 * k), (0, 90 - 3 * k, 60, 99 - 3 * k)] for k in range(9)]
    whole, resumed = Follower(), Follower()
    for k, each in enumerate(boxes):
        map_of = whole.pick(found(*each))
        if k < 5:
            resumed.see(map_of.iuv[..., 0])
        else:
            assert np.array_equal(resumed.pick(found(*each)).iuv, map_of.iuv)


def test_maps_of_one_person_pass():
    follower = Follower()
    alone = found((0, 0, 20, 10))._replace(instances=None)
    assert follower.pick(alone) is alone and follower.begins == [0]
