"""One's own data in identity folders."""

import pytest
from listings import found, touch_files

from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.layouts.summary import listing_summary
from dsareid.ground.errors import DSAError

FILES = [
    "train/bob/c1_1.jpg",
    "train/bob/c2_1.jpg",
    "query/zoë/x_c1.jpg",
    "gallery/zoë/x_c12.jpg",
    "gallery/0007/c2_9.png",
]


def make(root, files=FILES):
    return touch_files(root, files)


def test_identity_folders(tmp_path):
    listing = list_data(make(tmp_path))
    assert found(listing) == [
        (TRAIN, "train/bob/c1_1.jpg", 2, 1),
        (TRAIN, "train/bob/c2_1.jpg", 2, 2),
        (QUERY, "query/zoë/x_c1.jpg", 3, 1),
        (GALLERY, "gallery/0007/c2_9.png", 1, 2),
        (GALLERY, "gallery/zoë/x_c12.jpg", 3, 12),
    ]
    assert listing.cameras and listing.notes == [] and listing.dataset.name == "own data"
    assert "own data" in listing_summary(listing) and "the same-camera rule" not in listing_summary(listing)


def test_a_name_without_a_camera_and_there_are_none(tmp_path):
    listing = list_data(make(tmp_path, [*FILES, "gallery/0007/lift_cam3.jpg"]))
    assert {(e.split, e.camera) for e in listing.entries} == {(TRAIN, 0), (QUERY, 0), (GALLERY, 1)}
    assert not listing.cameras
    (note,) = listing.notes
    assert note.startswith(f"{tmp_path}: cameras are not known: the same-camera rule is off")
    assert f"note: {note}" in listing_summary(listing)


def test_some_splits_are_enough(tmp_path):
    assert {e.split for e in list_data(make(tmp_path / "a", FILES[:2])).entries} == {TRAIN}
    assert {e.split for e in list_data(make(tmp_path / "b", FILES[2:])).entries} == {QUERY, GALLERY}


def test_their_maps(tmp_path):
    make(tmp_path, [*FILES, "iuv/query/zoë/x_c1.png", "iuv/train/bob/c1_1_IUV.png"])
    maps = {e.name: e.iuv for e in list_data(tmp_path).entries}
    assert maps["query/zoë/x_c1.jpg"] == "iuv/query/zoë/x_c1.png"
    assert maps["train/bob/c1_1.jpg"] == "iuv/train/bob/c1_1_IUV.png" and maps["train/bob/c2_1.jpg"] is None


def test_an_image_outside_of_an_identity_folder(tmp_path):
    listing = list_data(make(tmp_path, [*FILES, "query/lost.jpg", "train/notes.txt", "train/.cache/a.jpg"]))
    (wrong,) = [e for e in listing.entries if e.misnamed]
    assert wrong.name == "query/lost.jpg" and "as in query/anna/1.jpg" in wrong.misnamed
    assert len(listing.entries) == 6 and listing.cameras


def test_an_empty_folder(tmp_path):
    make(tmp_path)
    (tmp_path / "gallery/0007/c2_9.png").unlink()
    (tmp_path / "gallery/zoë/x_c12.jpg").unlink()
    with pytest.raises(DSAError, match="gallery: no images in this folder"):
        list_data(tmp_path)


def test_the_same_word_is_the_same_person(tmp_path):
    with pytest.raises(DSAError, match="1 in all: train/bob/c2_1.jpg and gallery/bob/c3_1.jpg"):
        list_data(make(tmp_path, [*FILES, "gallery/bob/c3_1.jpg"]))


def test_there_is_no_protocol(tmp_path):
    with pytest.raises(DSAError, match="own data has no such protocol; it has: none"):
        list_data(make(tmp_path), "distractors")


def test_cameras_of_the_training_are_not_asked_for(tmp_path):
    """The rule needs those of query and gallery alone."""
    for name in ("train/a/1.jpg", "query/b/c1_1.jpg", "gallery/b/c2_1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    listing = list_data(tmp_path)
    assert listing.cameras and [e.camera for e in listing.entries] == [0, 1, 2]


def test_one_person_in_two_unicode_forms(tmp_path):
    mac, other = "jose\u0301", "jos\u00e9"
    listing = list_data(make(tmp_path, [f"query/{mac}/c1_1.jpg", f"gallery/{other}/c2_1.jpg"]))
    assert len({entry.identity for entry in listing.entries}) == 1 and listing.notes == []
    with pytest.raises(
        DSAError, match="training and test identities must not overlap, but some do, 1 in all"
    ):
        list_data(make(tmp_path, [f"train/{mac}/c1_1.jpg"]))


def test_one_number_in_two_ways(tmp_path):
    """They may be two people."""
    with pytest.raises(DSAError, match=f"{tmp_path}: the identities '0001' and '1' differ in zeros or"):
        list_data(make(tmp_path, ["query/0001/c1_1.jpg", "gallery/1/c2_1.jpg"]))


@pytest.mark.parametrize("folder", [".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX"])
def test_folders_of_the_system_are_no_people(tmp_path, folder):
    before = found(list_data(make(tmp_path)))
    assert (
        found(list_data(make(tmp_path, [f"gallery/{folder}/c1_1.jpg", f"gallery/zoë/{folder}/a.jpg"])))
        == before
    )


def test_folders_below_an_identity_are_told(tmp_path):
    (note,) = list_data(make(tmp_path, [*FILES, "train/bob/day 1/c1_2.jpg"])).notes
    assert note == f"{tmp_path}: images in no split are not read: train/bob/day 1 (1)"


def test_cameras_of_nobody_are_not_asked_for(tmp_path):
    listing = list_data(make(tmp_path, [*FILES, "gallery/0000/lift.jpg", "gallery/-1/lift.jpg"]))
    assert listing.cameras and listing.junk == 1
    assert (GALLERY, "gallery/0000/lift.jpg", 0, -1) in found(listing)
