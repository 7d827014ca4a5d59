"""Which files are images, in folders as people have them."""

import os
import unicodedata

import pytest
from listings import touch_files

from dsareid.data.folders import find_images, image_names, is_hidden, left_out, nfc, walk
from dsareid.ground.errors import DSAError


def test_names_of_images():
    names = ["b.JPG", "a.tif", "c.webp", "d.jfif", ".e.png", "._f.jpg", "g.txt", "Thumbs.db", "png", "h.gif"]
    assert image_names(names) == ["a.tif", "b.JPG", "c.webp", "d.jfif"]


@pytest.mark.parametrize(
    "name",
    [".ipynb_checkpoints", ".thumbnails", "@eaDir", "__MACOSX", "Thumbs.db", "desktop.ini", ".DS_Store"],
)
def test_what_systems_leave_is_hidden(tmp_path, name):
    assert is_hidden(name)
    touch_files(tmp_path, ["a.jpg", f"{name}/b.jpg", f"deep/{name}/c.jpg"])
    assert find_images(tmp_path) == (["a.jpg"], [])


def test_other_files_are_told(tmp_path):
    touch_files(tmp_path, ["a.jpg", "notes.txt", "deep/b.gif", ".hidden"])
    images, others = find_images(tmp_path)
    assert (images, others) == (["a.jpg"], ["deep/b.gif", "notes.txt"])
    assert left_out(others) == "2 files are skipped, the first deep/b.gif: files of their kinds are not read"
    assert left_out([]) == "" and left_out(["x.gif"]).startswith("x.gif is skipped")


def test_links_are_followed_and_circles_are_not(tmp_path):
    root = tmp_path / "root"
    touch_files(tmp_path, ["root/a.jpg", "elsewhere/b.jpg", "elsewhere/deep/c.jpg"])
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere/deep")
    (tmp_path / "elsewhere/up").symlink_to(root)
    (tmp_path / "elsewhere/deep/here").symlink_to(".")
    assert find_images(root)[0] == ["a.jpg", "again/c.jpg", "linked/b.jpg", "linked/deep/c.jpg"]


def test_a_dangling_link_is_a_file(tmp_path):
    (tmp_path / "a.jpg").symlink_to("nowhere")
    (tmp_path / "b").symlink_to("nowhere")
    assert find_images(tmp_path) == (["a.jpg"], ["b"])


def test_folders_that_are_left_out(tmp_path):
    touch_files(tmp_path, ["a.jpg", "iuv/b.jpg", "c/iuv/d.jpg"])
    found = [files.path(name) for files in walk(tmp_path, [tmp_path / "iuv"]) for name in files.images]
    assert found == ["a.jpg", "c/iuv/d.jpg"]


def test_no_folder_and_no_images(tmp_path):
    with pytest.raises(DSAError, match="nowhere: cannot be listed: No such file"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(DSAError, match="no images in it or below"):
        find_images(tmp_path)


def test_names_are_compared_in_one_form():
    mac = unicodedata.normalize("NFD", "josé.jpg")
    assert mac != "josé.jpg" and nfc(mac) == "josé.jpg" and nfc(os.fsdecode(b"\xff")) == "\udcff"


def test_links_to_themselves_and_mazes_of_links(tmp_path):
    touch_files(tmp_path, ["a.jpg"])
    (tmp_path / "loop").symlink_to("loop")
    assert find_images(tmp_path) == (["a.jpg"], ["loop"])
    maze = tmp_path / "maze"
    for name in "abcdef":
        (maze / name).mkdir(parents=True)
    for name in "abcdef":
        for other in set("abcdef") - {name}:
            (maze / name / other).symlink_to(maze / other)
    with pytest.raises(DSAError, match="more than 16 ways lead to this folder, through links"):
        find_images(tmp_path)


def test_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    touch_files(tmp_path, ["a.jpg", "closed/b.jpg"])
    scandir = os.scandir

    def closed(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr("dsareid.data.folders.os.scandir", closed)
    with pytest.raises(DSAError, match="closed: cannot be listed: Permission denied"):
        find_images(tmp_path)
    unreadable = []
    assert [files.images for files in walk(tmp_path, unreadable=unreadable)] == [["a.jpg"]]
    assert unreadable == ["closed"]
