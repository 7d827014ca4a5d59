"""From a folder to a listing: what holds for every layout."""

import os
import shutil
from functools import partial
from importlib import import_module
from pkgutil import iter_modules

import numpy as np
import pytest
from listings import touch_files

from dsareid.data import layouts
from dsareid.data.iuv import write_iuv
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN, scan_folder
from dsareid.data.layouts.summary import listing_summary
from dsareid.ground.errors import DSAError


def test_every_data_set_is_a_module_in_the_table():
    """With its record, how it is recognised and how its images are found; the other modules are shared."""
    modules = {name: import_module(f"{layouts.__name__}.{name}") for name in layouts.LAYOUTS}
    for name, module in modules.items():
        records = getattr(module, "KINDS", None) or {"": module.DATASET}
        assert all(record.name and record.layout for record in records.values()), name
        assert callable(module.recognise) and callable(module.find)
    others = {"base", "market_naming", "own_labels", "cuhk03_matlab", "summary"}
    assert {module.name for module in iter_modules(layouts.__path__)} == {*modules, *others}


@pytest.mark.parametrize(
    "names, module",
    [
        (["synth.json", TRAIN], "synthetic"),
        (["synth.json", "train"], "identity_folders"),
        ([TRAIN, "data.csv", "train", "campus"], "identity_names"),
        ([GALLERY, "data.csv"], "identity_names"),
        (["query", "data.csv"], "csv_list"),
        (["query", "campus"], "identity_names"),
        (["query", "train"], "identity_folders"),
        (["query", "gallery", "campus"], "identity_folders"),
        (["data.csv", "campus"], "csv_list"),
        (["campus"], "cuhk01"),
    ],
)
def test_what_is_recognised_first(tmp_path, names, module):
    for name in names:
        (tmp_path / name).mkdir()
    found = layouts._recognise(tmp_path, partial(scan_folder, tmp_path))
    assert found.__name__ == f"{layouts.__name__}.{module}"


def test_a_listing(tiny_data):
    listing = list_data(tiny_data)
    assert len(listing.entries) == 27
    assert [entry.split for entry in listing.entries] == [TRAIN] * 16 + [QUERY] * 2 + [GALLERY] * 9
    first = listing.entries[0]
    assert first.name == f"{TRAIN}/0001_c1s1_000000_00.png" and first.iuv == f"iuv/{first.name}"
    assert (first.identity, first.camera, first.misnamed) == (1, 1, None)
    for split in (TRAIN, QUERY, GALLERY):
        names = [entry.name for entry in listing.entries if entry.split == split]
        assert names == sorted(names)


def test_junk_is_not_listed_and_distractors_are(tiny_data):
    listing = list_data(tiny_data)
    identities = [entry.identity for entry in listing.entries]
    assert -1 not in identities and identities.count(0) == 1 and listing.junk == 1
    assert listing.count(GALLERY) == (9, 2)


def test_other_files_are_not_listed(own_data):
    before = list_data(own_data)
    (own_data / QUERY / "Thumbs.db").touch()
    (own_data / QUERY / "._0001_c1.jpg").touch()
    (own_data / "iuv" / QUERY / "0009_c1s1_000000_00.png").touch()
    assert list_data(own_data) == before


def test_both_names_of_a_map_are_listed(own_data):
    path = next((own_data / "iuv/query").iterdir())
    path.rename(path.with_name(f"{path.stem}_IUV.png"))
    maps = [entry.iuv for entry in list_data(own_data).entries if entry.split == QUERY]
    assert f"iuv/query/{path.stem}_IUV.png" in maps and None not in maps
    path.with_name(f"{path.stem}_IUV.png").unlink()
    assert None in [entry.iuv for entry in list_data(own_data).entries]


@pytest.mark.parametrize("change", ["content", "time", "name", "removed", "map", "synthetic", "junk's"])
def test_the_fingerprint_is_that_of_the_files(own_data, change):
    before = list_data(own_data).fingerprint
    assert list_data(own_data.rename(own_data.with_name("moved"))).fingerprint == before
    root = own_data.with_name("moved")
    path = sorted((root / GALLERY).iterdir())[0 if change == "junk's" else 3]
    if change == "content":
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        path.write_bytes(path.read_bytes() + b"x")
        os.utime(path, ns=times)
    elif change == "time":
        os.utime(path, ns=(1, 1))
    elif change == "name":
        path.rename(path.with_name("0009_c1s1_000000_00.png"))
    elif change == "map":
        os.utime(root / "iuv" / GALLERY / path.name, ns=(1, 1))
    elif change == "synthetic":
        (root / "synth.json").write_text("{}")
    else:
        path.unlink()
    assert (list_data(root).fingerprint == before) == (change == "junk's")


def test_a_name_that_is_no_utf8(own_data):
    (own_data / QUERY / os.fsdecode(b"0001_c1s1_\xff.jpg")).touch()
    (wrong,) = [e for e in list_data(own_data).entries if e.misnamed]
    assert wrong.misnamed == "the name is not UTF-8" and wrong.name.encode() and wrong.identity == -1


def test_folders_that_are_missing(own_data):
    shutil.rmtree(own_data / QUERY)
    assert {entry.split for entry in list_data(own_data).entries} == {TRAIN, GALLERY}
    shutil.rmtree(own_data / GALLERY)
    assert {entry.split for entry in list_data(own_data).entries} == {TRAIN}


def test_no_data_set(own_data, tmp_path):
    with pytest.raises(DSAError, match="nowhere: no such folder; a data set is a folder with"):
        list_data(own_data / "nowhere")
    with pytest.raises(DSAError, match="png: not a folder"):
        list_data(next((own_data / QUERY).iterdir()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DSAError, match=f"it has none of the folders of one; .* {TRAIN}, query and"):
        list_data(tmp_path / "empty")
    (tmp_path / "empty" / TRAIN).touch()
    with pytest.raises(DSAError, match=f"{TRAIN}: cannot be listed: Not a directory"):
        list_data(tmp_path / "empty")


def test_an_empty_split_is_named(own_data):
    for path in (own_data / QUERY).iterdir():
        path.unlink()
    with pytest.raises(DSAError, match="market/query: no images in this folder"):
        list_data(own_data)


def test_a_folder_too_high_is_told_where_the_data_sets_are(own_data, tmp_path):
    with pytest.raises(DSAError, match=f"there is one in it: give {own_data}$"):
        list_data(own_data.parent)
    np_form = tmp_path / "cuhk03-np"
    for kind in ("labeled", "detected"):
        shutil.copytree(own_data, np_form / kind)
    with pytest.raises(DSAError, match=f"give {np_form / 'detected'} or {np_form / 'labeled'}$"):
        list_data(np_form)


def test_matlab_files_must_be_extracted(tmp_path):
    (tmp_path / "cuhk03_release").mkdir()
    (tmp_path / "cuhk03_release/cuhk-03.mat").touch()
    with pytest.raises(DSAError, match=f"dsareid data extract {tmp_path} OUT"):
        list_data(tmp_path)


def test_a_dangling_link_is_listed(own_data):
    (own_data / QUERY / "0009_c1s1_000000_00.png").symlink_to("nowhere")
    assert len(list_data(own_data).entries) == 28


def test_a_person_of_the_test_that_is_trained_on(own_data):
    shutil.copy(own_data / TRAIN / "0002_c1s1_000000_00.png", own_data / GALLERY / "0002_c1s1_000000_00.png")
    with pytest.raises(DSAError, match=f"1 in all: {TRAIN}/0002_c.* and {GALLERY}/0002_c"):
        list_data(own_data)


def test_distractors_and_misnamed_files_are_nobody(own_data):
    for split in (TRAIN, QUERY):
        for name in ("0000_c1s1_000000_00.png", "-1_c1s1_000000_00.png", "holiday.png"):
            (own_data / split / name).touch()
    assert list_data(own_data).junk == 3


def test_distractors_are_of_the_gallery_alone(own_data):
    """Nobody trains on them as on one person, and nobody looks for them."""
    before = [entry.name for entry in list_data(own_data).entries]
    for split in (TRAIN, QUERY):
        shutil.copy(
            own_data / GALLERY / "0000_c1s1_000000_00.png", own_data / split / "0000_c4s1_000000_00.png"
        )
    listing = list_data(own_data)
    assert [entry.name for entry in listing.entries] == before
    (note,) = listing.remarks
    assert note == (
        "left out because they show nobody: 1 of bounding_box_train (distractors, identity 0), 1 of query "
        "(distractors, identity 0)"
    )


def test_junk_and_distractors_are_the_same_in_every_layout(tmp_path):
    """As prepare scripts make folders of Market-1501, and as a list."""
    market = ["0002_c1.jpg", "0002_c2.jpg", "-1_c1.jpg", "0000_c3.jpg"]
    touch_files(tmp_path / "market", [f"{split}/{name}" for split in (GALLERY, QUERY) for name in market])
    folders = [f"{folder}/{name.replace('_', '/')}" for folder in ("gallery", "query") for name in market]
    folders = [name.replace("/c", "/x_c") for name in folders]
    touch_files(tmp_path / "folders", folders)
    touch_files(tmp_path / "csv", folders)
    lines = [f"{name},{name.split('/')[1]},{name.split('/')[0]},{name[-5]}" for name in folders]
    (tmp_path / "csv/data.csv").write_text("\n".join(["file,identity,split,camera", *lines, ",,,"]) + "\n")
    found = {}
    for name in ("market", "folders", "csv"):
        listing = list_data(tmp_path / name)
        assert listing.junk == 2 and listing.cameras
        found[name] = [(entry.split, min(entry.identity, 1), entry.camera) for entry in listing.entries]
    assert sorted(found["market"]) == sorted(found["folders"]) == sorted(found["csv"])
    assert (GALLERY, 0, 3) in found["csv"] and len(found["csv"]) == 5


def test_maps_are_found_in_any_form_of_their_name(tmp_path):
    """Of images unzipped on one system and maps made on another."""
    mac, other = "jose\u0301", "jos\u00e9"
    expected = {
        f"query/{mac}/{other}_c1.jpg": f"iuv/query/{other}/{mac}_c1.png",
        "gallery/b/1_c1.jpg": "iuv/gallery/b/1_c1.PNG",
        "gallery/b/2_c1.jpg": "iuv/gallery/b/2_c1_IUV.PNG",
    }
    touch_files(tmp_path, [*expected, *expected.values()])
    assert {entry.name: entry.iuv for entry in list_data(tmp_path).entries} == expected


def test_two_maps_of_one_image(own_data):
    path = sorted((own_data / "iuv/query").iterdir())[0]
    second = path.with_name(f"{path.stem}_IUV.png")
    shutil.copy(path, second)
    assert list_data(own_data).entries  # the same map twice is one
    write_iuv(second, np.zeros((64, 32, 3), np.uint8))
    with pytest.raises(
        DSAError, match=f"{path.name} and .*_IUV.png differ, and both are the IUV map of query/"
    ):
        list_data(own_data)


def test_two_images_of_one_map(own_data):
    path = sorted((own_data / QUERY).iterdir())[0]
    shutil.copy(path, path.with_suffix(".jpg"))
    with pytest.raises(DSAError, match=f"{path.stem}.jpg and query/{path.name} share one IUV map"):
        list_data(own_data)
    shutil.rmtree(own_data / "iuv")
    assert len(list_data(own_data).entries) == 28


def test_images_that_are_not_read_are_named(own_data):
    images = [own_data / QUERY / name for name in os.listdir(own_data / QUERY)]
    for folder in ("val", "test/deep", "query/query", "gt_bbox", ".cache", "query/@eaDir", "store-64x32"):
        (own_data / folder).mkdir(parents=True)
        for path in images:
            shutil.copy(path, own_data / folder)
    (own_data / "query/heic.heic").touch()
    listing = list_data(own_data)
    assert listing.remarks == [
        "images in no split are not read: query/query (2), store-64x32 (2), test (2), val (2)",
        "query/heic.heic is skipped: files of its kind are not read",
    ]
    assert all(f"note: {own_data}: {remark}" in listing_summary(listing) for remark in listing.remarks)


def test_an_archive_unpacked_into_itself(own_data, tmp_path):
    """Once more inside, or a folder in a folder of the same name, or two levels down."""
    inner = shutil.copytree(own_data, own_data / own_data.name)
    assert f"{own_data.name} (56)" in list_data(own_data).remarks[0]
    deep = tmp_path / "downloads"
    shutil.copytree(inner, deep / "Market/Market")
    with pytest.raises(DSAError, match=f"there is one in it: give {deep / 'Market/Market'}$"):
        list_data(deep)
    (inner / QUERY).rename(inner / "moved")
    (inner / QUERY).mkdir()
    (inner / "moved").rename(inner / QUERY / QUERY)
    with pytest.raises(
        DSAError, match="query: no images in this folder .*there are some in .*query/query: move"
    ):
        list_data(inner)


def test_queries_without_a_match_are_told_before_the_training(tmp_path):
    names = ["bounding_box_test/0005_c1.jpg", "query/0005_c1.jpg", "query/0006_c2.jpg"]
    (note,) = list_data(touch_files(tmp_path, names)).notes
    assert note.startswith(
        f"{tmp_path}: no query has a match: for 1 the person is not in the gallery, for 1 the"
    )


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".tiff", ".jfif", ".JPG", ".bmp"])
def test_every_suffix_of_the_reader_is_listed(tmp_path, suffix):
    touch_files(tmp_path, [f"query/0001_c1{suffix}", "bounding_box_test/0001_c2.png"])
    assert [entry.name for entry in list_data(tmp_path).entries][0] == f"query/0001_c1{suffix}"


def test_folders_that_are_links(own_data, tmp_path):
    (own_data / QUERY).rename(tmp_path / "elsewhere")
    before = list_data(own_data)
    (own_data / QUERY).symlink_to(tmp_path / "elsewhere")
    assert len(list_data(own_data).entries) == len(before.entries) + 2 and not list_data(own_data).remarks


def test_two_layouts_in_one_folder(own_data):
    (own_data / "data.csv").write_text("file,identity,split\n")
    assert "its data.csv is not read: by its folders it is Market-1501" in list_data(own_data).remarks


def test_people_of_whom_no_file_is_read(tmp_path):
    names = ["train/bob/c1_1.jpg", "train/dora/1.heic", "gallery/emil/1.heic", "gallery/zoe/c1_1.jpg"]
    missing, note = list_data(touch_files(tmp_path, names)).notes
    assert missing.endswith("train works, eval does not")
    assert note.endswith(
        "2 files are skipped, the first gallery/emil/1.heic: files of their kinds are not read"
    )


def test_folders_of_other_protocols_are_named_where_there_are_none(tmp_path):
    names = ["query/0001_c1_f0000001.jpg", "bounding_box_test/0001_c2_f0000001.jpg", "images/a.jpg"]
    (note,) = list_data(touch_files(tmp_path, names)).remarks
    assert note == "images in no split are not read: images (1)"


def test_many_folders_are_not_all_named(tmp_path):
    names = ["query/0001_c1.jpg", "bounding_box_test/0001_c2.jpg", *(f"{k}/a.jpg" for k in range(9))]
    (note,) = list_data(touch_files(tmp_path, names)).remarks
    assert note.endswith("not read: 0 (1), 1 (1), 2 (1), 3 (1), 4 (1) and 4 more folders")


@pytest.mark.parametrize("name", ["gallery/-2/c1_1.jpg", "bounding_box_test/-2_c1s1_000001_00.jpg"])
def test_numbers_below_junk_are_nobody(tmp_path, name):
    root = touch_files(tmp_path, [name])
    if name.startswith("gallery"):
        with pytest.raises(DSAError, match="the identity -2 is not valid: the lowest is -1, which is junk"):
            list_data(root)
    else:
        (wrong,) = list_data(root).entries
        assert wrong.misnamed == "the identity -2 is not valid: the lowest is -1, which is junk"
