"""Packing: the same store whatever happens on the way, and an error that names what is wrong."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from dsareid.data.images import read_image
from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, MULTI_QUERY, QUERY, TRAIN
from dsareid.data.store import pack as packing
from dsareid.data.store import writer
from dsareid.data.store.cache import ensure_store
from dsareid.data.store.format import HEADER
from dsareid.data.store.pack import pack
from dsareid.data.store.reader import open_store, store_summary, verify
from dsareid.ground.errors import DSAError


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(writer, "CHUNK_IMAGES", 4)


@pytest.fixture(autouse=True)
def progress_too(caplog):
    caplog.set_level(logging.INFO, "dsareid")


def said(caplog):
    """What was logged since the last call."""
    messages = [f"{record.levelname}: {record.getMessage()}" for record in caplog.records]
    caplog.clear()
    return "\n".join(messages)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def first_of(folder):
    return sorted(folder.iterdir())[0]


def shrink(path, size=(20, 40)):
    Image.open(path).resize(size).save(path)


def failing(name, error, after=0):
    """Let os.NAME raise from its call number `after` + 1 on."""
    calls, real = [], getattr(os, name)

    def call(*arguments):
        calls.append(1)
        if len(calls) > after:
            raise error
        return real(*arguments)

    return mock.patch(f"os.{name}", call)


def python(code, *arguments, **options):
    """Run code with `pack`, `ensure_store` and small chunks in another process."""
    prelude = (
        "import logging, os, signal, sys, time\nfrom dsareid.data.store import writer\n"
        "from dsareid.data.store.cache import ensure_store\nfrom dsareid.data.store.pack import pack\n"
        "from dsareid.ground.errors import DSAError\n"
        "logging.basicConfig(level=logging.INFO, format='%(message)s')\nwriter.CHUNK_IMAGES = 4\n"
    )
    command = [sys.executable, "-c", prelude + code, *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_packing_again_gives_the_same_bytes(tiny_data, tiny_store, tmp_path):
    """Whatever the chunks are: those of tiny_store are larger."""
    pack(tiny_data, tmp_path / "deep/er/out")
    assert contents(tmp_path / "deep/er/out") == contents(tiny_store)
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["out"]


def test_a_given_size(tiny_data, tmp_path):
    store = pack(tiny_data, tmp_path / "out", 30, 17)
    assert store.images.shape == store.iuv.shape == (27, 30, 17, 3)
    assert store.header.resized  # none of the files is of this size
    for row in (0, 20):
        name = store.names[row]
        image = Image.open(tiny_data / name).resize((17, 30), Image.Resampling.BILINEAR)
        assert np.array_equal(store.images[row], np.asarray(image))
        whole = {tuple(x) for x in read_iuv(tiny_data / "iuv" / name).reshape(-1, 3)}
        assert {tuple(x) for x in store.iuv[row].reshape(-1, 3)} <= whole


@pytest.mark.parametrize("size", [(30, None), (None, 17), (0, 17)])
def test_half_a_size(tiny_data, tmp_path, size):
    with pytest.raises(DSAError, match="`height` and `width` must both be given"):
        pack(tiny_data, tmp_path / "out", *size)


def test_mixed_sizes_take_the_default(own_data, tmp_path):
    shrink(first_of(own_data / QUERY))
    shrink(first_of(own_data / "iuv" / QUERY))
    store = pack(own_data, tmp_path / "out", default=(48, 24))
    assert (store.height, store.width, store.header.resized) == (48, 24, True)
    verify(store)


def test_a_data_set_without_maps(own_data, tmp_path):
    shutil.rmtree(own_data / "iuv")
    store = pack(own_data, tmp_path / "out")
    assert store.iuv is None and not store.has_iuv.any() and len(store.descriptors) == 1
    assert not (tmp_path / "out/iuv.npy").exists()
    with pytest.raises(DSAError, match="; 1 more images have none"):
        store.select(QUERY, iuv=True)


def test_a_missing_map(own_data, tmp_path):
    first_of(own_data / "iuv" / QUERY).unlink()
    store = pack(own_data, tmp_path / "out")
    row = store.select(QUERY, iuv=False).rows[0]
    assert not store.has_iuv[row] and not store.iuv[row].any() and store.has_iuv.sum() == 26
    with pytest.raises(DSAError, match="no IUV map of query/.*: neither iuv/query/"):
        store.select(QUERY, iuv=True)


def test_a_data_set_of_one_folder(own_data, tmp_path):
    for folder in (QUERY, GALLERY):
        shutil.rmtree(own_data / folder)
    store = pack(own_data, tmp_path / "out")
    assert store.header.splits == {TRAIN: 16}
    with pytest.raises(DSAError, match="holds no query"):
        store.select(QUERY, iuv=False)


def test_expected_counts_are_in_the_header(own_data, tmp_path):
    """By the protocol; nobody derives them again."""
    store = pack(own_data, tmp_path / "out")
    expected = {TRAIN: (12_936, 751), QUERY: (3_368, 750), GALLERY: (15_913, 750)}
    assert open_store(store.path).header.expected == expected
    assert store.different_counts() == [
        (TRAIN, (12_936, 751), (16, 4)),
        (QUERY, (3_368, 750), (2, 2)),
        (GALLERY, (15_913, 750), (9, 2)),
    ]
    (own_data / "images").mkdir()
    shutil.copy(first_of(own_data / QUERY), own_data / "images/00000001.png")
    more = pack(own_data, tmp_path / "more", protocol="distractors").header.expected
    assert more.keys() == {TRAIN, QUERY}  # how many distractors there are is not known
    (own_data / "synth.json").write_text("{}")
    store = pack(own_data, tmp_path / "synthetic")
    assert store.header.expected == {} and store.different_counts() == []


def test_synthetic_is_remembered(own_data, tmp_path):
    (own_data / "synth.json").write_text("{}")
    assert pack(own_data, tmp_path / "out").header.synthetic


# ---- broken files ----


def test_a_corrupt_image_is_named(own_data, tmp_path):
    path = sorted((own_data / TRAIN).iterdir())[5]
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DSAError, match=f"{path.name}: not readable as an image.*`skip_broken=True`"):
        pack(own_data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_misnamed_image_is_named(own_data, tmp_path):
    (own_data / "query/holiday.jpg").touch()
    with pytest.raises(DSAError, match="holiday.jpg: the name must begin with identity and camera"):
        pack(own_data, tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def test_a_map_of_another_size(own_data, tmp_path):
    shrink(path := first_of(own_data / "iuv" / QUERY))
    with pytest.raises(DSAError, match=f"{path.name}: the IUV map is 20x40, but its image"):
        pack(own_data, tmp_path / "out")


def test_broken_files_are_skipped_on_demand(own_data, tmp_path):
    broken = sorted((own_data / TRAIN).iterdir())[5]
    broken.write_bytes(b"GIF")
    (own_data / "query/holiday.jpg").touch()
    store = pack(own_data, tmp_path / "out", skip_broken=True)
    skipped = {file.file: file.reason for file in store.header.skipped}
    assert skipped.keys() == {f"{TRAIN}/{broken.name}", "query/holiday.jpg"}
    assert str(own_data) not in "".join(skipped.values())
    rows = [store.names.index(name) for name in skipped]
    assert (store.split[rows] == 255).all() and not store.images[rows].any() and not store.has_iuv[rows].any()
    assert store.header.splits == {TRAIN: 15, QUERY: 2, GALLERY: 9}
    assert (store.height, store.width) == (64, 32) and not store.header.resized  # of those that are whole
    split = store.select(TRAIN, iuv=True)
    assert len(split) == 15 and not set(rows) & set(split.rows)
    verify(store)


def test_a_call_that_stopped_at_a_broken_file_can_skip_it(own_data, tmp_path):
    path = sorted((own_data / TRAIN).iterdir())[5]
    path.write_bytes(b"GIF")
    with pytest.raises(DSAError):
        pack(own_data, tmp_path / "out")
    with mock.patch.object(packing, "read_pair", side_effect=packing.read_pair) as read:
        pack(own_data, tmp_path / "out", skip_broken=True)
    assert read.call_count == 27 - 4  # the first chunk was done
    pack(own_data, tmp_path / "whole", skip_broken=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_was_skipped_is_named_by_a_call_that_does_not_skip(own_data, tmp_path):
    path = first_of(own_data / TRAIN)
    path.write_bytes(b"GIF")
    with failing("pwrite", KeyboardInterrupt(), after=4), pytest.raises(KeyboardInterrupt):
        pack(own_data, tmp_path / "out", skip_broken=True)
    with pytest.raises(DSAError, match=path.name):
        pack(own_data, tmp_path / "out")


def test_nothing_but_broken_files(own_data, tmp_path):
    for folder in (TRAIN, QUERY, GALLERY):
        for path in (own_data / folder).iterdir():
            path.write_bytes(b"")
    with pytest.raises(DSAError, match="every image is broken; the first: "):
        pack(own_data, tmp_path / "out", skip_broken=True)


def test_no_data_set(tmp_path):
    with pytest.raises(DSAError, match="no such folder; a data set is a folder with"):
        pack(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DSAError, match="not a data set: it has none of the folders of one"):
        pack(tmp_path, tmp_path / "out")


# ---- going on ----


@pytest.mark.parametrize(
    "name, calls", [("pwrite", 7), ("fsync", 8), ("fsync", 15), ("rename", 1), ("unlink", 4), ("unlink", 5)]
)
def test_a_killed_call_is_gone_on_with(tiny_data, tiny_store, tmp_path, name, calls):
    """In the middle of the pixels, of the small arrays, before the last step and after it."""
    code = (
        "name, calls, left = sys.argv[1], getattr(os, sys.argv[1]), [int(sys.argv[2])]\n"
        "def kill(*arguments, **options):\n"
        "    left[0] -= 1\n"
        "    left[0] or os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return calls(*arguments, **options)\n"
        "setattr(os, name, kill)\n"
        "pack(sys.argv[3], sys.argv[4])\n"
    )
    process = python(code, name, calls, tiny_data, tmp_path / "out")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -9, errors
    if name == "pwrite":  # two a chunk, of images and of maps
        assert len((tmp_path / ".out.partial" / writer.JOURNAL).read_text().splitlines()) == 1 + 3
    pack(tiny_data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tiny_store)


def test_only_what_is_not_done_is_decoded(tiny_data, tiny_store, tmp_path):
    with failing("pwrite", KeyboardInterrupt(), after=7):
        with pytest.raises(KeyboardInterrupt, match="12 of 27 images are packed, the same command resumes"):
            pack(tiny_data, tmp_path / "out")
    journal = tmp_path / ".out.partial" / writer.JOURNAL
    journal.write_text(journal.read_text() + '{"chunk": 9')  # cut off by a kill
    with mock.patch.object(packing, "read_pair", side_effect=packing.read_pair) as read:
        pack(tiny_data, tmp_path / "out")
    assert read.call_count == 27 - 12
    assert contents(tmp_path / "out") == contents(tiny_store)


def test_what_a_call_left_that_was_killed_at_its_very_end(tiny_data, tmp_path):
    whole = contents(pack(tiny_data, tmp_path / "out").path)
    (tmp_path / "out" / writer.JOURNAL).touch()
    (tmp_path / ".out.old").mkdir()
    assert contents(pack(tiny_data, tmp_path / "out").path) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "line",
    [
        "7",
        "[]",
        '{"chunk": "0", "skipped": []}',
        '{"chunk": 0}',
        "[" * 5000,
        '{"chunk": 0, "skipped": [{"file": 3}]}',
    ],
)
def test_a_journal_with_lines_of_others(tiny_data, tiny_store, tmp_path, line):
    store = pack(tiny_data, tmp_path / "out")
    shutil.copytree(store.path, tmp_path / ".other.partial")
    plan = packing.plan_store(list_data(tiny_data), None, (1, 1))
    key = writer.StoreWriter(tmp_path / "other", plan.layout, plan.listing.fingerprint)._key
    (tmp_path / ".other.partial" / writer.JOURNAL).write_text(f"{json.dumps(key)}\n{line}\n")
    assert contents(pack(tiny_data, tmp_path / "other").path) == contents(tiny_store)


@pytest.mark.parametrize("what", ["file", "size", "array", "journal"])
def test_work_on_something_else_is_not_gone_on_with(own_data, tmp_path, what):
    with failing("pwrite", KeyboardInterrupt(), after=12), pytest.raises(KeyboardInterrupt):
        pack(own_data, tmp_path / "out")
    size, partial = (), tmp_path / ".out.partial"
    if what == "file":
        Image.new("RGB", (32, 64), "red").save(first_of(own_data / TRAIN))
    elif what == "size":
        size = (32, 16)
    elif what == "array":
        os.truncate(partial / "images.npy", 1000)
    else:
        (partial / writer.JOURNAL).write_bytes(b"\xff")
    pack(own_data, tmp_path / "out", *size)
    pack(own_data, tmp_path / "whole", *size)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_what_is_there_already(own_data, tmp_path, caplog, monkeypatch):
    out = tmp_path / "out"
    pack(own_data, out)
    before = out.stat().st_ino
    pack(own_data, out)
    assert out.stat().st_ino == before and "already holds these files" in said(caplog)
    with pytest.raises(DSAError, match="out: exists already, and is not the store of"):
        pack(own_data, out, 32, 16)
    first_of(own_data / TRAIN).unlink()
    with pytest.raises(DSAError, match="out: exists already, and is not the store of"):
        pack(own_data, out)
    os.truncate(out / "images.npy", 10)
    with pytest.raises(DSAError, match="cut short.*remove .*out first"):
        pack(own_data, out)
    monkeypatch.chdir(tmp_path)
    for other in (own_data, own_data / "query", first_of(own_data / TRAIN), "."):
        with pytest.raises(DSAError, match="exists already and is not a store"):
            pack(own_data, other)


# ---- the disk ----


def test_a_full_disk_is_noticed_at_the_beginning(tiny_data, tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device")
    with failing("posix_fallocate", error), pytest.raises(DSAError) as raised:
        pack(tiny_data, tmp_path / "out")
    assert f"cannot write {tmp_path / 'out'}: the disk is full: " in str(raised.value)
    assert "bytes are needed in all" in str(raised.value) and "are free" in str(raised.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_disk_that_fails_on_the_way(tiny_data, tiny_store, tmp_path, number):
    with failing("pwrite", OSError(number, os.strerror(number)), after=3):
        with pytest.raises(DSAError, match="cannot write .*out: "):
            pack(tiny_data, tmp_path / "out")
    pack(tiny_data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tiny_store)


def test_a_file_system_that_cannot_reserve(tiny_data, tiny_store, tmp_path):
    with failing("posix_fallocate", OSError(errno.EOPNOTSUPP, "not supported")):
        pack(tiny_data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tiny_store)


def test_writes_that_come_in_pieces(tiny_data, tiny_store, tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, data[:1000], offset))
    pack(tiny_data, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tiny_store)


def test_a_disk_that_is_full_indeed(tiny_data, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    code = "try:\n    pack(*sys.argv[1:])\nexcept DSAError as e:\n    print(e, file=sys.stderr)"
    prelude = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=200k tmpfs "$0" && "$@"',
        disk,
    ]
    if not shutil.which("unshare") or subprocess.run([*prelude, "true"], capture_output=True).returncode:
        pytest.skip("no small file system can be made here")
    imports = "import os, sys; from dsareid.data.store.pack import pack; "
    imports += "from dsareid.ground.errors import DSAError\n"
    code = imports + code + "\nassert not os.listdir(os.path.dirname(sys.argv[2]))"
    done = subprocess.run(
        [*prelude, sys.executable, "-c", code, tiny_data, disk / "out"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "the disk is full: 334,292 bytes are needed in all" in done.stderr


def test_a_place_that_is_a_file(tiny_data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DSAError, match="cannot create the folder"):
        pack(tiny_data, tmp_path / "file/out")


# ---- what --data takes ----


def test_a_root_is_packed_once(own_data, caplog):
    store = ensure_store(own_data, 256, 128)
    assert store.path == own_data / "store-64x32"
    assert f"packed {own_data} into {store.path} (0.3 MB); later runs read it" in said(caplog)
    before = store.path.stat().st_ino
    for size in ((256, 128), (96, 48)):  # files of one size fit every network
        assert ensure_store(own_data, *size).path == store.path
    assert store.path.stat().st_ino == before and "packed /" not in said(caplog)
    assert not list(own_data.glob(".store*"))


def test_a_store_is_opened(tiny_store, caplog):
    assert ensure_store(tiny_store, 8, 4).path == tiny_store
    assert not said(caplog)


def test_a_damaged_store_that_was_asked_for_is_an_error(own_store):
    (own_store / "images.npy").unlink()
    with pytest.raises(DSAError, match="images.npy: this file of the store is missing"):
        ensure_store(own_store, 64, 32)


@pytest.mark.parametrize("size", [(0, 32), (64, -1)])
def test_a_size_that_does_not_exist(own_data, size):
    with pytest.raises(DSAError, match="`height` and `width` must be at least 1"):
        ensure_store(own_data, *size)


def test_mixed_sizes_are_packed_for_each_network(own_data):
    shrink(first_of(own_data / QUERY))
    shrink(first_of(own_data / "iuv" / QUERY))
    for size in ((64, 32), (48, 24)):
        store = ensure_store(own_data, *size)
        assert (store.height, store.width) == size and store.path.name == "store-{}x{}".format(*size)
    assert ensure_store(own_data, 64, 32).path.name == "store-64x32"


@pytest.mark.parametrize("what", ["changed", "added", "map removed"])
def test_an_outdated_store_is_replaced(own_data, what):
    old = ensure_store(own_data, 64, 32)
    path = first_of(own_data / QUERY)
    if what == "changed":
        Image.new("RGB", (32, 64), (9, 9, 9)).save(path)
    elif what == "added":
        shutil.copy(path, path.with_name("0007_c1s1_000000_00.png"))
    else:
        (own_data / "iuv" / QUERY / path.name).unlink()
    new = ensure_store(own_data, 64, 32)
    assert new.path == old.path and new.header.source != old.header.source
    assert np.array_equal(new.images[new.select(QUERY, iuv=False).rows[0]], read_image(path))
    old.check_unchanged()  # whoever reads it still can
    assert old.images[-1].any() and not list(own_data.glob(".store*"))


def test_a_damaged_automatic_store_is_replaced(own_data, caplog):
    path = ensure_store(own_data, 64, 32).path
    for damage in (lambda: os.truncate(path / "images.npy", 10), lambda: (path / HEADER).write_text("{}")):
        damage()
        caplog.clear()
        verify(ensure_store(own_data, 64, 32))
        assert "WARNING: " in (words := said(caplog)) and "packed" in words


def test_something_else_in_the_place_is_left_alone(own_data):
    place = own_data / "store-64x32"
    place.mkdir()
    (place / "thoughts.txt").touch()
    with pytest.raises(DSAError, match="this is something else .thoughts.txt.; move it away"):
        ensure_store(own_data, 64, 32)
    (place / "thoughts.txt").unlink()
    ensure_store(own_data, 64, 32)  # an empty folder is in nobody's way
    (place / "notes.txt").write_text("mine")
    first_of(own_data / QUERY).unlink()
    with pytest.raises(DSAError, match=r"something else \(notes.txt\)"):
        ensure_store(own_data, 64, 32)
    assert (place / "notes.txt").read_text() == "mine" and open_store(place)


def test_a_root_that_is_not_writable(own_data, tmp_path, monkeypatch, caplog):
    """By the system's own word, which tests may have to put into its mouth: root may write everywhere."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != own_data and real(path, mode))
    store = ensure_store(own_data, 64, 32)
    assert store.path.parent.parent == tmp_path / "cache/dsareid" and store.path.name == "store-64x32"
    assert store.path.parent.name.startswith("market-") and not list(own_data.glob("*store*"))
    assert f"because {own_data} is not writable; later runs read it" in said(caplog)
    assert ensure_store(own_data, 64, 32).path == store.path and "packed /" not in said(caplog)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert ensure_store(own_data, 64, 32).path.is_relative_to(tmp_path / "home/.cache/dsareid")


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("first_fails", [False, True])
def test_two_processes_pack_at_once(own_data, tmp_path, first_fails):
    """The second waits and finds the store; where the first was killed it goes on with its work."""
    code = (
        "real = os.fsync\n"
        "def fsync(file):\n"
        "    while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n"
        "    real(file)\n"
        "os.fsync = fsync\n"
        "ensure_store(sys.argv[1], 64, 32)"
    )
    go, lock = tmp_path / "go", own_data / ".store-64x32.lock"
    first = python(code, own_data, go)
    wait_for(lock.exists)
    wait_for(lambda: (own_data / ".store-64x32.partial" / writer.JOURNAL).exists())
    second = python(code, own_data, go)
    assert "has the file names of Market-1501, but " in second.stderr.readline()
    assert "is being packed by another process; waiting for it" in second.stderr.readline()
    if first_fails:
        first.kill()
    go.touch()
    _, printed = first.communicate(timeout=60)
    _, also = second.communicate(timeout=60)
    assert second.returncode == 0, also
    assert first.returncode == (-9 if first_fails else 0), printed
    assert ("packed" in printed, "packed" in also) == (not first_fails, first_fails)
    verify(own_data / "store-64x32")
    assert not list(own_data.glob(".store*"))


def test_the_header_is_plain_json(tiny_store):
    content = json.loads((tiny_store / HEADER).read_text())
    assert content["format"] == "dsareid store" and content["version"] == 4
    assert content["splits"] == {TRAIN: 16, QUERY: 2, GALLERY: 9}


@pytest.mark.parametrize("size", [(40_000, 4), (4, 40_000), (0, 4), (4, None)])
def test_sizes_that_nothing_could_read(tiny_data, tmp_path, size):
    with pytest.raises(DSAError, match="`height` and `width`"):
        pack(tiny_data, tmp_path / "store", *size)
    assert not any(tmp_path.iterdir())


def test_the_store_of_the_exact_input_size_comes_first(own_data):
    """A run that goes on finds the store it began with, whatever was packed since."""
    pack(own_data, own_data / "store-96x48", 96, 48)
    assert (own_data / "store-96x48") == ensure_store(own_data, 96, 48).path
    assert (own_data / "store-64x32") == ensure_store(own_data, 50, 20).path
    assert (own_data / "store-96x48") == ensure_store(own_data, 96, 48).path


def test_a_store_is_no_data_set(tiny_store, tmp_path):
    with pytest.raises(DSAError, match="this is a store; give the folder that it was packed from"):
        pack(tiny_store, tmp_path / "out")


def test_a_missing_map_is_told_before_anything_is_packed(own_data):
    next((own_data / "iuv" / QUERY).iterdir()).unlink()
    with pytest.raises(DSAError, match=rf"{own_data}: no IUV map of query/.*: neither iuv/query/"):
        ensure_store(own_data, 64, 32, mapped=[QUERY])
    assert not list(own_data.glob("*store*"))
    assert ensure_store(own_data, 64, 32, mapped=[TRAIN]).path.exists()


def test_the_way_around_a_broken_file_is_named(own_data, caplog):
    """After the command of the message, training on the folder finds the store."""
    path = first_of(own_data / QUERY)
    path.write_bytes(b"no image")
    with pytest.raises(DSAError) as raised:
        ensure_store(own_data, 64, 32)
    message = str(raised.value)
    place = own_data / "store-64x32"
    assert f"(dsareid pack {own_data} {place} with `skip_broken=True` skips such files" in message
    assert str(own_data / ".store-64x32.partial") in message
    pack(own_data, place, skip_broken=True)
    assert ensure_store(own_data, 64, 32).path == place and not list(own_data.glob(".store*"))


def test_the_file_of_another_size_is_named(own_data, caplog):
    path = first_of(own_data / QUERY)
    iuv = own_data / "iuv" / QUERY / f"{path.stem}.png"
    for file in (path, iuv):
        Image.open(file).resize((20, 40), Image.Resampling.NEAREST).save(file)
    ensure_store(own_data, 96, 48)
    assert (
        f"WARNING: {path} is 40 rows x 20 columns, others 64 x 32: all images are stored as 96 x 48"
        in said(caplog)
    )


# ---- protocols ----


def test_a_protocol_has_its_own_store(own_data):
    shutil.copytree(own_data / QUERY, own_data / MULTI_QUERY)
    plain = ensure_store(own_data, 64, 32)
    multi = ensure_store(own_data, 64, 32, protocol="multi-query")
    assert (plain.path.name, multi.path.name) == ("store-64x32", "store-64x32-multi-query")
    assert (plain.header.protocol, multi.header.protocol) == ("", "multi-query")
    verify(multi)
    more = multi.select(MULTI_QUERY, iuv=False)
    assert more.ids.tolist() == [5, 6] and more.cams.tolist() == [3, 3] and len(more) == 2
    assert np.array_equal(multi.images[more.rows[0]], read_image(own_data / more.names[0]))
    assert multi.header.splits == plain.header.splits | {MULTI_QUERY: 2}
    with pytest.raises(DSAError, match="holds no gt_bbox"):
        plain.select(MULTI_QUERY, iuv=False)
    with pytest.raises(DSAError, match=rf"no IUV map of {MULTI_QUERY}/.*: neither iuv/{MULTI_QUERY}/"):
        ensure_store(own_data, 64, 32, protocol="multi-query", mapped=[MULTI_QUERY])
    assert ensure_store(own_data, 64, 32).path == plain.path
    assert ensure_store(own_data, 64, 32, protocol="multi-query").path == multi.path


def test_the_protocol_of_a_store_that_is_given(own_data, tmp_path):
    (own_data / "images").mkdir()
    shutil.copy(first_of(own_data / QUERY), own_data / "images/00000001.png")
    shutil.copytree(own_data / QUERY, own_data / MULTI_QUERY)
    path = pack(own_data, tmp_path / "both", protocol="distractors+multi-query").path
    for protocol in ("", "multi-query+distractors", "distractors+multi-query"):
        store = ensure_store(path, 64, 32, protocol=protocol)
        assert store.header.protocol == "multi-query+distractors"
    gallery = store.select(GALLERY, iuv=False)
    assert gallery.ids[-1] == 0 and gallery.cams[-1] == -1 and gallery.names[-1] == "images/00000001.png"
    with pytest.raises(DSAError, match="both: packed by the protocol multi-query.distractors, not by "):
        ensure_store(path, 64, 32, protocol="multi-query")
    plain = pack(own_data, tmp_path / "plain").path
    with pytest.raises(DSAError, match="plain: packed by no protocol, not by distractors; give the folder"):
        ensure_store(plain, 64, 32, protocol="distractors")


def test_the_way_around_a_broken_file_names_the_protocol(own_data, tmp_path):
    shutil.copytree(own_data / QUERY, own_data / MULTI_QUERY)
    first_of(own_data / MULTI_QUERY).write_bytes(b"no image")
    with pytest.raises(
        DSAError, match=r"dsareid pack \S+ \S+ with `protocol=multi-query` and `skip_broken=True` skips"
    ):
        pack(own_data, tmp_path / "out", protocol="multi-query")


def test_what_is_said_when_a_data_set_is_loaded(own_data, tmp_path, caplog):
    for load in (lambda: pack(own_data, tmp_path / "out"), lambda: ensure_store(own_data, 64, 32)):
        load()
        words = said(caplog)
        assert words.count("WARNING: ") == 1
        assert f"{TRAIN}: expected 12,936 images of 751 identities, found 16 images of 4 identities" in words
    (own_data / "synth.json").write_text("{}")
    ensure_store(own_data, 64, 32)
    assert "WARNING: " not in said(caplog)


def test_cameras_that_are_not_known(own_data, tmp_path, caplog):
    root = tmp_path / "own"
    for folder, split in (("train", TRAIN), ("query", QUERY), ("gallery", GALLERY)):
        for path in sorted((own_data / split).iterdir()):
            person = root / folder / path.name.split("_")[0]
            person.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, person / f"{len(list(person.iterdir()))}.png")
    store = ensure_store(root, 64, 32)
    assert not store.header.cameras and store.header.dataset == "own data"
    query, gallery = (store.select(split, iuv=False) for split in (QUERY, GALLERY))
    assert set(query.cams) == {0} and set(gallery.cams) == {1} and set(query.ids) < set(gallery.ids)
    assert "the same-camera rule is off" in said(caplog)
    ensure_store(store.path, 64, 32)
    assert "the same-camera rule is off" in said(caplog)
    assert "the same-camera rule is off" in store_summary(store)
    assert ensure_store(own_data, 64, 32).header.cameras


@pytest.fixture
def doubtful_maps(own_data):
    """Of the training all but one are empty or have no coordinates."""
    for number, path in enumerate(sorted((own_data / "iuv" / TRAIN).iterdir())):
        iuv = read_iuv(path)
        if number < 5:
            iuv[:] = 0
        elif number < 15:
            iuv[..., 1:] = 0
        write_iuv(path, iuv)
    return own_data


def test_maps_that_show_a_person_are_counted(doubtful_maps, tmp_path):
    store = pack(doubtful_maps, tmp_path / "store")
    maps = store.header.maps
    assert (maps[TRAIN].maps, maps[TRAIN].people, maps[TRAIN].flat) == (16, 11, 10)
    assert (maps[QUERY].maps, maps[QUERY].people, maps[QUERY].flat) == (2, 2, 0)
    note = (
        f"1 of 16 IUV maps of {TRAIN} show a person; all background: 5; U = V = 0 everywhere, as in a "
        "segmentation, not DensePose: 10"
    )
    assert maps[TRAIN].note(TRAIN) == note and maps[TRAIN].mostly_empty and not maps[QUERY].mostly_empty
    assert note in store_summary(store) and f"2 of 2 IUV maps of {QUERY} show a person" in store_summary(
        store
    )


def test_maps_are_counted_where_packing_resumes(doubtful_maps, tmp_path, monkeypatch):
    expected = pack(doubtful_maps, tmp_path / "whole").header.maps
    monkeypatch.setattr("dsareid.data.store.writer.CHUNK_IMAGES", 4)
    broken = sorted((doubtful_maps / GALLERY).iterdir())[-1]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50])
    with pytest.raises(DSAError, match="not readable as an image"):
        pack(doubtful_maps, tmp_path / "out")
    broken.write_bytes(whole)
    assert pack(doubtful_maps, tmp_path / "out").header.maps == expected


def test_pictures_are_packed_upright(own_data, tmp_path):
    before = pack(own_data, tmp_path / "before")
    for path in (own_data / QUERY).iterdir():
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    after = pack(own_data, tmp_path / "after")
    assert not after.header.resized and np.array_equal(after.images, before.images)
