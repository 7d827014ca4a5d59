"""rank and top_matches against the literal reading of the rules, and their error messages."""

import numpy as np
import pytest
import torch

from dsareid.evaluation import rank, ranking, top_matches

from .reference import literal_order, literal_rank

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
        features(queries), features(gallery), labels(ids, queries), gallery_ids,
        query_cams, labels(cams, gallery),
    )


def assert_equal_to_literal(case, max_rank=50, **options):
    result = rank(*case, max_rank=max_rank, **options)
    trapezoidal = options.get("average_precision") == "trapezoidal"
    mean, cmc, ap, counted = literal_rank(*case, max_rank=max_rank, trapezoidal=trapezoidal)
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
    before = ranking.Distances(query, gallery)
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
        order = literal_order(
            query[which].astype(float), gallery.astype(float), query_ids[which], ids,
            query_cams[which], cams,
        )
        assert found.tolist() == order[:10].tolist()


def test_top_matches_of_a_short_gallery():
    case = make_case(14, 3, 6, 2, 2)
    (found,) = top_matches(*case, queries=torch.tensor([0]), count=10)
    junk = ((case[3] == case[2][0]) & (case[5] == case[4][0])).sum()
    assert len(found) == 6 - junk
    with pytest.raises(ValueError, match="queries"):
        top_matches(*case, queries=torch.tensor([3]))


NAMES = [
    "query_features", "gallery_features", "query_ids", "gallery_ids", "query_cams", "gallery_cams",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("wrong", ["type", "shape", "dtype"])
def test_errors_name_the_argument(name, wrong):
    arguments = dict(zip(NAMES, make_case(15, 20, 50, 5, 2)))
    if wrong == "type":
        arguments[name] = arguments[name].numpy()
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
