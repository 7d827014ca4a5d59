"""rank and Ranking against the literal reading of the rules, and their error messages."""

import numpy as np
import pytest
import torch
from ranking_reference import literal_distances, literal_order, literal_rank, literal_rank_distances

from dsareid.evaluation import FeatureDistances, Labels, Ranking, chance, rank, ranking
from dsareid.evaluation import distances as distances_module
from dsareid.evaluation.distances import MatrixDistances, tile_of

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


def assert_equal_to_literal(case, max_rank=50, form=(rank, literal_rank)):
    function, literal = form
    result = function(*case, max_rank=max_rank)
    mean, cmc, ap, counted = literal(*case, max_rank=max_rank)
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
def test_rank_lists_are_the_heads_of_the_literal_order(values):
    case = make_case(13, 12, 40, 4, 2, values=values)
    query, gallery, query_ids, ids, query_cams, cams = (x.numpy() for x in case)
    lists = Ranking(FeatureDistances(*case[:2]), Labels(*case[2:])).top(torch.tensor([3, 0, 11]), 10)
    for which, (found, near) in zip([3, 0, 11], lists):
        distances = literal_distances(query[which].astype(float), gallery.astype(float))
        order = literal_order(distances, query_ids[which], ids, query_cams[which], cams)
        assert found.tolist() == order[:10].tolist()
        np.testing.assert_allclose(near.numpy(), np.sqrt(distances[order[:10]]), rtol=1e-6)


def test_rank_lists_of_a_short_gallery():
    case = make_case(14, 3, 6, 2, 2)
    ranked = Ranking(FeatureDistances(*case[:2]), Labels(*case[2:]))
    ((found, _),) = ranked.top([0])
    junk = ((case[3] == case[2][0]) & (case[5] == case[4][0])).sum()
    assert len(found) == 6 - junk
    with pytest.raises(ValueError, match="queries"):
        ranked.top([3])
    with pytest.raises(ValueError, match="count"):
        ranked.top([0], 0)


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
    ],
)
def test_other_errors(change, message):
    arguments = dict(zip(NAMES, make_case(17, 20, 50, 5, 2)), **change)
    with pytest.raises(ValueError, match=message):
        rank(**arguments)


def test_all_of_one_camera_has_no_match():
    with pytest.raises(ValueError, match="no query has a match"):
        rank(*make_case(18, 10, 30, 2, 1))


def rank_distances(distances, *labels, max_rank=50):
    return Ranking(distances, Labels(*labels)).result(max_rank)


DISTANCES = (rank_distances, literal_rank_distances)


def make_distances(seed, values="float", dtype=torch.float32, **sizes):
    """Random distances and labels."""
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


def test_the_length_of_the_cmc():
    case = make_distances(22, queries=30, gallery=100, ids=5, cams=3)
    assert_equal_to_literal(case, form=DISTANCES, max_rank=7)


@pytest.mark.parametrize("values", ["float", "few and infinite"])
def test_rank_lists_by_distances(values):
    distances, *labels = make_distances(27, values, queries=20, gallery=60, ids=4, cams=2)
    query_ids, ids, query_cams, cams = (x.numpy() for x in labels)
    lists = Ranking(distances, Labels(*labels)).top(range(20), 12)
    for which, (found, near) in enumerate(lists):
        order = literal_order(distances[which].numpy(), query_ids[which], ids, query_cams[which], cams)[:12]
        assert found.tolist() == order.tolist() and torch.equal(near, distances[which, found])


def test_the_chance_of_a_ranking():
    case = make_distances(28, queries=20, gallery=60, ids=4, cams=2)
    one, other = Ranking(case[0], Labels(*case[1:])).chance(7), chance(Labels(*case[1:]), 7)
    assert torch.equal(one.cmc, other.cmc) and torch.equal(one.ap, other.ap) and len(one.cmc) == 7
    with pytest.raises(ValueError, match="max_rank"):
        chance(Labels(*case[1:]), 0)


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
    ],
)
def test_errors_of_rankings_by_distances(change, message):
    names = ["distances", *NAMES[2:]]
    arguments = dict(zip(names, make_distances(26, queries=20, gallery=50, ids=5, cams=2))) | change
    max_rank = arguments.pop("max_rank", 50)
    with pytest.raises(ValueError, match=message):
        rank_distances(*arguments.values(), max_rank=max_rank)
