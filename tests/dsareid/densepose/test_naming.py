"""Which image a file name means: forms of Unicode, suffixes, links, names that no source can hold."""

import os
import unicodedata

import numpy as np
import pytest
from densepose_sources import HEIGHT, WIDTH, dump, person, write_images

from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.densepose import convert
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
    with pytest.raises(DSAError, match="would share one map: rename one of the images"):
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
                f"warning: another image's map is that of 1 image ({other}) too, as their names differ "
                "in the suffix alone: rename one of them"
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
    assert "images whose names no source can hold (not UTF-8, or not printable), 2 in all, as" in err
    assert (tmp_path / "iuv/no_map.txt").read_text() == "query/caf\\udce9.jpg\nquery/li\\nne.jpg\n"
    assert r"no map yet for 2 images (query/caf\udce9.jpg, query/li\nne.jpg)" in printed


def test_folders_of_systems_are_passed_over(mimic, tmp_path):
    root = write_images(tmp_path / "data", "query/a.jpg", "__MACOSX/query/a.jpg", "query/@eaDir/a.jpg")
    assert convert(source_of(mimic, tmp_path / "dump.pkl", "a.jpg"), tmp_path / "iuv", root).written == 1
