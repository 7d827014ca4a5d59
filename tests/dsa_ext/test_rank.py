"""count_ranks by hand, with NaN, in tiles, and what it refuses; test_operations.py has the odd cases."""

import pytest
import torch

from dsa_ext import _count_ranks, count_ranks
from dsa_ext.selftest.operations.rank import ODD, arguments_on, rank_arguments

DEVICES = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ODD)
def test_arguments_are_only_read(device, name):
    case = arguments_on(device, ODD[name])
    before = [x.clone() for x in case]
    ranks, found = count_ranks(*case)
    assert ranks.dtype == found.dtype == torch.int64
    assert all(torch.equal(a, b) for a, b in zip(case, before))


def test_the_cases_are_what_they_are_called():
    found = {name: _count_ranks(*case)[1] for name, case in ODD.items() if "5,000" in name}
    assert all(x.max() > 5000 for x in found.values())
    count, found = ODD["all junk"][3], _count_ranks(*ODD["all junk"])[1]
    assert count.all() and not found.any()
    assert (ODD["no positives"][3] == 0).sum() == 7
    row = ODD["row stride"][0]
    assert row.stride() == (104, 1) and row[0].data_ptr() % 16


def test_by_hand():
    distances = torch.tensor([[0.5, 0.1, 0.5, 0.5, 0.9, 0.2]])
    members = torch.tensor([1, 0, 2, 3, 4, 5])  # 1 is another identity; 5 below is junk
    case = (torch.tensor([1]), torch.tensor([5]), torch.tensor([0]), torch.tensor([1, 1, 1, 1, 1, 0]))
    ranks, found = count_ranks(distances, members, *case)
    assert found.tolist() == [4] and ranks.tolist() == [[1, 2, 3, 4, 6, 6, 6, 6]]


def test_negative_zero_ties_with_zero():
    distances = torch.tensor([[0.0, -0.0, 0.0, -0.0]])
    members, cams = torch.tensor([1, 2, 0, 3]), torch.ones(4, dtype=torch.int64)
    ranks, _ = count_ranks(distances, members, torch.tensor([0]), torch.tensor([2]), torch.tensor([0]), cams)
    assert ranks.tolist() == [[1, 2, 4, 4]]


@pytest.mark.parametrize("values", ["float", "few"])
def test_tiles_and_threads_change_nothing(values):
    case = rank_arguments(50, 400, ids=40, values=values)
    ranks, found = count_ranks(*case)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(count_ranks(*case)[0], ranks)
    finally:
        torch.set_num_threads(threads)
    distances, members, first, count, query_cams, gallery_cams = case
    for start in range(0, 50, 7):
        rows = slice(start, start + 7)
        part, part_found = count_ranks(
            distances[rows], members, first[rows], count[rows], query_cams[rows], gallery_cams
        )
        assert torch.equal(part_found, found[rows])
        assert torch.equal(part, ranks[rows, : part.shape[1]])


def test_columns_that_do_not_lie_side_by_side():
    distances, *labels = rank_arguments(7, 100)
    across = distances.T.contiguous().T
    members, *labels = (x.repeat_interleave(2)[::2] for x in labels)
    assert across.stride(1) != 1 and not members.is_contiguous()
    ranks, found = count_ranks(across, members, *labels)
    expected = _count_ranks(distances, members, *labels)
    assert torch.equal(ranks, expected[0]) and torch.equal(found, expected[1])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("where", ["a positive", "junk", "another", "all"])
def test_nan_stays_within_bounds(device, where):
    distances, members, first, count, query_cams, gallery_cams = rank_arguments(3, 700, ids=2)
    same_id = torch.isin(torch.arange(700), members[: count[0]])
    same_cam = gallery_cams == query_cams[0]
    which = {
        "a positive": same_id & ~same_cam,
        "junk": same_id & same_cam,
        "another": ~same_id,
        "all": torch.ones(700, dtype=torch.bool),
    }[where]
    distances[0, which.nonzero().squeeze(1)[::2]] = float("nan")
    case = (distances, members, first, count, query_cams, gallery_cams)
    ranks, found = (x.cpu() for x in count_ranks(*arguments_on(device, case)))
    assert found.tolist() == _count_ranks(*case)[1].tolist()
    assert ranks.min() >= 0 and ranks.max() <= 700
    assert torch.equal(ranks[1:], _count_ranks(*case)[0][1:])


@pytest.mark.parametrize(
    "error,words,change",
    [
        (TypeError, "distances must be a torch.Tensor", lambda c: c.update(distances=[[1.0]])),
        (TypeError, "distances must be float32", lambda c: c.update(distances=c["distances"].half())),
        (TypeError, "members must be int64", lambda c: c.update(members=c["members"].int())),
        (TypeError, "count must be a torch.Tensor", lambda c: c.update(count=3)),
        (ValueError, "distances must be .T, G.", lambda c: c.update(distances=c["distances"][0])),
        (ValueError, r"members must be \(100,\)", lambda c: c.update(members=c["members"][1:])),
        (ValueError, r"first must be \(7,\)", lambda c: c.update(first=c["first"][1:])),
        (ValueError, r"query_cams must be \(7,\)", lambda c: c.update(query_cams=c["query_cams"][:, None])),
        (ValueError, r"gallery_cams must be \(100,\)", lambda c: c.update(gallery_cams=c["query_cams"])),
        (ValueError, "count is on meta", lambda c: c.update(count=c["count"].to("meta"))),
        (RuntimeError, "members must be 0..99, found 100", lambda c: c["members"].__setitem__(99, 100)),
        (RuntimeError, "members must be 0..99, found -1", lambda c: c["members"].__setitem__(0, -1)),
        (RuntimeError, "query 3 has first = -1", lambda c: c["first"].__setitem__(3, -1)),
        (RuntimeError, "query 3 .* count = -1", lambda c: c["count"].__setitem__(3, -1)),
        (RuntimeError, "query 3 .* count = 101", lambda c: c["count"].__setitem__(3, 101)),
        (RuntimeError, "query 3 has first = 99", lambda c: c["first"].__setitem__(3, 99)),
        (RuntimeError, "first = 9223372036854775807", lambda c: c["first"].__setitem__(3, 2**63 - 1)),
        (RuntimeError, "members must ascend", lambda c: c["members"].copy_(c["members"].flip(0))),
        (RuntimeError, "members must ascend", lambda c: c["members"].__setitem__(1, c["members"][0])),
    ],
)
def test_bad_input(error, words, change):
    names = ("distances", "members", "first", "count", "query_cams", "gallery_cams")
    case = dict(zip(names, rank_arguments(7, 100)))
    change(case)
    with pytest.raises(error, match=words):
        count_ranks(**case)


@pytest.mark.parametrize("device", DEVICES)
def test_foreign_indices_are_never_followed(device):
    distances, members, first, *labels = arguments_on(device, rank_arguments(7, 100))
    with pytest.raises(RuntimeError, match="first"):
        count_ranks(distances, members, first + 100, *labels)
    members[::3] = 10**12
    members[1::3] = -(10**12)
    if device == "cpu":
        with pytest.raises(RuntimeError, match="members"):
            count_ranks(distances, members, first, *labels)
    else:  # the host has not seen them: they are skipped
        _, found = count_ranks(distances, members, first, *labels)
        assert (found < labels[0]).any()


@pytest.mark.parametrize("change", ["columns", "labels"])
def test_the_operation_itself_refuses_strides(change):
    distances, members, *labels = rank_arguments(7, 100)
    if change == "columns":
        distances = distances.T.contiguous().T
    else:
        members = members.repeat_interleave(2)[::2]
    with pytest.raises(RuntimeError, match="unit stride" if change == "columns" else "contiguous"):
        torch.ops.dsa_ext.count_ranks(distances, members, *labels)


def test_compile_fullgraph():
    @torch.compile(fullgraph=True, backend="aot_eager")
    def precision_of_first_hit(*case):
        ranks, _ = count_ranks(*case)
        return 1 / (ranks[:, 0] + 1)

    case = rank_arguments(4, 100)
    assert torch.equal(precision_of_first_hit(*case), 1 / (_count_ranks(*case)[0][:, 0] + 1))
