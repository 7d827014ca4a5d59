"""Queries whose very picture is in the gallery."""

import shutil

import numpy as np
import pytest
import torch
from runs import make_run

from dsareid.commands.main import main
from dsareid.data.layouts.base import GALLERY, QUERY
from dsareid.data.store.pack import pack
from dsareid.evaluation.copies import copied_features, copied_pictures, copies_note
from dsareid.evaluation.positives import Labels
from dsareid.evaluation.run_features import ranking_labels


def labels(query_ids, gallery_ids, query_cams, gallery_cams):
    return Labels(*map(torch.tensor, (query_ids, gallery_ids, query_cams, gallery_cams)))


@pytest.fixture
def copied(own_data):
    """A query as its person by another camera, and one by its own, which the ranking removes."""
    first, second = sorted((own_data / QUERY).iterdir())
    shutil.copy(first, own_data / GALLERY / first.name.replace("_c3", "_c4"))
    shutil.copy(second, own_data / GALLERY / second.name)
    return own_data


def test_pictures(copied, tmp_path):
    store = pack(copied, tmp_path / "store")
    query, gallery = (store.select(name, iuv=False) for name in (QUERY, GALLERY))
    assert copied_pictures(query, gallery, ranking_labels(query, gallery)) == 1


def test_eval_tells_their_number(copied, tmp_path, capsys):
    run = make_run(tmp_path / "run", data=copied)
    assert main(["eval", str(run), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == copies_note(1, 2)
    assert main(["report", str(run)]) == 0
    assert copies_note(1, 2) in (run / "report.html").read_text()


def test_features():
    draw = np.random.default_rng(0)
    gallery = draw.normal(size=(500, 32)).astype(np.float32)
    query = gallery[[7, 100, 3, 4]] * np.float32(1 + 2e-7)
    query[2] *= np.float32(1.001)  # near, but no copy
    ids = list(range(500))
    ids[4] = -1  # junk is not in the gallery
    same = labels([7, 100, 3, 4], ids, [0, 0, 0, 0], [0] * 7 + [0] + [1] * 492)
    assert copied_features(query, gallery, same) == 1  # 7 is of its own camera
    assert copied_features(query, gallery, same._replace(query_cams=torch.ones(4).long())) == 1
    assert copied_features(query, gallery, same._replace(query_ids=torch.tensor([1, 2, 3, 4]))) == 2


def test_features_that_are_all_alike():
    """Of a network that has collapsed: every query has its copy, and it does not take long."""
    ones = np.ones((3000, 8), np.float32)
    same = labels([1] * 20, [1] * 3000, [0] * 20, [1] * 3000)
    assert copied_features(ones[:20], ones, same) == 20


def test_nothing_is_said_where_there_is_none():
    assert copies_note(0, 5) == ""
