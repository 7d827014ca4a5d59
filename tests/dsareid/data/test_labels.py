"""Who is in an image: extract and search know what train and eval know."""

import unicodedata

import pytest
from listings import touch_files

from dsareid.data.labels import NOT_KNOWN, image_labels, label_in_name


def test_names_of_market1501():
    assert label_in_name("0002_c1s1_000451_03.jpg") == ("2", "1")
    assert label_in_name("-1_c3s1_000001_00.jpg") == ("-1", "3")
    assert label_in_name("0000_c6s2_000001_00.png") == ("0", "6")
    assert label_in_name("holiday.jpg") == label_in_name("0002_c1/photo.jpg") == NOT_KNOWN


def test_a_folder_of_another_name_is_in_doubt():
    assert label_in_name("anna/0001_c2.jpg") == NOT_KNOWN  # 1 may be a frame
    assert label_in_name("0001/0001_c2.jpg") == label_in_name("1/0001_c2.jpg") == ("1", "2")
    assert label_in_name("day 1/0001_c2s1_000451_03.jpg") == ("1", "2")
    assert label_in_name("day 1/0001_c2_f0046182.jpg") == ("1", "2")


def test_identity_folders(tmp_path):
    files = [
        "gallery/anna/0001_c2.jpg",
        "gallery/bob/0001_c3.jpg",
        "gallery/-1/0001_c1.jpg",
        "query/anna/x_c5.jpg",
    ]
    touch_files(tmp_path, [*files, "gallery/stray.jpg"])
    expected = [("anna", "2"), ("bob", "3"), ("-1", "1"), ("anna", "5")]
    assert image_labels(tmp_path, files) == expected
    names = [name.removeprefix("gallery/") for name in files[:3]]
    assert image_labels(tmp_path / "gallery", names) == expected[:3]
    assert image_labels(tmp_path / "gallery/anna", ["0001_c2.jpg"]) == expected[:1]
    assert image_labels(tmp_path / "gallery", ["stray.jpg"]) == [NOT_KNOWN]


def test_cameras_that_are_not_known(tmp_path):
    files = touch_files(tmp_path, ["query/anna/1.jpg", "gallery/anna/c2_1.jpg"])
    assert image_labels(files, ["query/anna/1.jpg", "gallery/anna/c2_1.jpg"]) == [("anna", None)] * 2


def test_data_csv_and_its_names(tmp_path):
    mac = unicodedata.normalize("NFD", "josé")
    touch_files(tmp_path, [f"all/{mac}.jpg", "all/0009_c1.jpg"])
    (tmp_path / "data.csv").write_text(
        f"file,identity,split,camera\nall/josé.jpg,{mac},query,hall\nall/0009_c1.jpg,0007,gallery,door\n"
    )
    assert image_labels(tmp_path / "all", [f"{mac}.jpg", "0009_c1.jpg"]) == [("josé", "hall"), ("7", "door")]


def test_distractors_of_market1501(tmp_path):
    """Whatever their names, as eval has them by the protocol distractors."""
    touch_files(tmp_path, ["query/0001_c1.jpg", "bounding_box_test/0001_c2.jpg", "images/0005_c3.jpg"])
    assert image_labels(tmp_path / "images", ["0005_c3.jpg"]) == [("0", "3")]


def test_cuhk01(tmp_path):
    touch_files(
        tmp_path, [f"campus/{identity:04d}00{shot}.png" for identity in range(1, 972) for shot in (1, 4)]
    )
    assert image_labels(tmp_path / "campus", ["0007004.png"]) == [("7", "2")]


def test_a_data_set_that_cannot_be_listed_is_told(tmp_path, caplog):
    touch_files(tmp_path, ["query/0001_c2s1_000001_00.jpg"])
    (tmp_path / "data.csv").write_text("of another program\n")
    assert image_labels(tmp_path / "query", ["0001_c2s1_000001_00.jpg"]) == [("1", "2")]
    assert (
        "no labels are taken from the data set" in caplog.text and "line 1 must be the header" in caplog.text
    )


@pytest.mark.parametrize("folder", ["mine", "train of thought"])
def test_a_folder_beside_a_data_set_is_not_of_it(tmp_path, folder):
    names = ["0001_c2s1_000001_00.jpg", "0001_c2.jpg"]
    touch_files(tmp_path, ["train/bob/1.jpg", *(f"{folder}/{name}" for name in names)])
    assert image_labels(tmp_path / folder, names) == [("1", "2"), NOT_KNOWN]
    assert image_labels(tmp_path / "train/bob", ["1.jpg"]) == [("bob", None)]


def test_a_persons_own_folder(tmp_path):
    """The name of the folder that is given counts as that of one inside it."""
    touch_files(tmp_path, ["anna/0001_c2.jpg", "0001/0001_c2.jpg"])
    assert image_labels(tmp_path / "anna", ["0001_c2.jpg"]) == [NOT_KNOWN]
    assert image_labels(tmp_path / "0001", ["0001_c2.jpg"]) == [("1", "2")]


def test_links_into_a_data_set(tmp_path):
    touch_files(tmp_path / "own", ["query/anna/c1_1.jpg", "gallery/anna/c2_1.jpg"])
    (tmp_path / "linked").symlink_to(tmp_path / "own/gallery")
    assert image_labels(tmp_path / "linked", ["anna/c2_1.jpg"]) == [("anna", "2")]


def test_images_of_no_split_are_told(tmp_path, caplog):
    names = ["0001_c2.jpg", "more/0002_c2s1_000001_00.jpg"]
    touch_files(tmp_path, ["query/0001_c1.jpg", *(f"bounding_box_test/{name}" for name in names)])
    assert image_labels(tmp_path / "bounding_box_test", names) == [("1", "2"), ("2", "2")]
    assert "images in no split of this data set, 1 in all, such as more/0002" in caplog.text
