import contextlib
import errno
import logging
import os
import stat
import struct
import subprocess
import sys
import threading
import zipfile

import pytest
from pydantic import TypeAdapter

from dsareid.ground import files
from dsareid.ground.errors import DSAError
from dsareid.ground.files import (
    atomic_path,
    check_stored,
    check_writable,
    check_writable_folder,
    hold_lock,
    make_folder,
    read_json,
    unfinished_folder,
)


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


def test_places_are_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    for path in ("file", "new.png", "folder/x", "a" * 255):
        check_writable(tmp_path / path)
    for path in ("folder", "new", "new/folder", "folder/new", "."):
        check_writable_folder(tmp_path / path)
    for path, words in (
        ("none/x", "No such file"),
        ("file/x", "No such file|Not a directory"),
        ("folder", "Is a directory"),
        ("a" * 256, "File name too long"),
    ):
        with pytest.raises(DSAError, match=f"cannot write {tmp_path / path}: ({words})"):
            check_writable(tmp_path / path)
    for path, words in (
        ("file", "Not a dir"),
        ("file/x", "Not a dir"),
        ("a" * 256 + "/x", "File name too long"),
    ):
        with pytest.raises(DSAError, match=f"cannot write {tmp_path / path}: {words}"):
            check_writable_folder(tmp_path / path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_places_that_may_not_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    for check in (check_writable, check_writable_folder):
        with pytest.raises(DSAError, match="cannot write .*: Permission denied"):
            check(tmp_path / "x")
    tmp_path.chmod(0o700)


def test_what_a_killed_process_left_does_not_pile_up(tmp_path):
    for _ in range(3):
        code = (
            "import os, signal, sys; from pathlib import Path\n"
            "from dsareid.ground.files import atomic_path, unfinished_folder\n"
            "with atomic_path(Path(sys.argv[1], 'a.png')) as file:\n"
            "    with unfinished_folder(Path(sys.argv[1], 'out')) as folder:\n"
            "        file.write_text('a longer half')\n"
            "        (folder / 'half').mkdir()\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        subprocess.run([sys.executable, "-c", code, str(tmp_path)])
        left = sorted(path.name for path in tmp_path.iterdir())
        names = [".a-unfinished-0.png", ".out-unfinished-0"]
        assert left == sorted([*names, *(f"{name}.lock" for name in names)])
    with atomic_path(tmp_path / "a.png") as temporary:
        temporary.touch()
    with unfinished_folder(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out"]
    assert (tmp_path / "a.png").read_bytes() == b"" and not list((tmp_path / "out").iterdir())


# Names of 255 bytes, and fewer: of one byte a character, of several, of bytes that are no UTF-8.
LONG_NAMES = [
    *("a" * (length - 4) + ".png" for length in (235, 236, 237, 244, 251, 255)),
    "é" * 125 + ".png",
    "a" + "界" * 83 + ".png",
    os.fsdecode(b"\xff" * 251 + b".png"),
    os.fsdecode(b"\xc3" + b"\xe7\x95\x8c" * 83 + b".png"),
    "a." + "b" * 250,
    "." + "a" * 254,
]


@pytest.mark.parametrize("name", LONG_NAMES, ids=range(len(LONG_NAMES)))
def test_long_names(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    left = []
    for _ in range(2):
        with atomic_path(path) as temporary:
            temporary.write_text("new")
            assert temporary.suffix == ".png" or path.suffix != ".png"
            left.append(temporary)
    assert path.read_text() == "new" and left[0] == left[1]
    left[0].write_text("of a killed one")
    with atomic_path(path) as temporary:
        assert temporary == left[0] and not temporary.read_bytes()
        with atomic_path(path) as other:
            assert other != temporary
    assert [child.name for child in tmp_path.iterdir()] == [name]
    path.unlink()
    with unfinished_folder(path) as folder:
        (folder / "x").touch()
    assert [child.name for child in path.iterdir()] == ["x"] and len(list(tmp_path.iterdir())) == 1


def test_long_names_do_not_share_a_temporary_name(tmp_path):
    names = ["a" * 250 + end for end in ("1.png", "2.png", "1.jpg", "1", "2")]
    with contextlib.ExitStack() as stack:
        found = {stack.enter_context(atomic_path(tmp_path / name)) for name in names}
        assert len(found) == len(names) and all("-unfinished-0" in path.name for path in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_a_name_that_is_too_long_fails_before_the_work(tmp_path):
    for context in (atomic_path, unfinished_folder):
        with pytest.raises(DSAError, match="cannot write .*: File name too long"):
            with context(tmp_path / ("a" * 256)):
                raise AssertionError("the work began")
    assert not list(tmp_path.iterdir())


def test_two_writers_do_not_disturb_each_other(tmp_path):
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
        with unfinished_folder(tmp_path / "b") as folder, unfinished_folder(tmp_path / "c") as second:
            assert folder != second
    assert (tmp_path / "a").read_text() == "one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_a_folder_that_fails_disappears(tmp_path):
    with pytest.raises(DSAError, match=f"^{tmp_path / 'out'}/x: wrong"):
        with unfinished_folder(tmp_path / "out") as folder:
            (folder / "x").touch()
            raise DSAError(f"{folder / 'x'}: wrong")
    assert not list(tmp_path.iterdir())


def archive(path, *members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name in members:
            file.writestr(name, bytes(1000))
    return path


def test_archives_that_unpack_to_more_than_they_are(tmp_path):
    check_stored(archive(tmp_path / "fine", "a", "b"))
    (tmp_path / "text").write_text("no archive")
    check_stored(tmp_path / "text")
    with pytest.raises(DSAError, match="bomb: its a is compressed"):
        check_stored(archive(tmp_path / "bomb", "a", method=zipfile.ZIP_DEFLATED))
    path = archive(tmp_path / "shared", *map(str, range(30)))
    whole = path.read_bytes()
    directory = whole.index(b"PK\x01\x02")
    end = bytearray(whole[whole.rindex(b"PK\x05\x06") :])
    one = whole[: whole.index(b"PK\x03\x04", 4)]  # the bytes of a member, which all entries now point at
    entries = whole[directory : directory + 46 + 1] * 30
    struct.pack_into("<HHII", end, 8, 30, 30, len(entries), len(one))
    path.write_bytes(one + entries + end)
    assert path.stat().st_size < 3000
    with pytest.raises(DSAError, match="shared: it claims to hold 30,000 bytes, but is "):
        check_stored(path)


# ---- locks ----


def lock_in_another_process(path):
    code = (
        "import sys; from pathlib import Path; from dsareid.ground.files import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), ''): print('held', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("killed", [False, True])
def test_a_lock_is_waited_for_and_leaves_no_file(tmp_path, caplog, killed):
    caplog.set_level(logging.INFO, "dsareid")
    lock = tmp_path / "a.lock"
    with lock_in_another_process(lock) as process:
        threading.Timer(0.5, process.kill if killed else process.stdin.close).start()
        with hold_lock(lock, "somebody writes; waiting"):
            assert process.wait(10) == (-9 if killed else 0) and lock.exists()
    assert caplog.messages == ["somebody writes; waiting"] and not list(tmp_path.iterdir())


def test_what_another_process_writes_is_left_alone(tmp_path):
    with atomic_path(tmp_path / "a") as temporary:
        code = (
            "import sys; from dsareid.ground.files import atomic_path\n"
            "with atomic_path(sys.argv[1]) as file: file.write_text('other'); print(file)\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "a")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() != str(temporary) and (tmp_path / "a").read_text() == "other"
        temporary.write_text("ours")
    assert (tmp_path / "a").read_text() == "ours" and len(list(tmp_path.iterdir())) == 1


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def none(*arguments, **options):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.FileLock, "acquire", none)
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


# ---- JSON ----


def test_json_as_a_type(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2]}')
    assert read_json(path, object) == {"a": [1, 2]}
    assert read_json(path, dict[str, tuple[int, int]]) == {"a": (1, 2)}
    assert read_json(path, TypeAdapter(dict[str, list[float]])) == {"a": [1.0, 2.0]}
    path.write_bytes(b"\xef\xbb\xbf[]")
    assert read_json(path, object) == []


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "not readable as JSON: "),
        (b"{", "not readable as JSON: "),
        (b"\xff", "not readable as JSON: "),
        (b"[" * 100_000, "not readable as JSON: "),
        (b'{"a": "b"}', "not the numbers of somebody: a: Input should be a valid integer"),
        (b"[]", "not the numbers of somebody: the file: Input should be "),
    ],
)
def test_json_that_is_none_or_another(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DSAError, match=f"{path}: {words}"):
        read_json(path, dict[str, int], "the numbers of somebody")


def test_json_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json", object)
    with pytest.raises(DSAError, match=f"{tmp_path}: cannot be read: Is a directory"):
        read_json(tmp_path, object)
