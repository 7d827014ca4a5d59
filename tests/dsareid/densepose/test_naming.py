"""Which image a file name means: forms of Unicode, suffixes, links, names that no source can hold."""

import os
import time
import unicodedata

import numpy as np
import pytest
from densepose_sources import HEIGHT, WIDTH, dump, person, write_images

from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.densepose import convert
from dsareid.densepose.naming import DataImages
from dsareid.ground.errors import DSAError

SOMEBODY = (1, 1, 19, 39)
NAME = "queryé/josé.jpg"
FORMS = [unicodedata.normalize(form, NAME) for form in ("NFC", "NFD")]


def source_of(mimic, path, *names):
    return dump(mimic, path, {name: [person(mimic, SOMEBODY)] for name in names})


@pytest.mark.parametrize("there, said", [FORMS, FORMS[::-1]])
def test_either_form_of_unicode(mimic, tmp_path, there, said):
    root = write_images(tmp_path / "data", there, f"{os.path.dirname(there)}/b.jpg")
    source = source_of(mimic, tmp_path / "dump.pkl", said)
    report = convert(source, tmp_path / "iuv", root)
    assert (tmp_path / "iuv" / there).with_suffix(".png").exists()  # the image's own name
    assert report.no_map == [f"{os.path.dirname(there)}/b.jpg"] and not report.not_found
    assert convert(source, tmp_path / "iuv", root).kept == 1
    maps = tmp_path / "maps" / said
    maps.parent.mkdir(parents=True)
    write_iuv(
        maps.with_name(f"{maps.stem}_IUV.PNG".replace("PNG", "png")), np.ones((HEIGHT, WIDTH, 3), np.uint8)
    )
    assert convert(tmp_path / "maps", tmp_path / "iuv2", root).written == 1


@pytest.mark.parametrize("there, said", [FORMS, FORMS[::-1]])
def test_either_form_without_data(mimic, tmp_path, there, said):
    root = write_images(tmp_path / "data", there)
    source = source_of(mimic, tmp_path / "dump.pkl", f"{root}/{said}")
    convert(source, tmp_path / "iuv")
    assert (tmp_path / "iuv" / there).with_suffix(".png").exists()


def test_both_forms_in_one_folder(mimic, tmp_path):
    root = write_images(tmp_path / "data", *FORMS)
    os.rename(root / FORMS[1], root / FORMS[0].replace("josé", "jose\u0301"))
    source = source_of(mimic, tmp_path / "dump.pkl", "josé.jpg")
    with pytest.raises(
        DSAError,
        match=r"one map \(the names look alike, but differ in their Unicode form, NFC and NFD\): rename",
    ):
        convert(source, tmp_path / "iuv", root)


def test_maps_that_are_there_are_found_in_either_form(mimic, tmp_path):
    root = write_images(tmp_path / "data", *FORMS[:1], f"{os.path.dirname(FORMS[0])}/b.jpg")
    there = tmp_path / "iuv" / FORMS[1]
    there.parent.mkdir(parents=True)
    write_iuv(there.with_suffix(".png"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    os.rename(there.with_suffix(".png"), there.with_suffix(".PNG"))
    report = convert(source_of(mimic, tmp_path / "dump.pkl", "b.jpg"), tmp_path / "iuv", root)
    assert not report.no_map


def test_the_suffix_tells_images_of_one_name_apart(mimic, tmp_path, run):
    root = write_images(tmp_path / "data", "query/a.jpg", "query/a.png", "gallery/b.png", "gallery/c.JPG")
    for name in ("a.jpg", "query/a.png"):
        source = source_of(mimic, tmp_path / "dump.pkl", name)
        status, printed, _ = run(source, tmp_path / "iuv", "--data", root, "--overwrite")
        other = "query/a.png" if name == "a.jpg" else "query/a.jpg"
        assert (
            status == 0
            and (
                f"warning: another image has the same map as 1 image ({other}), because their names differ "
                "only in the suffix: rename one of them"
            )
            in printed
        )
    for names in (("a.jpg", "a.png"), ("query/a",), ("a.bmp",)):
        source = source_of(mimic, tmp_path / "dump.pkl", *names)
        words = "query/a.jpg and query/a.png of .*data would share one map: rename one of the images"
        with pytest.raises(DSAError, match=words):
            convert(source, tmp_path / "iuv2", root)
    write_images(root, "query/b.jpg", "query/c.jpg")
    report = convert(source_of(mimic, tmp_path / "dump.pkl", "b.png", "c.JPG"), tmp_path / "iuv3", root)
    assert report.written == 2 and not report.shared
    assert sorted(x.name for x in (tmp_path / "iuv3/gallery").iterdir()) == ["b.png", "c.png"]


def test_the_advice_about_folders_can_be_pasted(mimic, tmp_path, run):
    root = write_images(tmp_path / "my data", "query/a.jpg", "gallery/a.jpg")
    source = source_of(mimic, tmp_path / "dump.pkl", "a.jpg")
    status, _, err = run(source, tmp_path / "my maps", "--data", root)
    assert status == 1
    assert f"with --data '{root}/gallery' into '{tmp_path}/my maps/gallery'" in err
    assert run(source, f"{tmp_path}/my maps/gallery", "--data", f"{root}/gallery")[0] == 0


def test_links_to_folders_are_followed(mimic, tmp_path):
    write_images(tmp_path / "disk", "a.jpg", "b.jpg")
    root = write_images(tmp_path / "data", "gallery/c.jpg")
    (root / "query").symlink_to(tmp_path / "disk")
    report = convert(source_of(mimic, tmp_path / "dump.pkl", "query/a.jpg"), tmp_path / "iuv", root)
    assert read_iuv(tmp_path / "iuv/query/a.png").any() and report.no_map == ["query/b.jpg"]


def test_names_that_no_source_can_hold_are_told(mimic, tmp_path, run):
    root = write_images(tmp_path / "data", "query/a.jpg", "query/b.jpg")
    odd = os.fsencode(root / "query") + b"/caf\xe9.jpg", os.fsencode(root / "query") + b"/li\nne.jpg"
    for name in odd:
        with open(root / "query/b.jpg", "rb") as image, open(name, "wb") as copy:
            copy.write(image.read())
    source = source_of(mimic, tmp_path / "dump.pkl", "a.jpg", "b.jpg")
    status, printed, err = run(source, tmp_path / "iuv", "--data", root)
    assert status == 0
    assert "images whose names no source can hold (not UTF-8, or not printable), 2 in all, such as" in err
    assert (tmp_path / "iuv/no_map.txt").read_text() == "query/caf\\udce9.jpg\nquery/li\\nne.jpg\n"
    assert r"no map yet for 2 images (query/caf\udce9.jpg, query/li\nne.jpg)" in printed


def test_folders_of_systems_are_passed_over(mimic, tmp_path):
    root = write_images(tmp_path / "data", "query/a.jpg", "__MACOSX/query/a.jpg", "query/@eaDir/a.jpg")
    assert convert(source_of(mimic, tmp_path / "dump.pkl", "a.jpg"), tmp_path / "iuv", root).written == 1


# ---- folders ----


def test_a_name_of_another_folder_has_no_image(mimic, tmp_path, run):
    """The source has train/zoe/7, ROOT has query/carl/7: that is another picture."""
    root = write_images(tmp_path / "data", "train/anna/1.jpg", "query/carl/7.jpg")
    someone = [person(mimic, (1, 1, 19, 39))]
    names = {"/x/train/anna/1.jpg": someone, "/x/train/zoe/7.jpg": someone}
    source, out = dump(mimic, tmp_path / "dump.pkl", names), root / "iuv"
    status, printed, err = run(source, out, "--data", root)
    assert status == 0 and "1 map written" in printed, err
    assert f"warning: no image found for 1 file name (/x/train/zoe/7.jpg) of {source}" in printed
    assert "last part" not in printed and not (out / "query/carl").exists()
    flat = dump(mimic, tmp_path / "dump.pkl", {"/x/train/anna/1.jpg": someone, "7.jpg": someone})
    status, printed, _ = run(flat, out, "--data", root)  # a name without folders says nothing of them
    assert (out / "query/carl/7.png").exists() and "last part" not in printed


def test_ambiguous_by_the_last_part_alone(mimic, tmp_path):
    root = write_images(tmp_path / "data", "train/anna/1.jpg", "query/carl/7.jpg", "query/dora/7.jpg")
    source = dump(mimic, tmp_path / "dump.pkl", {"train/anna/1.jpg": [], "train/zoe/7.jpg": []})
    assert convert(source, tmp_path / "iuv", root).not_found == ["train/zoe/7.jpg"]


@pytest.mark.parametrize("names", [("1.jpg", "7.jpg"), ("/all/1.jpg", "/all/7.jpg"), ("/1.jpg", "C:/7.jpg")])
def test_names_without_the_folders_of_the_images(mimic, tmp_path, run, names):
    root = write_images(tmp_path / "data", "train/anna/1.jpg", "query/carl/7.jpg")
    source = dump(mimic, tmp_path / "dump.pkl", {name: [person(mimic, (1, 1, 19, 39))] for name in names})
    status, printed, err = run(source, root / "iuv", "--data", root)
    assert status == 0 and "2 maps written" in printed, err
    assert (
        "found by file name alone: 2 images (train/anna/1.jpg, query/carl/7.jpg); "
        f"their folders match none in {source}"
    ) in printed


def test_a_flat_data_set_and_flat_names(mimic, tmp_path):
    root = write_images(tmp_path / "data", "1.jpg", "7.jpg")
    for name, alone in (("1.jpg", []), ("./1.jpg", []), ("/x/data/1.jpg", []), ("/x/y/1.jpg", ["1.jpg"])):
        source = dump(mimic, tmp_path / "dump.pkl", {name: []})
        assert convert(source, tmp_path / "iuv", root).by_last_part == alone


def test_folders_above_the_images_are_compared_too(mimic, tmp_path):
    """query/a.jpg of /x/data may be a.jpg of ROOT/.. or of ROOT; the longer end is right."""
    root = write_images(tmp_path / "set/query", "a.jpg", "other/a.jpg", "query/b.jpg", "b.jpg")
    for name, image in (
        ("/x/query/a.jpg", "a.jpg"),
        ("/x/set/query/a.jpg", "a.jpg"),
        ("query/other/a.jpg", "other/a.jpg"),
        ("query/query/b.jpg", "query/b.jpg"),
        ("set/query/b.jpg", "b.jpg"),
    ):
        assert DataImages(root, tmp_path / "iuv").find(name, tmp_path) == image
    with pytest.raises(DSAError, match="query/b.jpg may be b.jpg or query/b.jpg"):
        DataImages(root, tmp_path / "iuv").find("query/b.jpg", tmp_path)


def test_many_people_with_files_of_the_same_names(tmp_path):
    """Of 1,500 people with 10 files each, each name has 1,500 images that end as it does."""
    root = tmp_path / "data"
    for who in range(1500):
        (root / f"{who:04d}").mkdir(parents=True)
        for number in range(10):
            (root / f"{who:04d}/{number}.jpg").touch()
    images = DataImages(root, tmp_path / "iuv")
    begin = time.perf_counter()
    for name in images.names:
        assert images.common_parts(f"/x/{name}") == 2 and images.find(f"/x/{name}", root) == name
        assert images.sharing(name) == []
    assert time.perf_counter() - begin < 20  # 1 s; by comparing each with each it was minutes


def test_names_of_a_source_that_look_alike(mimic, tmp_path, root):
    names = [unicodedata.normalize(form, "query/\xe9.jpg") for form in ("NFC", "NFD")]
    write_images(root, names[0])
    source = dump(mimic, tmp_path / "dump.pkl", dict.fromkeys(names, []))
    with pytest.raises(DSAError, match=r"would both be written as .* \(the names look alike, but differ"):
        convert(source, tmp_path / "iuv", root)
