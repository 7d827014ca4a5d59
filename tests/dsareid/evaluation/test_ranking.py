"""rank, rank_distances and top_matches against the literal reading of the rules, and their error messages."""

import numpy as np
import pytest
import torch
from ranking_reference import literal_distances, literal_order, literal_rank, literal_rank_distances

from dsareid.evaluation import rank, rank_distances, ranking, top_matches

CASES = {
    "plain": dict(queries=40, gallery=200, ids=20, cams=4),
    "gallery shorter than max_rank": dict(queries=30, gallery=12, ids=4, cams=3),
    "queries without a match": dict(queries=60, gallery=50, ids=40, cams=2),
    "single query": dict(queries=1, gallery=80, ids=3, cams=2),
    "one identity": dict(queries=10, gallery=60, ids=1, cams=3),
    "query camera absent": dict(queries=20, gallery=60, ids=5, cams=1, query_cam=7),
    "many distractors of id 0": dict(queries=30, gallery=150, ids=8, cams=3, zeros=100),
}


def make_case(seed, queries, gallery, ids, cams, values="float", query_cam=None, zeros=0):
    """Random arguments of `rank`. Whole numbers from a small range make ties everywhere."""
    draw = torch.Generator().manual_seed(seed)

    def features(count):
        if values == "integer":
            return torch.randint(-1, 2, (count, 4), generator=draw).float()
        return torch.randn(count, 16, generator=draw)

    def labels(high, count):
        return torch.randint(0, high, (count,), generator=draw)

    gallery_ids = labels(ids, gallery)
    gallery_ids[:zeros] = 0
    query_cams = labels(cams, queries)
    if query_cam is not None:
        query_cams[:] = query_cam
    return (
        features(queries),
        features(gallery),
        labels(ids, queries),
        gallery_ids,
        query_cams,
        labels(cams, gallery),
    )


def assert_equal_to_literal(case, max_rank=50, form=(rank, literal_rank), **options):
    function, literal = form
    result = function(*case, max_rank=max_rank, **options)
    trapezoidal = options.get("average_precision") == "trapezoidal"
    mean, cmc, ap, counted = literal(*case, max_rank=max_rank, trapezoidal=trapezoidal)
    assert result.queries.tolist() == counted
    assert result.skipped == len(case[0]) - len(counted)
    assert result.cmc.shape == (max_rank,)
    np.testing.assert_allclose(result.ap.numpy(), ap, rtol=1e-12)
    np.testing.assert_allclose(result.cmc.numpy(), cmc, rtol=1e-12)
    assert result.mAP == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("values", ["float", "integer"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_literal_rules(name, values, seed):
    assert_equal_to_literal(make_case(seed, values=values, **CASES[name]))


@pytest.fixture
def single_precision(monkeypatch):
    """Small cases in float32 too, as large ones are."""
    monkeypatch.setattr(ranking, "SMALL_PRODUCT", 0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_whole_numbers_are_exact_in_single_precision(name, seed, single_precision):
    assert_equal_to_literal(make_case(seed, values="integer", **CASES[name]))


@pytest.mark.parametrize("values", ["float", "integer"])
def test_trapezoidal_ap_is_an_option(values):
    case = make_case(5, 40, 100, 10, 3, values=values)
    assert_equal_to_literal(case, average_precision="trapezoidal")
    assert rank(*case).mAP != rank(*case, average_precision="trapezoidal").mAP


@pytest.mark.parametrize("values", ["float", "integer"])
def test_tiles_change_nothing(values):
    case = make_case(6, 37, 150, 12, 3, values=values)
    whole = rank(*case)
    for tile in (1, 2, 7, 36, 37, 1000):
        part = rank(*case, tile=tile)
        assert torch.equal(part.ap, whole.ap) and torch.equal(part.cmc, whole.cmc)
        assert torch.equal(part.queries, whole.queries)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    query, gallery, *labels = make_case(7, 30, 100, 10, 3)
    assert_equal_to_literal((query.to(dtype), gallery.to(dtype), *labels))


def test_zero_is_an_identity_like_any_other():
    case = list(make_case(8, 40, 100, 10, 3))
    shifted = case.copy()
    shifted[2], shifted[3] = case[2] + 1, case[3] + 1
    assert (case[2] == 0).any()
    assert torch.equal(rank(*case).ap, rank(*shifted).ap)


def test_equal_gallery_features_tie_whatever_the_matrix_product_rounds(single_precision):
    # At this size the product of equal rows differs in its last bits with their position.
    draw = torch.Generator().manual_seed(9)
    unit = torch.nn.functional.normalize
    once = unit(torch.randn(150, 512, generator=draw), dim=1)
    gallery = torch.cat([once, once[:77], once[:30]])[torch.randperm(257, generator=draw)]
    query = unit(torch.randn(64, 512, generator=draw), dim=1)
    query[:20] = gallery[::10][:20]  # at distance 0 of several
    labels = [torch.randint(0, high, (n,), generator=draw) for high in (4, 2) for n in (64, 257)]
    before = ranking.FeatureDistances(query, gallery)
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
    monkeypatch.setattr(ranking, "_PART", 5 * 16)  # five rows at a time
    arrays = mapped(tmp_path / "query.npy", query), mapped(tmp_path / "gallery.npy", gallery)
    case = (*arrays, *labels)
    assert_equal_to_literal(
        (query, gallery, *labels), form=(lambda *_, **options: rank(*case, **options), literal_rank)
    )
    assert torch.equal(rank(*case, tile=3).ap, whole.ap)
    queries = torch.arange(len(query))
    lists = zip(top_matches(*case, queries), top_matches(query, gallery, *labels, queries))
    assert all(torch.equal(a, b) for a, b in lists)
    assert not len(recwarn)


def test_half_features_are_ranked_as_what_they_stand_for():
    query, gallery, *labels = make_case(31, 40, 200, 20, 3)
    query, gallery = query.half(), gallery.half()
    assert torch.equal(rank(query, gallery, *labels).ap, rank(query.float(), gallery.float(), *labels).ap)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_mostly_copies_in_small_parts(dtype, single_precision, monkeypatch):
    query, gallery, *labels = make_case(32, 30, 300, 10, 3)
    gallery[:] = gallery[torch.randint(0, 7, (300,), generator=torch.Generator().manual_seed(0))]
    monkeypatch.setattr(ranking, "_PART", 50)
    query, gallery = query.to(dtype), gallery.to(dtype)
    assert len(ranking.FeatureDistances(query, gallery).copies) == 293
    assert_equal_to_literal((query, gallery, *labels))


def test_removed_images_stand_behind_all_others():
    query, gallery, query_ids, ids, query_cams, cams = make_case(33, 30, 100, 10, 3)
    gone = torch.arange(0, 100, 3)
    kept = torch.tensor([g for g in range(100) if g % 3])
    distances = ranking.FeatureDistances(query, gallery, removed=gone)
    apart = ids.index_fill(0, gone, 99)
    found = rank_distances(distances, query_ids, apart, query_cams, cams)
    expected = rank(query, gallery[kept], query_ids, ids[kept], query_cams, cams[kept])
    assert torch.equal(found.ap, expected.ap) and torch.equal(found.cmc, expected.cmc)


@pytest.mark.parametrize("row", [0, 5, 49])
def test_the_row_that_is_not_finite_is_named(row, tmp_path, monkeypatch):
    query, gallery, *labels = make_case(34, 20, 50, 5, 2)
    gallery[row, 3] = float("nan")
    monkeypatch.setattr(ranking, "_PART", 4 * 16)
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
    distances = ranking._Ready(torch.empty(queries, gallery, dtype=dtype, device="meta"))
    assert ranking.tile_of(distances, positives) == tile


def test_features_may_require_grad():
    query, gallery, *labels = make_case(12, 20, 50, 5, 2)
    assert rank(query.requires_grad_(), gallery, *labels).mAP == rank(query, gallery, *labels).mAP


def test_perfect_and_worst_order():
    one, zero = torch.tensor([1]), torch.tensor([0])
    gallery = torch.tensor([[1.0], [2.0], [3.0], [4.0]])
    cams = torch.ones(4, dtype=torch.int64)
    best = rank(torch.zeros(1, 1), gallery, one, torch.tensor([1, 1, 2, 2]), zero, cams, 3)
    assert best.mAP == 1 and best.cmc.tolist() == [1, 1, 1]
    worst = rank(torch.zeros(1, 1), gallery, one, torch.tensor([2, 2, 1, 1]), zero, cams, 3)
    assert worst.mAP == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert worst.cmc.tolist() == [0, 0, 1]


@pytest.mark.parametrize("values", ["float", "integer"])
def test_top_matches_are_the_heads_of_the_literal_order(values):
    case = make_case(13, 12, 40, 4, 2, values=values)
    query, gallery, query_ids, ids, query_cams, cams = (x.numpy() for x in case)
    lists = top_matches(*case, queries=torch.tensor([3, 0, 11]), count=10)
    for which, found in zip([3, 0, 11], lists):
        distances = literal_distances(query[which].astype(float), gallery.astype(float))
        order = literal_order(distances, query_ids[which], ids, query_cams[which], cams)
        assert found.tolist() == order[:10].tolist()


def test_top_matches_of_a_short_gallery():
    case = make_case(14, 3, 6, 2, 2)
    (found,) = top_matches(*case, queries=torch.tensor([0]), count=10)
    junk = ((case[3] == case[2][0]) & (case[5] == case[4][0])).sum()
    assert len(found) == 6 - junk
    with pytest.raises(ValueError, match="queries"):
        top_matches(*case, queries=torch.tensor([3]))


NAMES = [
    "query_features",
    "gallery_features",
    "query_ids",
    "gallery_ids",
    "query_cams",
    "gallery_cams",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", ["type", "shape", "dtype"])
def test_errors_name_the_argument(name, wrong):
    arguments = dict(zip(NAMES, make_case(15, 20, 50, 5, 2)))
    if wrong == "type":
        arguments[name] = arguments[name].tolist()
    elif wrong == "shape":
        arguments[name] = arguments[name][:-1, None]
    else:
        arguments[name] = arguments[name].bool()
    with pytest.raises(ValueError, match=name):
        rank(**arguments)


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_features_must_be_finite(name, value):
    arguments = dict(zip(NAMES, make_case(16, 20, 50, 5, 2)))
    arguments[name][3, 2] = value
    with pytest.raises(ValueError, match=f"{name}.*NaN"):
        rank(**arguments)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(gallery_features=torch.randn(50, 3)), "dimensions"),
        (dict(gallery_features=torch.randn(50, 16).double()), "gallery_features.*dtype"),
        (dict(gallery_features=torch.randn(50, 16, device="meta")), "gallery_features.*device"),
        (dict(query_features=torch.empty(0, 16)), "query_features"),
        (dict(query_ids=torch.full((20,), -1)), "query_ids.*>= 0"),
        (dict(gallery_ids=torch.full((50,), 99)), "no query has a match"),
        (dict(max_rank=0), "max_rank"),
        (dict(tile=0), "tile"),
        (dict(average_precision="area"), "average_precision"),
    ],
)
def test_other_errors(change, message):
    arguments = dict(zip(NAMES, make_case(17, 20, 50, 5, 2)), **change)
    with pytest.raises(ValueError, match=message):
        rank(**arguments)


def test_all_of_one_camera_has_no_match():
    with pytest.raises(ValueError, match="no query has a match"):
        rank(*make_case(18, 10, 30, 2, 1))


DISTANCES = (rank_distances, literal_rank_distances)


def make_distances(seed, values="float", dtype=torch.float32, **sizes):
    """Random arguments of `rank_distances`."""
    *_, query_ids, gallery_ids, query_cams, gallery_cams = make_case(seed, **sizes)
    shape = (len(query_ids), len(gallery_ids))
    draw = torch.Generator().manual_seed(seed)
    if values == "float":
        distances = torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
    else:
        levels = torch.tensor([-float("inf"), -0.0, 0.0, 1.0, float("inf")], dtype=dtype)
        distances = levels[torch.randint(0, len(levels), shape, generator=draw)]
    return distances, query_ids, gallery_ids, query_cams, gallery_cams


@pytest.mark.parametrize("values", ["float", "few and infinite"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_distances_equal_the_literal_rules(name, values, seed):
    assert_equal_to_literal(make_distances(seed, values, **CASES[name]), form=DISTANCES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_distances_of_other_dtypes(dtype):
    case = make_distances(20, dtype=dtype, queries=30, gallery=300, ids=10, cams=3)
    assert_equal_to_literal((case[0].double(), *case[1:]), form=DISTANCES)
    assert torch.equal(rank_distances(*case).ap, rank_distances(case[0].double(), *case[1:]).ap)


def test_distances_that_float32_would_tie():
    distances, *labels = make_distances(21, dtype=torch.float64, queries=30, gallery=100, ids=5, cams=3)
    case = (1 + distances * 1e-12, *labels)
    assert_equal_to_literal(case, form=DISTANCES)
    assert rank_distances(*case).mAP != rank_distances(case[0].float(), *labels).mAP


def test_distances_have_the_options_of_rank():
    case = make_distances(22, queries=30, gallery=100, ids=5, cams=3)
    assert_equal_to_literal(case, form=DISTANCES, max_rank=7, average_precision="trapezoidal")


@pytest.mark.parametrize("layout", ["transposed", "expanded", "part of a wider matrix", "requires grad"])
def test_distances_in_any_layout_are_only_read(layout):
    distances, *labels = make_distances(23, queries=40, gallery=120, ids=5, cams=3)
    if layout == "transposed":
        distances = distances.T.contiguous().T
    elif layout == "expanded":
        distances = distances[:1].expand(40, -1)
    elif layout == "part of a wider matrix":
        distances = torch.nn.functional.pad(distances, (3, 2), value=-9.0)[:, 3:-2]
    before = distances.clone()
    result = rank_distances(distances.requires_grad_(layout == "requires grad"), *labels)
    assert torch.equal(result.ap, rank_distances(before, *labels).ap)
    assert torch.equal(distances, before)


def test_ranking_by_features_is_ranking_by_their_distances():
    query, gallery, *labels = make_case(24, 300, 400, 20, 3, values="integer")
    distances = torch.cdist(query.double(), gallery.double()).square().round()
    by_features, by_distances = rank(query, gallery, *labels), rank_distances(distances, *labels)
    assert torch.equal(by_features.ap, by_distances.ap)
    assert torch.equal(by_features.cmc, by_distances.cmc)
    assert by_features.mAP == by_distances.mAP and by_features.skipped == by_distances.skipped


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("query", [0, 17, 299])
def test_nan_distances_are_refused(query, dtype):
    distances, *labels = make_distances(25, dtype=dtype, queries=300, gallery=50, ids=5, cams=3)
    distances[query, 31] = float("nan")
    with pytest.raises(ValueError, match=f"distances must not be NaN, found one of query {query}"):
        rank_distances(distances, *labels)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(distances=[[1.0]]), "distances must be a torch.Tensor, not list"),
        (dict(distances=torch.randn(50)), "distances must be .queries, gallery."),
        (dict(distances=torch.randn(20, 0)), "distances"),
        (dict(distances=torch.ones(20, 50, dtype=torch.int64)), "distances must be floating"),
        (dict(distances=torch.randn(50, 20)), "query_ids"),
        (dict(query_ids=torch.zeros(19, dtype=torch.int64)), "query_ids"),
        (dict(gallery_ids=torch.full((50,), -1)), "gallery_ids.*>= 0"),
        (dict(query_cams=torch.zeros(20)), "query_cams must be integers"),
        (dict(gallery_cams=None), "gallery_cams"),
        (dict(gallery_ids=torch.full((50,), 99)), "no query has a match"),
        (dict(max_rank=0), "max_rank"),
        (dict(average_precision="area"), "average_precision"),
    ],
)
def test_errors_of_rank_distances(change, message):
    names = ["distances", *NAMES[2:]]
    arguments = dict(zip(names, make_distances(26, queries=20, gallery=50, ids=5, cams=2)), **change)
    with pytest.raises(ValueError, match=message):
        rank_distances(**arguments)
