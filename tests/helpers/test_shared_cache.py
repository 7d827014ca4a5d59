"""Entries are made once, are whole, and go with what they were made from."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import shared_cache


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_cache, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def test_many_at_once_make_it_once():
    made = []

    def make(folder):
        made.append(folder)
        time.sleep(0.05)
        (folder / "a").write_text("whole")

    def ask(_):
        return (shared_cache.made("x", ["key"], make) / "a").read_text()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {"whole"}
    assert len(made) == 1


def test_what_fails_is_made_again():
    def fails(folder):
        (folder / "half").touch()
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        shared_cache.made("x", [1], fails)
    folder = shared_cache.made("x", [1], lambda folder: (folder / "a").touch())
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_other_content_is_another_entry(tmp_path):
    file = tmp_path / "source"
    file.write_text("one")
    first = shared_cache.made("x", [file], lambda folder: None)
    assert shared_cache.made("x", [file], lambda folder: None) == first
    file.write_text("two")
    assert shared_cache.made("x", [file], lambda folder: None) != first
    assert shared_cache.digest("ab", "c") != shared_cache.digest("a", "bc")


def test_what_nobody_asks_for_goes(cache):
    old = shared_cache.made("x", [1], lambda folder: None)
    os.utime(old, (0, 0))
    assert shared_cache.made("x", [1], lambda folder: None) == old  # asked for
    shared_cache.made("x", [2], lambda folder: None)
    assert old.exists()
    os.utime(old, (0, 0))
    shared_cache.made("x", [3], lambda folder: None)
    assert not old.exists()


@pytest.mark.compiles
def test_objects_and_programs(tmp_path):
    source, header = tmp_path / "a.cpp", tmp_path / "a.h"
    header.write_text("#define STATUS 0\n")
    source.write_text('#include "a.h"\nint main() { return STATUS; }\n')

    def build(text=None):
        return shared_cache.program("a", [(source, ["-O0"], [header], text)], [])

    path = build()
    shared_cache.run([path])
    assert build() == path
    header.write_text("#define STATUS 7\n")
    with pytest.raises(RuntimeError):
        shared_cache.run([build()])
    shared_cache.run([build("int main() { return 0; }")])
    with pytest.raises(RuntimeError, match=r"a\.cpp:2:.*nonsense"):
        build("\nnonsense")
