"""CUHK01: its names, and its splits by seed."""

import numpy as np
import pytest
from PIL import Image

from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.layouts.cuhk01 import draw_test
from dsareid.data.layouts.summary import listing_summary
from dsareid.data.store.cache import ensure_store
from dsareid.ground.errors import DSAError


def make(root, people):
    (root / "campus").mkdir(parents=True)
    for person in range(1, people + 1):
        for shot in range(1, 5):
            (root / "campus" / f"{person:04d}{shot:03d}.png").touch()
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """As many files as the real one has; read only."""
    return make(tmp_path_factory.mktemp("cuhk01"), 971)


@pytest.mark.parametrize(
    "protocol, train, test", [("", 486, 485), ("485-s3", 486, 485), ("871-s0", 871, 100)]
)
def test_a_split(whole, protocol, train, test):
    listing = list_data(whole, protocol)
    assert listing.protocol == (protocol or "485-s0") and listing.dataset.name == "CUHK01"
    assert listing.count(TRAIN) == (4 * train, train)
    assert listing.count(QUERY) == listing.count(GALLERY) == (2 * test, test)
    assert listing.notes == []  # these are the expected counts
    for entry in listing.entries:
        shot = int(entry.name.removesuffix(".png")[-3:])
        assert entry.camera == (1 if shot <= 2 else 2)
        assert entry.identity == int(entry.name.removeprefix("campus/")[:4])
        assert entry.split in ((TRAIN, QUERY) if shot <= 2 else (TRAIN, GALLERY))


def test_splits_are_those_of_their_seeds(whole):
    listings = [list_data(whole, protocol) for protocol in ("485-s0", "485-s1", "871-s0")]
    assert len({listing.fingerprint for listing in listings}) == 3
    assert list_data(whole) == listings[0]
    drawn = draw_test(100, 0)
    assert {e.identity for e in listings[2].entries if e.split == QUERY} == drawn


def test_what_a_seed_draws_never_changes():
    """Published figures depend on it."""
    assert sorted(draw_test(485, 0))[:8] == [2, 3, 6, 7, 9, 11, 13, 15]
    assert sorted(draw_test(100, 7))[:8] == [14, 25, 26, 27, 35, 47, 54, 61]


def test_other_counts_are_said(tmp_path):
    root = make(tmp_path, 102)
    (root / "campus/0001001.png").unlink()
    listing = list_data(root, "871-s0")
    assert f"{TRAIN}: expected 3,484 images of 871 identities, found" in listing.notes[0]
    text = listing_summary(listing)
    assert "protocol   871-s0: 100 identities for the test" in text and "or         485-sN: 485 id" in text
    assert "rank-1 and rank-5" in text and "ACCV 2012" in text


def test_a_split_is_the_same_where_people_are_missing(whole, tmp_path):
    """Those who are left are on the side on which they would be."""
    some, every = list_data(make(tmp_path, 600)), list_data(whole)
    sides = [{e.identity: e.split for e in x.entries if e.camera == 1} for x in (some, every)]
    assert len(sides[0]) == 600 and sides[0].items() <= sides[1].items()


def test_too_few_people(tmp_path):
    root = make(tmp_path, 1)  # whom seed 0 has to train on, and seed 1 in the test
    with pytest.raises(
        DSAError, match="campus: none of its 1 identities is in the test split of protocol 485-s0"
    ):
        list_data(root)
    with pytest.raises(DSAError, match="is in the training split of protocol 485-s1; CUHK01 has 971"):
        list_data(root, "485-s1")


@pytest.mark.parametrize("protocol", ["485-sN", "486-s0", "485", "485-s-1", "485-s1234567890", "multi-query"])
def test_an_unknown_protocol(whole, protocol):
    with pytest.raises(DSAError, match=f"`protocol={protocol!r}`: CUHK01 has no .* it has: 485-sN, 871-sN"):
        list_data(whole, protocol)


def test_misnamed_files(tmp_path):
    root = make(tmp_path, 101)
    for name in ("0001005.png", "1001.png", "0001000.png", "00010010.png"):
        (root / "campus" / name).touch()
    wrong = [entry for entry in list_data(root, "871-s0").entries if entry.misnamed]
    assert len(wrong) == 4 and all("a 4-digit identity and a shot 001..004" in e.misnamed for e in wrong)


def test_no_images(tmp_path):
    with pytest.raises(DSAError, match="campus: no images in this folder"):
        list_data(make(tmp_path, 0))


def test_a_store_of_it(tmp_path):
    root = make(tmp_path, 101)
    for number, path in enumerate(sorted((root / "campus").iterdir())):
        Image.fromarray(np.full((4, 2, 3), number % 251, np.uint8)).save(path)
    (root / "iuv/campus").mkdir(parents=True)
    Image.fromarray(np.full((4, 2, 3), 7, np.uint8)).save(root / "iuv/campus/0001001_IUV.png")
    store = ensure_store(root, 8, 4, protocol="871-s5")
    assert store.path == root / "store-4x2-871-s5" and store.header.protocol == "871-s5"
    tested = len(draw_test(100, 5) & set(range(1, 102)))
    assert store.header.splits == {TRAIN: 4 * (101 - tested), QUERY: 2 * tested, GALLERY: 2 * tested}
    assert store.header.expected == {TRAIN: (3484, 871), QUERY: (200, 100), GALLERY: (200, 100)}
    row = store.names.index("campus/0001001.png")
    assert store.has_iuv.sum() == 1 and store.has_iuv[row] and (store.iuv[row] == 7).all()
    with pytest.raises(DSAError, match="packed by the protocol 871-s5, not by 485-s0"):
        ensure_store(store.path, 8, 4, protocol="485-s0")
