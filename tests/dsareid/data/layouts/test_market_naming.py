"""Market-1501's layout: the data sets that come in it, their counts, and the two protocols."""

import re
import shutil
from dataclasses import replace

import pytest

from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, MULTI_QUERY, QUERY, TRAIN
from dsareid.data.layouts.summary import listing_summary
from dsareid.ground.errors import DSAError

NAMES = {
    "Market-1501": "{:04d}_c{}s1_000451_{:02d}.jpg",
    "DukeMTMC-reID": "{:04d}_c{}_f00461{:02d}.jpg",
    "CUHK03": "{:04d}_c{}_{}.png",
    "own data": "{:04d}_c{}_monday_{}.jpg",
}


def make(root, name, query=(3,)):
    """Persons 1, 2 to train on and 3, 4 for the test, of two cameras; empty files."""
    for split, people, shots in ((TRAIN, (1, 2), 2), (GALLERY, (3, 4), 2), (QUERY, query, 1)):
        (root / split).mkdir(parents=True)
        for person in people:
            for camera in (1, 2):
                for shot in range(shots):
                    (root / split / name.format(person, camera, 10 * camera + shot)).touch()
    return root


@pytest.mark.parametrize("kind", NAMES)
def test_the_data_set_is_known_by_its_names(tmp_path, kind):
    listing = list_data(make(tmp_path / "data", NAMES[kind]))
    assert listing.dataset.name == ("own data" if kind == "CUHK03" else kind)
    assert [(e.identity, e.camera) for e in listing.entries if e.split == QUERY] == [(3, 1), (3, 2)]
    assert listing.count(TRAIN) == (8, 2) and listing.count(GALLERY) == (8, 2) and listing.cameras


@pytest.mark.parametrize(
    "kind, folder, counts",
    [
        ("Market-1501", "data", ("12,936 images of 751", "3,368 images of 750", "15,913 images of 750")),
        ("DukeMTMC-reID", "data", ("16,522 images of 702", "2,228 images of 702", "17,661 images of 1,110")),
        ("CUHK03", "labeled", ("7,368 images of 767", "1,400 images of 700", "5,328 images of 700")),
        ("CUHK03", "detected", ("7,365 images of 767", "1,400 images of 700", "5,332 images of 700")),
    ],
)
def test_counts_that_differ_are_said_with_both_numbers(tmp_path, kind, folder, counts):
    listing = list_data(make(tmp_path / folder, NAMES[kind]))
    (note,) = listing.notes
    assert f"{tmp_path / folder} has the file names of {kind}" in note and ", but " in note
    for split, expected, found in zip((TRAIN, QUERY, GALLERY), counts, ("8", "2", "8")):
        assert f"{split}: expected {expected} identities, found {found} images of" in note


def test_counts_that_agree_are_not_mentioned(tmp_path):
    listing = list_data(make(tmp_path / "data", NAMES["Market-1501"]))
    counts = {split: listing.count(split) for split in (TRAIN, QUERY, GALLERY)}
    assert replace(listing, dataset=replace(listing.dataset, expected=counts)).notes == []


@pytest.mark.parametrize("kind", ["own data", "synthetic"])
def test_nothing_is_expected_of_other_data(tmp_path, kind):
    root = make(tmp_path / "data", NAMES["Market-1501" if kind == "synthetic" else kind])
    if kind == "synthetic":
        (root / "synth.json").write_text("{}")
    listing = list_data(root)
    assert listing.dataset.name == kind and listing.notes == []


def test_one_file_of_another_name_makes_it_own_data(tmp_path):
    root = make(tmp_path / "data", NAMES["Market-1501"])
    (root / QUERY / "0003_c1.jpg").touch()
    assert list_data(root).dataset.name == "own data"


def test_misnamed_files_are_listed_as_such(own_data):
    names = ["holiday.jpg", "99999999999999999999_c1s1.jpg", "0001.jpg"]
    for name in names:
        (own_data / QUERY / name).touch()
    listing = list_data(own_data)
    found = {e.name: e for e in listing.entries if e.misnamed}
    assert found.keys() == {f"query/{name}" for name in names}
    assert all("the name must begin with identity and camera" in e.misnamed for e in found.values())
    assert all((e.identity, e.camera) == (-1, -1) for e in found.values())
    assert listing.count(QUERY) == (2, 2) and listing.dataset.name == "Market-1501"


def test_nothing_but_junk(tmp_path):
    (tmp_path / QUERY).mkdir()
    (tmp_path / QUERY / "-1_c1s1_000451_00.jpg").touch()
    with pytest.raises(DSAError, match="no images but junk"):
        list_data(tmp_path)


# ---- protocols ----


def add_images(root, folder, *names):
    (root / folder).mkdir()
    for name in names:
        (root / folder / name).touch()


def test_multi_query_lists_what_shows_a_querys_person_from_its_camera(tmp_path):
    root = make(tmp_path / "data", NAMES["Market-1501"])
    (root / QUERY / NAMES["Market-1501"].format(3, 2, 20)).unlink()
    wanted = ["0003_c1s1_000001_00.jpg", "0003_c1s2_000002_01.jpg"]
    add_images(root, MULTI_QUERY, *wanted, "0003_c2s1_000001_00.jpg", "0004_c1s1_000001_00.jpg", "readme.txt")
    listing = list_data(root, "multi-query")
    assert [e.name for e in listing.entries if e.split == MULTI_QUERY] == [f"gt_bbox/{x}" for x in wanted]
    assert listing.protocol == "multi-query"
    assert listing.fingerprint != list_data(root).fingerprint
    assert MULTI_QUERY not in {e.split for e in list_data(root).entries}
    (root / "iuv" / MULTI_QUERY).mkdir(parents=True)
    (root / "iuv" / MULTI_QUERY / "0003_c1s1_000001_00.png").touch()
    maps = [e.iuv for e in list_data(root, "multi-query").entries if e.split == MULTI_QUERY]
    assert maps == ["iuv/gt_bbox/0003_c1s1_000001_00.png", None]


def test_distractors_join_the_gallery(tmp_path):
    root = make(tmp_path / "data", NAMES["Market-1501"])
    add_images(root, "images", "0007_c5s1_000001_00.jpg", "00000001.jpg")
    listing = list_data(root, "distractors")
    more = [e for e in listing.entries if e.name.startswith("images/")]
    assert [(e.split, e.identity, e.camera, e.misnamed) for e in more] == [
        (GALLERY, 0, -1, None),
        (GALLERY, 0, 5, None),
    ]
    assert [e for e in listing.entries if e not in more] == list_data(root).entries
    (note,) = listing.notes
    assert QUERY in note and GALLERY not in note  # how many distractors there are is not known


@pytest.mark.parametrize("protocol", ["multi-query+distractors", "distractors+multi-query"])
def test_both_at_once(tmp_path, protocol):
    root = make(tmp_path / "data", NAMES["Market-1501"])
    add_images(root, "images", "1.jpg")
    add_images(root, MULTI_QUERY, "0003_c1s1_000001_00.jpg")
    listing = list_data(root, protocol)
    assert listing.protocol == "multi-query+distractors"
    assert listing.count(MULTI_QUERY) == (1, 1) and listing.count(GALLERY) == (9, 2)


@pytest.mark.parametrize("protocol, folder", [("multi-query", "gt_bbox"), ("distractors", "images")])
def test_a_protocols_folder_that_is_missing(tmp_path, protocol, folder):
    root = make(tmp_path / "data", NAMES["Market-1501"])
    for make_it in (lambda: None, (root / folder).mkdir):
        make_it()
        words = rf"data/{folder}: no such folder, or no .* protocol {protocol} needs"
        with pytest.raises(DSAError, match=words):
            list_data(root, protocol)


@pytest.mark.parametrize(
    "kind, protocol",
    [
        ("Market-1501", "multi"),
        ("Market-1501", "multi-query+"),
        ("Market-1501", "485-s0"),
        ("DukeMTMC-reID", "multi-query"),
    ],
)
def test_an_unknown_protocol(tmp_path, kind, protocol):
    root = make(tmp_path / "data", NAMES[kind])
    with pytest.raises(DSAError, match=re.escape(f"`protocol={protocol!r}`: {kind} has no such")) as raised:
        list_data(root, protocol)
    more = ", multi-query, distractors, multi-query+distractors" if kind == "Market-1501" else ""
    assert str(raised.value).endswith(f"it has: none (leave it out){more}")


# ---- what is printed ----


def test_description(own_data):
    (own_data / QUERY / "holiday.jpg").touch()
    next((own_data / "iuv" / TRAIN).iterdir()).unlink()
    text = listing_summary(list_data(own_data))
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert text.startswith(f"{own_data}: Market-1501\n") and "ICCV 2015" in text
    assert rows[TRAIN] == ["16", "4", "2", "15"] and rows[QUERY] == ["2", "2", "1", "2"]
    assert rows[GALLERY] == ["9", "2", "2", "9"]
    expected = [line.split()[1:] for line in text.splitlines() if line.strip().startswith("expected")]
    assert expected == [["12,936", "751"], ["3,368", "750"], ["15,913", "750"]]
    assert "junk, left out" in text and "query/holiday.jpg: the name must begin" in text
    assert "protocol   single query\n" in text and "or         multi-query+distractors: both" in text
    assert "note: " in text


def test_a_withdrawn_data_set_is_called_that(tmp_path):
    text = listing_summary(list_data(make(tmp_path / "data", NAMES["DukeMTMC-reID"])))
    assert "withdrawn  by its authors in 2019; it is no longer distributed" in text


def test_a_split_that_is_expected_but_not_there(own_data):
    shutil.rmtree(own_data / QUERY)
    listing = list_data(own_data)
    assert "query: expected 3,368 images of 750 identities, found 0 images of 0" in listing.notes[0]
    assert "query                        0" in listing_summary(listing)
