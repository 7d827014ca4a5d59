"""One's own data in a CSV list."""

import pytest
from listings import found, touch_files

from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.ground.errors import DSAError

ROWS = [
    "a/1.jpg,bob,train,hall",
    "a/2.jpg,bob,train,lift",
    "b.png,eve,query,hall",
    "a/3.jpg,eve,gallery,lift",
]


def table(root, rows=ROWS, header="file,identity,split,camera"):
    touch_files(root, ["a/1.jpg", "a/2.jpg", "a/3.jpg", "b.png"])
    (root / "data.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


def test_a_csv(tmp_path):
    listing = list_data(table(tmp_path))
    assert found(listing) == [
        (TRAIN, "a/1.jpg", 1, 1),
        (TRAIN, "a/2.jpg", 1, 2),
        (QUERY, "b.png", 2, 1),
        (GALLERY, "a/3.jpg", 2, 2),
    ]
    assert listing.cameras and listing.notes == []


def test_other_ways_to_write_it(tmp_path):
    rows = [" train , a/1.jpg,bob", "", 'query,"./b.png",eve', "gallery,a//3.jpg,eve"]
    listing = list_data(table(tmp_path, rows, "\ufeffsplit,file, identity"))
    assert found(listing) == [(TRAIN, "a/1.jpg", 1, 0), (QUERY, "b.png", 2, 0), (GALLERY, "a/3.jpg", 2, 1)]
    assert not listing.cameras and "the same-camera rule is off" in listing.notes[0]


def test_cameras_that_are_numbers_stay_these(tmp_path):
    cameras = [7, 12, 7, 3]
    listing = list_data(table(tmp_path, [f"{row.rpartition(',')[0]},{x}" for row, x in zip(ROWS, cameras)]))
    assert [e.camera for e in listing.entries] == cameras


def test_it_comes_before_the_folders(tmp_path):
    assert len(list_data(table(touch_files(tmp_path, ["train/bob/1.jpg", "gallery/eve/1.jpg"]))).entries) == 4


def test_the_maps_of_listed_files(tmp_path):
    touch_files(table(tmp_path), ["iuv/b.png", "iuv/a/3_IUV.png"])
    assert [e.iuv for e in list_data(tmp_path).entries] == [None, None, "iuv/b.png", "iuv/a/3_IUV.png"]


def test_the_fingerprint_is_that_of_the_labels_too(tmp_path):
    before = list_data(table(tmp_path)).fingerprint
    path = tmp_path / "data.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]))
    assert list_data(tmp_path).fingerprint == before
    for other in ("a/3.jpg,ann,gallery,lift", "a/3.jpg,eve,gallery,hall", "a/3.jpg,eve,query,lift"):
        path.write_text("\n".join([header, *rows[:3], other]))
        assert list_data(tmp_path).fingerprint != before


@pytest.mark.parametrize(
    "row, words",
    [
        ("a/3.jpg,eve,test,hall", "line 4, column split: must be train, query, gallery, not 'test'"),
        ("a/3.jpg,,gallery,hall", "line 4, column identity: empty"),
        ("a/3.jpg,eve,gallery, ", "line 4, column camera: empty"),
        ("a/3.jpg,eve,gallery", "line 4: 3 cells, but the header has 4"),
        ("a/4.jpg,eve,gallery,hall", "line 4, column file: a/4.jpg: no such file"),
        ("c/4.jpg,eve,gallery,hall", "line 4, column file: c/4.jpg: no such file"),
        ("./a/1.jpg,eve,gallery,hall", "line 4, column file: a/1.jpg is listed twice"),
        ("../x.jpg,eve,gallery,hall", "line 4, column file: must be a path inside .* not '../x.jpg'"),
        ("a/../../x.jpg,eve,gallery,hall", "line 4, column file: must be a path inside"),
        ("/etc/x.jpg,eve,gallery,hall", "line 4, column file: must be a path inside"),
        (".,eve,gallery,hall", "line 4, column file: .: no such file"),
        ('"a/3.jpg,eve,gallery,hall', "line 4: unexpected end of data"),
    ],
)
def test_a_line_that_is_wrong(tmp_path, row, words):
    with pytest.raises(DSAError, match=rf"data\.csv: {words}"):
        list_data(table(tmp_path, [*ROWS[:2], row]))


@pytest.mark.parametrize(
    "header",
    ["", "file;identity;split", "file,identity", "file,identity,split,cam", "file,file,identity,split"],
)
def test_a_header_that_is_wrong(tmp_path, header):
    with pytest.raises(DSAError, match="line 1 must be the header file,identity,split or file,.*, not"):
        list_data(table(tmp_path, [], header))


def test_a_csv_that_cannot_be_used(tmp_path):
    with pytest.raises(DSAError, match="it lists no images"):
        list_data(table(tmp_path, []))
    (tmp_path / "data.csv").write_bytes(b"file,identity,split\na/1.jpg,Zo\xeb,train\n")
    with pytest.raises(DSAError, match=r"data\.csv: not UTF-8"):
        list_data(tmp_path)
    (tmp_path / "data.csv").unlink()
    (tmp_path / "data.csv").mkdir()
    with pytest.raises(DSAError, match=r"data\.csv: cannot be read: Is a directory"):
        list_data(tmp_path)


def test_people_on_both_sides(tmp_path):
    with pytest.raises(DSAError, match="1 in all: a/2.jpg and a/3.jpg"):
        list_data(table(tmp_path, [*ROWS[:3], "a/3.jpg,bob,gallery,lift"]))


def test_there_is_no_protocol(tmp_path):
    with pytest.raises(DSAError, match="own data has no such protocol; it has: none"):
        list_data(table(tmp_path), "distractors")


def test_lines_of_commas_are_empty(tmp_path):
    """Excel writes them."""
    assert found(list_data(table(tmp_path, [*ROWS[:2], ",,,", *ROWS[2:], " , ,,"]))) == found(
        list_data(table(tmp_path))
    )


def test_names_in_another_unicode_form(tmp_path):
    mac, other = "jose\u0301", "jos\u00e9"
    touch_files(tmp_path, [f"{mac}/{other}.jpg"])
    listing = list_data(table(tmp_path, [*ROWS, f"{other}/{mac}.jpg,eve,gallery,lift"]))
    assert listing.entries[-1].name == f"{mac}/{other}.jpg"


def test_images_that_are_not_listed_are_told(tmp_path):
    (note,) = list_data(touch_files(table(tmp_path), ["a/4.jpg", "c/5.jpg", "6.png"])).notes
    expected = "images in no split are not read: the folder itself (1), a (1), c (1)"
    assert note == f"{tmp_path}: {expected}"


def test_one_number_in_two_ways(tmp_path):
    rows = [*ROWS[:2], ROWS[2].replace("eve", "0001"), ROWS[3].replace("eve", "1")]
    with pytest.raises(
        DSAError, match="data.csv, column identity: the identities '0001' and '1' differ in zeros"
    ):
        list_data(table(tmp_path, rows))


@pytest.mark.parametrize("other", ["hall", "7"])
def test_cameras_are_the_same_but_for_zeros(tmp_path, other):
    """Whatever the cameras of the training are called."""
    rows = [f"a/1.jpg,bob,train,{other}", "b.png,eve,query,1", "a/3.jpg,eve,gallery,01"]
    listing = list_data(table(tmp_path, rows))
    assert listing.entries[1].camera == listing.entries[2].camera
    assert listing.remarks[0].startswith("no query has a match")
