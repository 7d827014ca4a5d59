"""Ranking by features: precision, copies, mapped files, removed images, and the size of tiles."""

import numpy as np
import pytest
import torch
from ranking_reference import CASES, assert_equal_to_literal, literal_rank, make_case

from dsareid.evaluation import FeatureDistances, Labels, Ranking, rank, ranking
from dsareid.evaluation import distances as distances_module
from dsareid.evaluation.distances import MatrixDistances, tile_of


@pytest.fixture
def single_precision(monkeypatch):
    """Small cases in float32 too, as large ones are."""
    monkeypatch.setattr(distances_module, "SMALL_PRODUCT", 0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_whole_numbers_are_exact_in_single_precision(name, seed, single_precision):
    assert_equal_to_literal(make_case(seed, values="integer", **CASES[name]))


def tiles_of(monkeypatch, size):
    """So many queries at once."""
    monkeypatch.setattr(ranking, "tile_of", lambda *_: size)


@pytest.mark.parametrize("values", ["float", "integer"])
def test_tiles_change_nothing(values, monkeypatch):
    case = make_case(6, 37, 150, 12, 3, values=values)
    whole = rank(*case)
    for tile in (1, 2, 7, 36, 37, 1000):
        tiles_of(monkeypatch, tile)
        part = rank(*case)
        assert torch.equal(part.ap, whole.ap) and torch.equal(part.cmc, whole.cmc)
        assert torch.equal(part.queries, whole.queries)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    query, gallery, *labels = make_case(7, 30, 100, 10, 3)
    assert_equal_to_literal((query.to(dtype), gallery.to(dtype), *labels))


def test_equal_gallery_features_tie_whatever_the_matrix_product_rounds(single_precision):
    # At this size the product of equal rows differs in its last bits with their position.
    draw = torch.Generator().manual_seed(9)
    unit = torch.nn.functional.normalize
    once = unit(torch.randn(150, 512, generator=draw), dim=1)
    gallery = torch.cat([once, once[:77], once[:30]])[torch.randperm(257, generator=draw)]
    query = unit(torch.randn(64, 512, generator=draw), dim=1)
    query[:20] = gallery[::10][:20]  # at distance 0 of several
    labels = [torch.randint(0, high, (n,), generator=draw) for high in (4, 2) for n in (64, 257)]
    before = FeatureDistances(query, gallery)
    assert before.gallery.dtype == torch.float32 and len(before.copies) == 107
    assert_equal_to_literal((query, gallery, *labels))


def test_features_close_together_and_far_from_zero(single_precision):
    query, gallery, *labels = make_case(10, 40, 150, 10, 3)
    assert_equal_to_literal((query + 3000, gallery + 3000, *labels))


def test_leaves_its_arguments_and_settings_alone():
    case = make_case(11, 20, 50, 5, 2)
    before = [argument.clone() for argument in case]
    torch.set_float32_matmul_precision("medium")
    try:
        assert_equal_to_literal(case)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert all(torch.equal(a, b) for a, b in zip(case, before))


def mapped(path, features):
    """The same features in a file, mapped into memory, which cannot be written."""
    np.save(path, features.numpy())
    return np.load(path, mmap_mode="r")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["plain", "queries without a match", "single query"])
def test_mapped_features_are_those_in_memory(name, dtype, tmp_path, single_precision, monkeypatch, recwarn):
    query, gallery, *labels = make_case(30, **CASES[name])
    gallery[7:27] = gallery[3]
    query, gallery = query.to(dtype), gallery.to(dtype)
    whole = rank(query, gallery, *labels)
    monkeypatch.setattr(distances_module, "_PART", 5 * 16)  # five rows at a time
    arrays = mapped(tmp_path / "query.npy", query), mapped(tmp_path / "gallery.npy", gallery)
    case = (*arrays, *labels)
    assert_equal_to_literal(
        (query, gallery, *labels), form=(lambda *_, max_rank: rank(*case, max_rank), literal_rank)
    )
    tiles_of(monkeypatch, 3)
    assert torch.equal(rank(*case).ap, whole.ap)
    lists = [
        Ranking(FeatureDistances(*pair), Labels(*labels)).top(range(len(query)))
        for pair in (arrays, (query, gallery))
    ]
    for mapped_list, in_memory in zip(*lists):
        assert all(torch.equal(a, b) for a, b in zip(mapped_list, in_memory))
    assert not len(recwarn)


def test_half_features_are_ranked_as_what_they_stand_for():
    query, gallery, *labels = make_case(31, 40, 200, 20, 3)
    query, gallery = query.half(), gallery.half()
    assert torch.equal(rank(query, gallery, *labels).ap, rank(query.float(), gallery.float(), *labels).ap)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_mostly_copies_in_small_parts(dtype, single_precision, monkeypatch):
    query, gallery, *labels = make_case(32, 30, 300, 10, 3)
    gallery[:] = gallery[torch.randint(0, 7, (300,), generator=torch.Generator().manual_seed(0))]
    monkeypatch.setattr(distances_module, "_PART", 50)
    query, gallery = query.to(dtype), gallery.to(dtype)
    assert len(FeatureDistances(query, gallery).copies) == 293
    assert_equal_to_literal((query, gallery, *labels))


@pytest.mark.parametrize("every", [1, 3, 1000])
@pytest.mark.parametrize("values", ["float", "integer"])
def test_removed_images_are_in_no_gallery(values, every):
    query, gallery, query_ids, ids, query_cams, cams = make_case(33, 30, 100, 10, 3, values=values)
    removed = torch.arange(100) % 4 == 0 if every == 1 else torch.arange(100) % every == 1
    ids[removed] = -1  # junk, which would be refused
    kept = (~removed).nonzero().squeeze(1)
    found = Ranking(FeatureDistances(query, gallery, removed), Labels(query_ids, ids, query_cams, cams))
    labels = Labels(query_ids, ids[kept], query_cams, cams[kept])
    expected = Ranking(FeatureDistances(query, gallery[kept]), labels)
    for one, other in ((found.result(), expected.result()), (found.chance(), expected.chance())):
        assert torch.equal(one.ap, other.ap) and torch.equal(one.cmc, other.cmc)
        assert torch.equal(one.queries, other.queries) and one.skipped == other.skipped
    for count in (5, 200):
        for one, other in zip(found.top(range(30), count), expected.top(range(30), count)):
            assert torch.equal(one[0], kept[other[0]]) and torch.equal(one[1], other[1])


@pytest.mark.parametrize("row", [0, 5, 49])
def test_the_row_that_is_not_finite_is_named(row, tmp_path, monkeypatch):
    query, gallery, *labels = make_case(34, 20, 50, 5, 2)
    gallery[row, 3] = float("nan")
    monkeypatch.setattr(distances_module, "_PART", 4 * 16)
    with pytest.raises(ValueError, match=f"gallery_features holds NaN.* the first in row {row}$"):
        rank(query.numpy(), mapped(tmp_path / "gallery.npy", gallery), *labels)


def test_arrays_that_torch_cannot_read():
    query, gallery, *labels = make_case(35, 20, 50, 5, 2)
    for wrong in (gallery.numpy().astype(">f4"), gallery.numpy()[::-1]):
        with pytest.raises(ValueError, match="gallery_features must be an array that torch can read"):
            rank(query, wrong, *labels)


@pytest.mark.parametrize(
    "queries, gallery, positives, dtype, tile",
    [
        (3368, 15_913, 30, torch.float32, 256),
        (10_000, 1_000_000, 30, torch.float32, 128),  # 512 MB
        (10_000, 1_000_000, 30, torch.float64, 67),
        (10_000, 1_000_000, 900_000, torch.float32, 11),  # the ranks of an identity this large need more
        (10, 1 << 29, 30, torch.float32, 1),
    ],
)
def test_a_tile_is_bounded(queries, gallery, positives, dtype, tile):
    distances = MatrixDistances(torch.empty(queries, gallery, dtype=dtype, device="meta"))
    assert tile_of(distances, positives) == tile


def test_features_may_require_grad():
    query, gallery, *labels = make_case(12, 20, 50, 5, 2)
    assert rank(query.requires_grad_(), gallery, *labels).mAP == rank(query, gallery, *labels).mAP


@pytest.mark.parametrize("removed", [torch.zeros(49, dtype=torch.bool), torch.arange(50)])
def test_removed_images_are_given_as_a_mask(removed):
    query, gallery, *_ = make_case(36, 20, 50, 5, 2)
    with pytest.raises(ValueError, match="removed must be bool .50., not torch"):
        FeatureDistances(query, gallery, removed)
