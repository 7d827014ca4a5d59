"""Which features a network has, and what they are."""

import dataclasses
import shutil
from typing import get_args

import pytest
import torch
from PIL import Image

from dsareid.data.layouts.base import GALLERY, QUERY
from dsareid.data.store.pack import pack
from dsareid.data.store.reader import open_store
from dsareid.evaluation import rank
from dsareid.evaluation.evaluate_run import evaluate
from dsareid.evaluation.run_features import (
    check_features,
    compute_features,
    match,
    own_features,
    query_features,
)
from dsareid.ground.errors import DSAError
from dsareid.models.options import NetworkConfig
from dsareid.models.table import MatchedBy
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import Run, RunFolder
from dsareid.runs.network import build_model

NETWORK = NetworkConfig(width=1 / 8, head_width=1 / 8, depths=(1, 1, 1, 1))


def untrained(data, **changes) -> Run:
    config = TrainConfig(
        data=data, out=data / "run", height=64, width=32, dsap_size=8, network=NETWORK, weights="none"
    )
    config = dataclasses.replace(config, **changes)
    return Run(RunFolder(config.out), config, build_model(config, 4).eval(), 1, 1, {})


def possible(**changes) -> set[str]:
    config = TrainConfig(data="d", out="o", **changes)
    found = set()
    for name in get_args(MatchedBy):
        try:
            check_features(config, name)
            found.add(name)
        except DSAError as error:
            assert name in str(error) and config.model in str(error)
    assert own_features(config) in found
    return found


def test_which_features_each_network_has():
    branches = ("", "-global", "-local")
    whole = {stream: {stream + branch for branch in branches} for stream in ("mf", "fused", "guide")}
    assert possible() == possible(guidance="concat") == set(get_args(MatchedBy))
    assert possible(guidance="gate") == set(get_args(MatchedBy))
    assert possible(guidance="pool") == whole["mf"] | {"fused", "guide"}
    assert possible(guidance="texture") == whole["mf"]
    assert possible(guidance="distill") == whole["mf"] | whole["guide"]
    assert possible(model="two-branch") == whole["mf"]
    assert possible(model="dsap") == whole["guide"]
    assert possible(model="baseline") == {"mf", "mf-global"}
    assert possible(model="dsa-local") == {x + y for x in whole for y in ("", "-local")}
    with pytest.raises(ValueError, match="features must be one of mf"):
        check_features(TrainConfig(data="d", out="o"), "f")


def test_branches_are_halves_of_the_whole(tiny_store, tiny_data):
    store, run = open_store(tiny_store), untrained(tiny_data)
    split = store.select(GALLERY, iuv=True)
    for stream in ("mf", "fused", "guide"):
        whole, first, second = (
            compute_features(run, split, stream + x, 4) for x in ("", "-global", "-local")
        )
        assert torch.equal(torch.cat([first, second], 1), whole) and whole.shape == (len(split), 512)
    pooled = untrained(tiny_data, guidance="pool")
    f, parts, both = (compute_features(pooled, split, x, 4) for x in ("mf", "guide", "fused"))
    assert parts.any() and torch.equal(torch.cat([f, parts], 1), both)
    alone = untrained(tiny_data, model="dsa-global")
    assert torch.equal(
        compute_features(alone, split, "mf-global", 4), compute_features(alone, split, "mf", 4)
    )


@pytest.mark.parametrize("guide_input", ["part-images", "part-crops", "image-patches"])
def test_batches_change_nothing(tiny_store, tiny_data, guide_input):
    store, run = open_store(tiny_store), untrained(tiny_data, guide_input=guide_input)
    split = store.select(GALLERY, iuv=True)
    torch.testing.assert_close(
        compute_features(run, split, "guide", 1), compute_features(run, split, "guide", 64)
    )


def test_patches_are_matched_without_maps(own_data, tmp_path):
    shutil.rmtree(own_data / "iuv")
    store = pack(own_data, tmp_path / "store")
    match(untrained(own_data, guide_input="image-patches"), store, ["guide"])
    with pytest.raises(DSAError, match="map"):
        match(untrained(own_data), store, ["guide"])


def test_branches_are_matched_as_if_alone(tiny_store, tiny_data):
    store, run = open_store(tiny_store), untrained(tiny_data)
    names = ["fused", "fused-global", "fused-local", "mf-local"]
    together = match(run, store, names)
    for name in names:
        assert torch.equal(together[name].cmc, match(run, store, [name])[name].cmc)
        assert together[name].mAP == match(run, store, [name])[name].mAP


def test_every_image_a_query(tiny_store, tiny_data):
    """Each test image with an identity, against all others; the rule of cameras leaves itself out."""
    store, run = open_store(tiny_store), untrained(tiny_data)
    found = match(run, store, ["mf"], every=True)["mf"]
    splits = [store.select(name, iuv=False) for name in (QUERY, GALLERY)]
    features = torch.cat([compute_features(run, split, "mf", 8) for split in splits])
    ids, cams = (torch.cat([torch.from_numpy(getattr(x, y)) for x in splits]) for y in ("ids", "cams"))
    known = ids > 0
    expected = rank(features[known], features, ids[known], ids, cams[known], cams)
    assert known.sum() == len(ids) - 1 == len(found.queries) and found.mAP == expected.mAP


def multi_query_data(root, add_person):
    """Two more images of each query's person from its camera, and one from another camera."""
    for identity in (5, 6):
        for shot, camera in enumerate((3, 3, 1)):
            name = f"{identity:04d}_c{camera}s1_00000{shot}_00"
            add_person(root, "gt_bbox", name, 50 + 10 * identity + shot, 40 * identity)
    return root


def test_multi_query_averages_over_a_persons_images_from_one_camera(own_data, add_person, tmp_path):
    root = multi_query_data(own_data, add_person)
    store, run = pack(root, tmp_path / "store", protocol="multi-query"), untrained(root)
    found = query_features(run, store, "mf", 4)
    more = store.select("gt_bbox", iuv=False)
    assert len(more) == 4 and set(more.cams) == {3}
    features = compute_features(run, more, "mf", 4)
    for row, identity in enumerate(store.select(QUERY, iuv=False).ids):
        torch.testing.assert_close(found[row], features[torch.from_numpy(more.ids == identity)].mean(0))
    plain = pack(root, tmp_path / "plain")
    assert not torch.allclose(query_features(run, plain, "mf", 4), found)


def test_a_query_without_further_images(own_data, add_person, tmp_path):
    root = multi_query_data(own_data, add_person)
    for path in (root / "gt_bbox").glob("0006_c3*"):
        path.unlink()
    store = pack(root, tmp_path / "store", protocol="multi-query")
    with pytest.raises(DSAError, match="gt_bbox has no image of the identity and camera of query/0006_c3"):
        query_features(untrained(root), store, "mf", 4)


def test_distractors_join_the_gallery(own_data, add_person, tmp_path, monkeypatch):
    for number in range(3):
        add_person(own_data, "images", f"{number:08d}", number, 90)
    run = untrained(own_data)
    monkeypatch.setattr("dsareid.evaluation.evaluate_run.load_run", lambda *_: run)
    run.folder = RunFolder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    run.data |= {"dataset": "Market-1501", "protocol": ""}
    sizes = [evaluate(tmp_path / "run", protocol=name).gallery for name in ("", "distractors")]
    assert sizes[1] == sizes[0] + 3
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {"evaluation.json", "evaluation-distractors.json"}
    with pytest.raises(DSAError, match="no such protocol"):
        evaluate(tmp_path / "run", protocol="trial-7")


def test_people_who_were_trained_on_are_not_tested(tmp_path, monkeypatch):
    """Another split of CUHK01 has some of them in its test; other data may be split as they are."""
    root = tmp_path / "CUHK01"
    (root / "campus").mkdir(parents=True)
    for identity in range(1, 9):
        for shot in range(1, 5):
            image = Image.new("RGB", (16, 32), (30 * identity, 9 * shot, 0))
            image.save(root / f"campus/{identity:04d}00{shot}.png")
    run = untrained(root, protocol="485-s0")
    run.data |= {"dataset": "CUHK01", "protocol": "485-s0"}
    monkeypatch.setattr("dsareid.evaluation.evaluate_run.load_run", lambda *_: run)
    run.folder = RunFolder(tmp_path / "run")
    (tmp_path / "run").mkdir()
    evaluate(tmp_path / "run")
    with pytest.raises(DSAError, match="split by protocol 485-s1, but the network was trained on 485-s0"):
        evaluate(tmp_path / "run", protocol="485-s1")
    store = pack(root, tmp_path / "store", protocol="485-s1").path
    with pytest.raises(DSAError, match="split by protocol 485-s1, but the network was trained on 485-s0"):
        evaluate(tmp_path / "run", store)
    run.data["dataset"] = "Market-1501"
    evaluate(tmp_path / "run", store)


@pytest.mark.parametrize(
    "changes, name",
    [
        ({}, "DSA-reID"),
        ({"guidance": "distill"}, "DSA-reID (distill)"),
        ({"guide_input": "part-crops"}, "DSA-reID (part-crops)"),
        ({"model": "dsap"}, "DSAP-images alone"),
        ({"model": "two-branch", "guide_input": "part-crops"}, "two-branch"),
    ],
)
def test_a_network_is_called_what_it_is(tiny_data, tmp_path, monkeypatch, changes, name):
    run = untrained(tiny_data, **changes)
    monkeypatch.setattr("dsareid.evaluation.evaluate_run.load_run", lambda *_: run)
    run.folder = RunFolder(tmp_path)
    assert evaluate(tmp_path).rows[0].name == name
