"""Reading a store: what it gives, and that nothing damaged, foreign or altered is taken for one."""

import gc
import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from dsareid.data.images import read_image
from dsareid.data.iuv import read_iuv
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.store.format import HEADER
from dsareid.data.store.reader import open_store, store_summary, verify
from dsareid.ground.errors import DSAError

ARRAYS = ["images", "iuv", "has_iuv", "ids", "cameras", "split", "names"]


def change(path, **fields):
    """Alter the header of a store, with the checksum that belongs to it."""
    content = json.loads((path / HEADER).read_text()) | fields
    content.pop("checksum")
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    (path / HEADER).write_text(json.dumps(content))


def flip_a_byte(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_what_a_store_holds(tiny_store, tiny_data):
    store = open_store(tiny_store)
    assert (store.height, store.width, len(store.names)) == (64, 32, 27)
    assert store.ids.dtype == store.cams.dtype == np.int64 and store.split.dtype == np.uint8
    for row, name in enumerate(store.names):
        assert np.array_equal(store.images[row], read_image(tiny_data / name))
        assert np.array_equal(store.iuv[row], read_iuv(tiny_data / "iuv" / name))
    for name in ARRAYS:
        np.load(tiny_store / f"{name}.npy", allow_pickle=False)


def test_a_split(tiny_store):
    split = open_store(tiny_store).select(TRAIN, iuv=True)
    assert len(split) == len(split.names) == 16 and split.name == TRAIN and split.rows.dtype == np.int64
    assert split.ids.tolist() == [i for i in range(1, 5) for _ in range(4)]
    assert split.cams.tolist() == [1, 1, 2, 2] * 4
    assert split.names[0].startswith(f"{TRAIN}/0001_c1")
    assert [split.store.names[row] for row in split.rows] == split.names


def test_distractors_are_there_and_junk_is_not(tiny_store):
    split = open_store(tiny_store).select(GALLERY, iuv=False)
    assert -1 not in split.ids and (split.ids == 0).sum() == 1


def test_pixels_are_mapped_and_read_only(tiny_store):
    store = open_store(tiny_store)
    for array in (store.images, store.iuv):
        assert isinstance(array, np.memmap) and not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_descriptors_live_as_long_as_the_store(tiny_store):
    store = open_store(tiny_store)
    first, second = store.descriptors
    assert os.fstat(first).st_size == store.stamps[0][0] == (tiny_store / "images.npy").stat().st_size
    assert os.fstat(second).st_mtime_ns == store.stamps[1][1]
    del store
    gc.collect()
    with pytest.raises(OSError):
        os.fstat(first)


def test_a_split_that_is_not_there(own_store):
    store = open_store(own_store)
    store.split[store.split == 1] = 255
    with pytest.raises(DSAError, match="holds no query: the data set had no.*a data set is a folder"):
        store.select(QUERY, iuv=False)


def test_a_missing_map_is_an_error_only_where_maps_are_needed(own_store):
    store = open_store(own_store)
    row = store.select(QUERY, iuv=True).rows[1]
    store.has_iuv[row] = False
    assert len(store.select(QUERY, iuv=False)) == 2
    store.select(TRAIN, iuv=True)
    stem = store.names[row].rpartition(".")[0]
    with pytest.raises(
        DSAError, match=f"no IUV map of {stem}.png: neither iuv/{stem}.png nor iuv/{stem}_IUV.png"
    ):
        store.select(QUERY, iuv=True)


def test_not_a_store(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DSAError, match="not a store: there is no store.json"):
            open_store(path)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "{}", '{"format": "zip"}', "[" * 100_000, "\xff"])
def test_a_header_that_is_none(own_store, text):
    (own_store / HEADER).write_bytes(text.encode("latin1"))
    with pytest.raises(DSAError, match=r"store\.json: (not readable as JSON|not the header of a store)"):
        open_store(own_store)


def test_another_version(own_store):
    change(own_store, version=2)
    with pytest.raises(DSAError, match="a store of version 2, but this dsareid reads version 4"):
        open_store(own_store)


def test_an_altered_header(own_store):
    text = (own_store / HEADER).read_text()
    (own_store / HEADER).write_text(text.replace('"resized": false', '"resized": true'))
    with pytest.raises(DSAError, match=r"store\.json: altered since it was written"):
        open_store(own_store)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"height": 32}, "arrays .* but expected"),
        ({"height": "64"}, "height: Input should be a valid integer"),
        ({"images": 0}, "images: "),
        ({"splits": {"train": 27}}, "splits"),
        ({"splits": {TRAIN: 16, QUERY: 2, GALLERY: 8}}, r"split\.npy holds"),
        ({"author": "me"}, "author: Extra inputs"),
        ({"arrays": {}}, "arrays .* but expected"),
        ({"source": "abc"}, "source: "),
    ],
)
def test_a_header_of_another_kind(own_store, fields, words):
    change(own_store, **fields)
    with pytest.raises(DSAError, match=words):
        open_store(own_store)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_that_is_missing_or_cut_short(own_store, name):
    path = own_store / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DSAError, match=rf"{name}\.npy: .* bytes long, but .* cut short"):
        open_store(own_store)
    path.unlink()
    with pytest.raises(DSAError, match=rf"{name}\.npy: this file of the store is missing"):
        open_store(own_store)


@pytest.mark.parametrize("name", ARRAYS)
def test_an_altered_array(own_store, name):
    """Small ones are noticed at once, pixels by verify."""
    flip_a_byte(own_store / f"{name}.npy")
    if name in ("images", "iuv"):
        store = open_store(own_store)
        with pytest.raises(DSAError, match=rf"{name}\.npy: altered since it was written: its SHA-256"):
            verify(store)
    else:
        with pytest.raises(DSAError, match=rf"{name}\.npy: altered"):
            open_store(own_store)


@pytest.mark.parametrize("place", [0, 12, 30])
def test_a_damaged_array_header(own_store, place):
    flip_a_byte(own_store / "images.npy", place)
    with pytest.raises(DSAError, match=r"images\.npy: "):
        open_store(own_store)


@pytest.mark.parametrize("place, content", [(0, b"PK\x03\x04"), (60, b"(27, 6{"), (20, b"\xff" * 80)])
def test_an_array_header_that_parsers_choke_on(own_store, place, content):
    path = own_store / "images.npy"
    whole = bytearray(path.read_bytes())
    whole[place : place + len(content)] = content
    path.write_bytes(whole)
    with pytest.raises(DSAError, match=r"images\.npy: altered"):
        open_store(own_store)


def test_what_is_watched_is_what_is_read(own_store, tmp_path, monkeypatch):
    """Another store that takes the place of this one while it is opened."""
    from dsareid.data.store import reader as module

    shutil.copytree(own_store, tmp_path / "new")
    real = module._map

    def swap(file, expected):
        if own_store.exists():
            own_store.rename(tmp_path / "old")
            (tmp_path / "new").rename(own_store)
            monkeypatch.setattr(module, "_map", real)
        return real(file, expected)

    monkeypatch.setattr(module, "_map", swap)
    opened = open_store(own_store)
    os.utime(own_store / "images.npy", ns=(1, 1))
    opened.check_unchanged()
    os.utime(tmp_path / "old/images.npy", ns=(1, 1))
    with pytest.raises(DSAError, match="changed"):
        opened.check_unchanged()


@pytest.mark.parametrize("before, after", [(b"|u1", b"|i1"), (b"False", b"True "), (b"(27,", b"(26,")])
def test_an_array_of_another_kind(own_store, before, after):
    path = own_store / "images.npy"
    path.write_bytes(path.read_bytes().replace(before, after, 1))
    with pytest.raises(DSAError, match=r"images\.npy: .* from store\.json, which says"):
        open_store(own_store)


def test_verify_passes_what_is_whole(tiny_store):
    verify(tiny_store)
    verify(open_store(tiny_store))
    sums = {name: array.sha256 for name, array in open_store(tiny_store).header.arrays.items()}
    for name, digest in sums.items():
        assert hashlib.sha256((tiny_store / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", ["images.npy", "iuv.npy"])
def test_a_store_that_changes_under_the_reader(own_store, name):
    store = open_store(own_store)
    store.check_unchanged()
    path = own_store / name
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    os.utime(path, ns=(0, 1))  # a clock may be too coarse to tell
    with pytest.raises(DSAError, match=f"{name}: changed while it was being read"):
        store.check_unchanged()
    store = open_store(own_store)
    os.truncate(path, 100)
    with pytest.raises(DSAError, match=f"{name}: changed while it was being read"):
        store.check_unchanged()


def test_a_store_that_is_replaced_stays_readable(own_store, tiny_store):
    store = open_store(own_store)
    own_store.rename(own_store.with_name("old"))
    store.check_unchanged()
    assert np.array_equal(store.images, open_store(tiny_store).images)


def test_description(tiny_store):
    text = store_summary(open_store(tiny_store))
    for words in ("27 images", "64 rows x 32 columns, 0.3 MB", "bounding_box_train", "16"):
        assert words in text
    assert "skipped" not in text
