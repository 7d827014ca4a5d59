"""Folders of features: what is written is what is read, and whatever does not fit is named."""

import json

import numpy as np
import pytest

from dsareid.ground.errors import DSAError
from dsareid.inference.feature_folder import (
    check_same_model,
    open_features,
    write_features,
)

FILES = ["0002_c1s1_000451_03.jpg", 'of others/a, "b"\n.png', "-1_c3s1_000001_00.jpg", "0000_c6s2_1_1.jpg"]


@pytest.fixture
def folder(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    write_features(tmp_path / "features", values, FILES, model="net", images="photos", described="test")
    return tmp_path / "features"


def test_what_is_written_is_read(folder):
    found = open_features(folder)
    assert found.model == "net" and str(found.images) == "photos" and len(found) == 4
    assert found.files == FILES
    assert found.labels == [("2", "1"), (None, None), ("-1", "3"), ("0", "6")]
    assert isinstance(found.features, np.memmap) and not found.features.flags.writeable
    assert found.features.dtype == np.float32 and found.features.tolist() == [
        [0, 1, 2],
        [3, 4, 5],
        [6, 7, 8],
        [9, 10, 11],
    ]


def test_given_labels_win_over_names(tmp_path):
    labels = {"ids": [7, None, "anna"], "cams": [None, 8, "0008"]}
    files = ["0001_c1.png", "b", "c"]
    write_features(tmp_path / "f", np.ones((3, 1), np.float32), files, model="m", **labels)
    assert open_features(tmp_path / "f").labels == [("7", None), (None, "8"), ("anna", "8")]


def test_numpy_writes_such_a_file(folder):
    """Features of another program: np.save, and the two others by hand."""
    np.save(folder / "features.npy", np.ones((4, 3), np.float32))
    assert open_features(folder).features.sum() == 12


def edit_header(folder, **changes):
    header = json.loads((folder / "features.json").read_text())
    (folder / "features.json").write_text(json.dumps(header | changes))


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"count": 5}, "features.npy: expected float32 .5, 3."),
        ({"dimension": 4}, "features.npy: expected float32 .4, 4."),
        ({"count": 6, "dimension": 2}, "its header differs"),
        ({"count": 0}, "features.json: not what dsareid extract writes: count"),
        ({"count": "4"}, "count"),
        ({"version": 2}, "version"),
        ({"format": "x"}, "format"),
        ({"model": ""}, "model"),
        ({"more": 1}, "more"),
    ],
)
def test_headers_that_do_not_fit(folder, changes, words):
    edit_header(folder, **changes)
    with pytest.raises(DSAError, match=words):
        open_features(folder)


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "images.csv: the first line must be file,identity,camera"),
        ("file,id,cam\n", "images.csv: the first line must be file,identity,camera, not 'file,id,cam'"),
        ("file,identity,camera\na,1,1\n", "images.csv: 1 images, but features.json says 4"),
        ("file,identity,camera\n" + "a,1,1\n" * 5, "more images than the 4"),
        ("file,identity,camera\na,1\n", "line 2: expected file,identity,camera, not 'a,1'"),
        ("file,identity,camera\na,1,1\n,1,1\n", "line 3: expected file"),
        ("file,identity,camera\na,-5,1\n", "line 2: the identity must be a word, a number of at least -1"),
        ("file,identity,camera\na,1,-2\n", "line 2: the camera must be"),
        ("file,identity,camera\n" + "a" * 200_000 + ",1,1\n", "not readable as CSV"),
    ],
)
def test_lists_of_images_that_do_not_fit(folder, text, words):
    (folder / "images.csv").write_text(text)
    with pytest.raises(DSAError, match=words):
        open_features(folder)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((4, 3)),
        np.ones((3, 4), np.float32).T,
        np.ones(12, np.float32),
        np.array([{}] * 4),
    ],
)
def test_arrays_that_do_not_fit(folder, array):
    np.save(folder / "features.npy", array, allow_pickle=True)
    with pytest.raises(DSAError, match="features.npy: expected float32 .4, 3. in C order"):
        open_features(folder)


def test_cut_short_missing_and_no_folder(folder, tmp_path):
    whole = (folder / "features.npy").read_bytes()
    (folder / "features.npy").write_bytes(whole[:-1])
    with pytest.raises(DSAError, match="features.npy: expected .*but it is 175 bytes long"):
        open_features(folder)
    (folder / "features.npy").unlink()
    with pytest.raises(DSAError, match="features.npy: missing from this folder of features"):
        open_features(folder)
    (folder / "features.json").write_text("{")
    with pytest.raises(DSAError, match="features.json: not what dsareid extract writes"):
        open_features(folder)
    for path in (tmp_path, tmp_path / "nothing", folder / "images.csv"):
        with pytest.raises(DSAError, match="not a folder of features: there is no features.json"):
            open_features(path)


def test_features_of_two_models(folder, tmp_path):
    for name, model, size in (("other", "another", 3), ("wide", "net", 4)):
        write_features(tmp_path / name, np.ones((1, size), np.float32), ["a"], model=model)
    a = open_features(folder)
    check_same_model(a, open_features(folder))
    with pytest.raises(DSAError, match="other: features of model another, but .*features are of model net"):
        check_same_model(a, open_features(tmp_path / "other"))
    with pytest.raises(DSAError, match="of dimension 4"):
        check_same_model(a, open_features(tmp_path / "wide"))


def test_what_cannot_be_written(folder, tmp_path):
    one = np.ones((1, 2), np.float32)
    with pytest.raises(DSAError, match="holds features already"):
        write_features(folder, one, ["a"], model="net")
    with pytest.raises(ValueError, match="features must be float32"):
        write_features(tmp_path / "new", one.astype(float), ["a"], model="net")
    with pytest.raises(ValueError, match="files must have 1 entries"):
        write_features(tmp_path / "new", one, ["a", "b"], model="net")


def test_a_table_that_a_spreadsheet_wrote(folder):
    """With a byte order mark, lines of commas and numbers without zeros."""
    text = (folder / "images.csv").read_text()
    before = open_features(folder)
    (folder / "images.csv").write_text("\ufeff" + text.replace("\n0000_c6", "\n,,\n0000_c6") + ",,\n")
    assert open_features(folder).labels == before.labels and open_features(folder).files == before.files


def test_the_folder_of_images_must_be_a_text(folder):
    edit_header(folder, images=5)
    with pytest.raises(DSAError, match="features.json: not what dsareid extract writes: images"):
        open_features(folder)
