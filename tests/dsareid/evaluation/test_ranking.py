"""rank and Ranking against the literal reading of the rules, and their error messages."""

import numpy as np
import pytest
import torch
from ranking_reference import (
    CASES,
    assert_equal_to_literal,
    literal_distances,
    literal_order,
    literal_rank_distances,
    make_case,
)

from dsareid.evaluation import FeatureDistances, Labels, Ranking, chance, rank


@pytest.mark.parametrize("values", ["float", "integer"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_literal_rules(name, values, seed):
    assert_equal_to_literal(make_case(seed, values=values, **CASES[name]))


def test_zero_is_an_identity_like_any_other():
    case = list(make_case(8, 40, 100, 10, 3))
    shifted = case.copy()
    shifted[2], shifted[3] = case[2] + 1, case[3] + 1
    assert (case[2] == 0).any()
    assert torch.equal(rank(*case).ap, rank(*shifted).ap)


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
    with pytest.raises(ValueError, match=f"distances must not be NaN, found NaN for query {query}"):
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
