import os
import stat

import pytest

from dsareid.errors import DSAError
from dsareid.files import atomic_path, make_folder


def test_success_renames_and_keeps_the_suffix(tmp_path):
    with atomic_path(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_text("new")
        assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "a.png").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyError):
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise KeyError
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_is_one_clear_error(tmp_path):
    with pytest.raises(DSAError, match="cannot write .*a: No space left"):
        with atomic_path(tmp_path / "a"):
            raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_permissions_are_those_of_any_new_file(tmp_path):
    with atomic_path(tmp_path / "a"):
        pass
    (tmp_path / "b").touch()
    mode = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in "ab"]
    assert mode[0] == mode[1]


def test_folders(tmp_path):
    assert make_folder(tmp_path / "a/b").is_dir()
    make_folder(tmp_path / "a/b")
    (tmp_path / "file").touch()
    with pytest.raises(DSAError, match="cannot create the folder"):
        make_folder(tmp_path / "file/b")
    with pytest.raises(DSAError, match="cannot write"):
        with atomic_path(tmp_path / "missing/a"):
            pass
