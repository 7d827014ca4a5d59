"""Writing a store by hand: what is finished stays, and the store is there only when it is whole."""

import json

import numpy as np
import pytest

from dsareid.data.store import writer as module
from dsareid.data.store.format import (
    CAMERAS,
    HAS_IUV,
    IDS,
    IMAGES,
    IUV,
    NAMES,
    SPLIT,
    Contents,
    SkippedFile,
    StoreLayout,
    npy_header,
    npy_size,
)
from dsareid.data.store.reader import open_store, verify
from dsareid.data.store.writer import JOURNAL, open_writer

LAYOUT = StoreLayout(images=10, height=3, width=2, iuv=True, name_bytes=12)
SOURCE = "0" * 64
LABELS = {
    HAS_IUV: [True] * 9 + [False],
    IDS: range(10),
    CAMERAS: [1, 2] * 5,
    SPLIT: [1] * 10,
    NAMES: [f"query/{row:02}.png".encode() for row in range(10)],
}
CONTENTS = Contents(
    splits={"query": 10},
    expected={},
    maps={},
    resized=False,
    dataset="own data",
    protocol="",
    cameras=True,
    synthetic=False,
)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_IMAGES", 4)


def pixels(rows, seed=0):
    """Of each row, its own in any chunk."""
    drawn = [np.random.default_rng([seed, row]).integers(0, 25, (2, 3, 2, 3), np.uint8) for row in rows]
    images, maps = np.stack(drawn, axis=1)
    return {IMAGES: images, IUV: maps}


def write(writer, chunks, skipped=()):
    for rows in chunks:
        writer.write_rows(rows, pixels(rows), skipped)


def test_a_store(tmp_path):
    out = tmp_path / "out"
    with open_writer(out, LAYOUT, SOURCE) as writer:
        writer.resume(redo_skipped=True)
        assert writer.remaining == [range(0, 4), range(4, 8), range(8, 10)] and writer.written == 0
        write(writer, writer.remaining)
        assert writer.remaining == [] and writer.written == 10 and not out.exists()
        writer.finish(LABELS, CONTENTS)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not (out / JOURNAL).exists()
    store = open_store(out)
    verify(store)
    expected = pixels(range(10))
    assert np.array_equal(store.images, expected[IMAGES]) and np.array_equal(store.iuv, expected[IUV])
    assert store.names[3] == "query/03.png" and store.cams.tolist() == [1, 2] * 5
    assert sum(path.stat().st_size for path in out.glob("*.npy")) == LAYOUT.bytes


def test_chunks_that_are_finished_stay(tmp_path):
    out, file = tmp_path / "out", SkippedFile(file="query/04.png", reason="not readable")
    with open_writer(out, LAYOUT, SOURCE) as writer:
        writer.resume(redo_skipped=False)
        write(writer, writer.remaining[:1])
        write(writer, writer.remaining[:1], [file])
    assert writer.partial.is_dir() and not out.exists()
    with open_writer(out, LAYOUT, SOURCE) as writer:
        writer.resume(redo_skipped=False)
        assert writer.remaining == [range(8, 10)] and writer.skipped == [file] and writer.written == 8
    with open_writer(out, LAYOUT, SOURCE) as writer:
        writer.resume(redo_skipped=True)
        assert writer.remaining == [range(4, 8), range(8, 10)] and writer.skipped == []
    with open_writer(out, LAYOUT, "1" * 64) as writer:  # of other files
        writer.resume(redo_skipped=False)
        assert len(writer.remaining) == 3
        assert len((writer.partial / JOURNAL).read_text().splitlines()) == 1


def test_a_line_of_the_journal(tmp_path):
    with open_writer(tmp_path / "out", LAYOUT, SOURCE) as writer:
        writer.resume(redo_skipped=True)
        write(writer, [range(4, 8)])
        lines = (writer.partial / JOURNAL).read_text().splitlines()
    assert [json.loads(line) for line in lines][1:] == [{"chunk": 1, "skipped": []}]


def test_npy_headers_are_numpys(tmp_path):
    for dtype, shape in (("|u1", (3, 2, 1, 3)), ("<f4", (7, 5)), ("|S9", (2,))):
        np.save(tmp_path / "a.npy", np.zeros(shape, dtype))
        content = (tmp_path / "a.npy").read_bytes()
        assert content.startswith(npy_header(dtype, shape)) and len(content) == npy_size(dtype, shape)
