"""From a folder to a listing: what holds for every layout."""

import os
import shutil
from functools import partial
from importlib import import_module
from pkgutil import iter_modules

import pytest

from dsareid.data import layouts
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN, scan_folder
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
    with pytest.raises(DSAError, match=f"none of the folders that make one is in it; .* {TRAIN}, query and"):
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
