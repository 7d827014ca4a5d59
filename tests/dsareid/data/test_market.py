import numpy as np
import pytest

from dsareid.data.market import GALLERY, QUERY, TRAIN, load_split
from dsareid.errors import DSAError


def test_split(tiny_data):
    split = load_split(tiny_data, TRAIN, 64, 32, iuv=True)
    assert len(split) == 16
    assert split.images.shape == split.iuv.shape == (16, 64, 32, 3)
    assert split.images.dtype == split.iuv.dtype == np.uint8
    assert split.ids.tolist() == [i for i in range(1, 5) for _ in range(4)]
    assert split.cams.tolist() == [1, 1, 2, 2] * 4
    assert split.names[0].startswith("bounding_box_train/0001_c1")
    assert split.iuv[..., 0].max() == 24


def test_junk_is_dropped_and_distractors_stay(tiny_data):
    split = load_split(tiny_data, GALLERY, 64, 32, iuv=False)
    assert -1 not in split.ids and (split.ids == 0).sum() == 1
    assert split.iuv is None


def test_resized_maps_hold_only_values_of_the_file(tiny_data):
    small = load_split(tiny_data, QUERY, 30, 17, iuv=True)
    whole = load_split(tiny_data, QUERY, 64, 32, iuv=True)
    assert small.images.shape == (2, 30, 17, 3)
    for n in range(2):
        triples = {tuple(x) for x in whole.iuv[n].reshape(-1, 3)}
        assert {tuple(x) for x in small.iuv[n].reshape(-1, 3)} <= triples


def test_both_names_of_a_map_are_found(own_data):
    path = next((own_data / "iuv/query").iterdir())
    path.rename(path.with_name(f"{path.stem}_IUV.png"))
    assert len(load_split(own_data, QUERY, 64, 32, iuv=True)) == 2


def test_bad_folders(own_data):
    with pytest.raises(DSAError, match="no such folder"):
        load_split(own_data / "nowhere", TRAIN, 64, 32, iuv=False)
    (own_data / "query/holiday.jpg").touch()
    with pytest.raises(DSAError, match="holiday.jpg: the name must begin"):
        load_split(own_data, QUERY, 64, 32, iuv=False)
    (own_data / "query/holiday.jpg").rename(own_data / "query/99999999999999999999_c1s1.jpg")
    with pytest.raises(DSAError, match="the name must begin"):
        load_split(own_data, QUERY, 64, 32, iuv=False)
    for path in (own_data / "query").iterdir():
        path.unlink()
    with pytest.raises(DSAError, match="no images"):
        load_split(own_data, QUERY, 64, 32, iuv=False)


def test_a_missing_map_is_an_error_only_where_maps_are_needed(own_data):
    next((own_data / "iuv/query").iterdir()).unlink()
    assert len(load_split(own_data, QUERY, 64, 32, iuv=False)) == 2
    with pytest.raises(DSAError, match="the IUV map of .* is missing"):
        load_split(own_data, QUERY, 64, 32, iuv=True)


def test_a_corrupt_image_is_named(own_data):
    path = sorted((own_data / TRAIN).iterdir())[5]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DSAError, match=path.name):
        load_split(own_data, TRAIN, 64, 32, iuv=True)
