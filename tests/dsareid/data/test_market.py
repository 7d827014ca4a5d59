import os
import shutil

import pytest

from dsareid.data.market import GALLERY, QUERY, TRAIN, list_data
from dsareid.errors import DSAError


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
    identities = [entry.identity for entry in list_data(tiny_data).entries]
    assert -1 not in identities and identities.count(0) == 1


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


@pytest.mark.parametrize("change", ["content", "time", "name", "removed", "map", "junk's"])
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
    else:
        path.unlink()
    assert (list_data(root).fingerprint == before) == (change == "junk's")


def test_misnamed_files_are_listed_as_such(own_data):
    names = ["holiday.jpg", "99999999999999999999_c1s1.jpg", "0001.jpg"]
    for name in names:
        (own_data / QUERY / name).touch()
    found = {e.name: e for e in list_data(own_data).entries if e.misnamed}
    assert found.keys() == {f"query/{name}" for name in names}
    assert all("the name must begin with identity and camera" in e.misnamed for e in found.values())
    assert all((e.identity, e.camera) == (-1, -1) for e in found.values())


def test_a_name_that_is_no_utf8(own_data):
    (own_data / QUERY / os.fsdecode(b"0001_c1s1_\xff.jpg")).touch()
    (wrong,) = [e for e in list_data(own_data).entries if e.misnamed]
    assert wrong.misnamed == "the name is not UTF-8" and wrong.name.encode()


def test_folders_that_are_missing(own_data, tmp_path):
    shutil.rmtree(own_data / QUERY)
    assert {entry.split for entry in list_data(own_data).entries} == {TRAIN, GALLERY}
    with pytest.raises(DSAError, match="nowhere: no such folder; a data set is a folder with"):
        list_data(own_data / "nowhere")
    (tmp_path / "empty" / QUERY).mkdir(parents=True)
    with pytest.raises(DSAError, match="empty: no images in its folders"):
        list_data(tmp_path / "empty")
    (tmp_path / "empty" / TRAIN).touch()
    with pytest.raises(DSAError, match=f"{TRAIN}: cannot be listed: Not a directory"):
        list_data(tmp_path / "empty")


def test_a_dangling_link_is_listed(own_data):
    (own_data / QUERY / "0009_c1s1_000000_00.png").symlink_to("nowhere")
    assert len(list_data(own_data).entries) == 28
