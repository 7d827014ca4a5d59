"""Maps by BodyPix: by a tiny network, and by the real one where its weights are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tfjs_files import SHARD, write_bodypix

from dsareid.data.iuv import flip_iuv
from dsareid.densepose import load_estimator
from dsareid.densepose.estimators import bodypix, weights
from dsareid.densepose.estimators.body_parts import PARTS, mirror_heads
from dsareid.densepose.estimators.bodypix import BodyPix
from dsareid.densepose.estimators.tfjs import GraphModel, read_graph, read_weights
from dsareid.ground.errors import DSAError


def picture(height=40, width=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_parts_are_a_permutation():
    assert sorted(PARTS) == list(range(1, 25))
    heads = torch.rand(73, 5, 7)
    assert torch.allclose(mirror_heads(mirror_heads(heads)), heads, atol=1e-6)


def test_a_map_is_of_the_pictures_size(tiny_bodypix):
    found = BodyPix(tiny_bodypix, "cpu")(picture())
    assert found.iuv.shape == (40, 24, 3) and found.iuv.dtype == np.uint8 and found.iuv[..., 0].max() <= 24
    assert found.uv.shape == (2, 40, 24) and found.uv.dtype == np.float32 and 0 <= found.probability <= 1
    body = found.iuv[..., 0] > 0
    assert body.any() and not found.iuv[~body].any() and not found.uv[:, ~body].any()
    assert np.array_equal(np.floor(255 * found.uv).astype(np.uint8), found.iuv[..., 1:].transpose(2, 0, 1))


def test_the_mirrored_picture_has_the_mirrored_map(tiny_bodypix):
    """Charts, their lines and left and right: all go with it."""
    estimator, image = BodyPix(tiny_bodypix, "cpu"), picture(48, 48)
    one, other = estimator(image).iuv, estimator(np.ascontiguousarray(image[:, ::-1])).iuv
    expected = flip_iuv(one)
    same = expected[..., 0] == other[..., 0]
    assert same.mean() > 0.99  # where two scores are next to equal rounding decides
    assert abs(expected[same].astype(int) - other[same])[expected[same][:, 0] > 0].max() <= 1


def test_maps_have_the_same_bits_whatever_is_beside_them(tiny_bodypix):
    estimator = BodyPix(tiny_bodypix, "cpu")
    images = [picture(40, 24, seed) for seed in range(3)] + [picture(31, 57)]
    alone = [estimator(image).iuv for image in images]
    again = [found.iuv for found in load_estimator(weights=tiny_bodypix, device="cpu")(images[::-1])][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(alone, again))


def test_pictures_of_any_kind(tiny_bodypix, tmp_path):
    estimator, image = load_estimator(weights=tiny_bodypix, device="cpu"), picture()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    expected = estimator(image).iuv
    kinds = [
        str(tmp_path / "a.png"),
        tmp_path / "a.png",
        Image.open(tmp_path / "a.png"),
        torch.from_numpy(image),
    ]
    for kind in [*kinds, image[::-1][::-1]]:
        assert np.array_equal(estimator(kind).iuv, expected)
    assert [np.array_equal(found.iuv, expected) for found in estimator(np.stack([image] * 2))] == [True] * 2
    for wrong in (5, [5], image.astype(float), image[..., :2], Image.new("I;16", (4, 4))):
        with pytest.raises(ValueError, match="pictures? must"):
            estimator(wrong)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 300), (700, 3), (900, 700)])
def test_pictures_of_odd_sizes(tiny_bodypix, height, width):
    assert BodyPix(tiny_bodypix, "cpu")(picture(height, width)).iuv.shape == (height, width, 3)


def test_one_of_several_people(tiny_bodypix, monkeypatch):
    """What belongs to others becomes background, and its share is told."""
    image = picture(300, 200)
    every = BodyPix(tiny_bodypix, "cpu")(image)
    asked = {}

    def left(body, toward):
        asked["ways"] = toward
        whose = body.long()
        whose[:, 100:] *= 2
        return whose

    monkeypatch.setattr(bodypix, "tell_apart", left)
    found = BodyPix(tiny_bodypix, "cpu", people="one")(image)
    assert asked["ways"].shape == (2, 300, 200) and asked["ways"].isfinite().all()
    assert np.array_equal(found.iuv[:, :100], every.iuv[:, :100]) and not found.iuv[:, 100:].any()
    again = BodyPix(tiny_bodypix, "cpu")(image)
    assert np.array_equal(again.iuv, every.iuv) and found.instances is None
    assert np.array_equal(again.instances, (every.iuv[..., 0] > 0) * np.where(np.arange(200) < 100, 1, 2))
    share = (every.iuv[:, 100:, 0] > 0).sum() / (every.iuv[..., 0] > 0).sum()
    assert found.others == pytest.approx(share) and every.others == 0
    with pytest.raises(ValueError, match="people must be one of all, one, not 'two'"):
        BodyPix(tiny_bodypix, "cpu", people="two")


def test_nobody_is_all_background(tiny_bodypix, monkeypatch):
    monkeypatch.setattr(bodypix, "NOBODY", 1.1)
    found = BodyPix(tiny_bodypix, "cpu")(picture())
    assert not found.iuv.any() and not found.uv.any()


def test_what_cannot_be_loaded(tiny_bodypix, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="quality must be one of default, best, not 'good'"):
        BodyPix(tiny_bodypix, "cpu", "good")
    with pytest.raises(
        DSAError, match="model-stride16.json: no such file; put model-stride16.json and group1"
    ):
        BodyPix(tmp_path / "nowhere", "cpu")
    write_bodypix(tmp_path / "other", seed=4)
    with pytest.raises(DSAError, match="model-stride16.json: the graph of another network than BodyPix 2.0"):
        BodyPix(tmp_path / "other", "cpu")  # whose weights are stored with other steps
    shard = tiny_bodypix / SHARD
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(
        DSAError, match="group1-shard1of1.bin: not the weights of BodyPix 2.0.*: its SHA-256 is"
    ):
        BodyPix(tiny_bodypix, "cpu")
    monkeypatch.setenv(weights.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(
        DSAError, match=f"nowhere/model-stride16.json: .*set the environment variable {weights.VARIABLE}"
    ):
        BodyPix(None, "cpu")


def test_weights_are_fetched_once(tiny_bodypix, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "ORIGIN", f"{tiny_bodypix.as_uri()}/")
    expected = BodyPix(tiny_bodypix, "cpu")(picture()).iuv
    assert np.array_equal(BodyPix(None, "cpu")(picture()).iuv, expected)
    monkeypatch.setattr(weights, "ORIGIN", "file:///nowhere/")
    assert np.array_equal(BodyPix(None, "cpu")(picture()).iuv, expected)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(
        DSAError, match="cannot fetch file:///nowhere/model-stride16.json .*; put model-stride16"
    ):
        BodyPix(None, "cpu")
    left = [path for path in (tmp_path / "empty").rglob("*") if path.is_file()]
    assert left == []


# ---- the real network, on real photographs ----

REAL, WEIGHTS = os.environ.get("DSA_REAL"), os.environ.get("REAL_BODYPIX")
needs_real = pytest.mark.skipif(
    not REAL or not WEIGHTS, reason="DSA_REAL and DSAREID_BODYPIX do not name real files and weights"
)


@needs_real
@pytest.mark.parametrize("rows, least, most", [(None, (0.83, 0.87), 0.045), (128, (0.80, 0.855), 0.047)])
def test_maps_are_near_denseposes(rows, least, most, monkeypatch):
    """Means over five photographs, whose lines these are; studies/estimator leaves each out in turn."""
    monkeypatch.syspath_prepend(Path(__file__).parents[4] / "studies/estimator")
    import run

    monkeypatch.setattr(run, "REAL", Path(REAL))
    pairs = run.estimate(BodyPix(WEIGHTS, "cpu"), run.photographs(rows))
    overlap, right, u, v = np.mean([run.scores(pair) for pair in pairs], 0)
    assert overlap >= least[0] and right >= least[1] and max(u, v) <= most


@needs_real
def test_one_person_stays_whole(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[4] / "studies/estimator")
    import run

    monkeypatch.setattr(run, "REAL", Path(REAL))
    estimator = BodyPix(WEIGHTS, "cpu", people="one")
    assert all(estimator(photograph.image).others == 0 for photograph in run.photographs(128))


@needs_real
def test_the_graph_of_stride_8_is_read_too():
    """Its heads are those of stride 16 at twice the resolution."""
    image = torch.from_numpy(np.array(Image.open(Path(REAL, "pairs/stool.jpg")).resize((257, 257))))
    scaled = image.permute(2, 0, 1)[None] / 127.5 - 1
    masks = []
    for stride in (16, 8):
        graph = read_graph(Path(WEIGHTS, f"model-stride{stride}.json"))
        nodes = {node.name: node for node in graph.modelTopology.node}
        network = GraphModel(nodes, read_weights(graph, Path(WEIGHTS)), ["float_segments"])
        masks.append(network(scaled)["float_segments"][0, 0] > 0)
    coarse, fine = masks
    assert fine.shape == (33, 33) and (coarse == fine[::2, ::2]).float().mean() > 0.9


@needs_real
def test_hardly_any_crop_is_empty():
    estimator = load_estimator(weights=WEIGHTS, device="cpu")
    crops = sorted(Path(REAL, "pku").rglob("*.png"))[::24]
    seen = [(estimator(crop).iuv[..., 0] > 0).mean() for crop in crops]
    assert np.mean(np.array(seen) < 0.15) <= 0.02 and np.mean(seen) > 0.3
