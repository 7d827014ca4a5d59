"""evaluate on a small data set, with a stand-in for the trained network."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dsa_ext import iuv_to_dsap
from dsareid.data.images import read_image
from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.data.store.pack import pack
from dsareid.evaluation import evaluate, evaluate_run
from dsareid.evaluation.baselines import colour_histograms
from dsareid.ground.errors import DSAError
from dsareid.models.options import MEAN, STD
from dsareid.runs.config import TrainConfig
from dsareid.runs.folder import RunFolder
from dsareid.runs.records import EvaluatedAt, read_evaluation

HEIGHT, WIDTH = 48, 32


class MeanColour(torch.nn.Module):
    """Embeds an image by its mean colour, and a DSAP by its own."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, image):
        return image.mean((2, 3)) * self.scale

    def fused(self, image, dsap):
        return torch.cat([self(image), dsap.mean((1, 3, 4))], 1)


@pytest.fixture
def data(tmp_path):
    """6 identities of 6 colours, 1 query and 2 gallery images each, and a distractor."""
    root = tmp_path / "data"
    draw = np.random.default_rng(0)
    for split, cameras in (("query", [1]), ("bounding_box_test", [1, 2, 3])):
        (root / split).mkdir(parents=True)
        (root / "iuv" / split).mkdir(parents=True)
        for identity in range(0 if split != "query" else 1, 7):
            for camera in cameras:
                stem = f"{identity:04d}_c{camera}s1_000001_00"
                colour = 30 * identity + draw.integers(0, 20, (HEIGHT, WIDTH, 3))
                Image.fromarray(colour.astype(np.uint8)).save(root / split / f"{stem}.png")
                iuv = draw.integers(0, 25, (HEIGHT, WIDTH, 3)).astype(np.uint8)
                write_iuv(root / "iuv" / split / f"{stem}.png", iuv)
    return root


@pytest.fixture
def run(tmp_path, data, monkeypatch):
    def load_run(run, device):
        config = TrainConfig(data=data, out=run, height=HEIGHT, width=WIDTH, dsap_size=8, epochs=3)
        return SimpleNamespace(
            folder=RunFolder(run), config=config, model=MeanColour().eval(), epoch=3, step=42, data={}
        )

    monkeypatch.setattr(evaluate_run, "load_run", load_run)
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("features, file", [("mf", "evaluation.json"), ("fused", "evaluation-fused.json")])
def test_what_is_written(run, data, features, file):
    evaluation = evaluate(run, features=features, batch_size=4)
    assert read_evaluation(run / file) == evaluation
    assert [path.name for path in run.iterdir()] == [file]
    assert evaluation.queries == 6 and evaluation.skipped == 0
    assert evaluation.gallery == 21 and evaluation.checkpoint == EvaluatedAt(epoch=3, step=42)
    assert evaluation.data == str(data)
    (model,) = evaluation.rows
    assert model.name == ("DSA-reID" if features == "mf" else "DSA-reID, fused")
    assert [row.name for row in evaluation.baselines] == [
        "colour histograms, balanced",
        "colour histograms",
        "chance",
    ]
    for row in (model, *evaluation.baselines):
        assert len(row.cmc) == 50 and 0 <= row.mAP <= 1
        assert [row.rank(1), row.rank(5), row.rank(10)] == [row.cmc[k] for k in (0, 4, 9)]
    if features == "mf":
        assert model.mAP == 1


def test_a_line_for_each_query(run, tmp_path):
    path = tmp_path / "queries.jsonl"
    evaluation = evaluate(run, queries=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == evaluation.queries and list(lines[0]) == [
        "query",
        "identity",
        "camera",
        "ap",
        "inp",
        "first",
    ]
    assert np.mean([line["ap"] for line in lines]) == pytest.approx(evaluation.rows[0].mAP)
    assert np.mean([line["inp"] for line in lines]) == pytest.approx(evaluation.rows[0].mINP)
    assert np.mean([line["first"] == 1 for line in lines]) == pytest.approx(evaluation.rows[0].rank(1))
    with pytest.raises(DSAError, match="q.jsonl"):
        evaluate(run, queries=tmp_path / "no/where/q.jsonl")


def test_own_labels_are_words_and_unknown_cameras_are_none(run, data, tmp_path):
    """Not the numbers that stand for them in a store; of a store alone nothing else is known."""
    own = tmp_path / "own"
    for split, name in (("query", "query"), ("bounding_box_test", "gallery")):
        for file in (data / split).iterdir():
            if not file.name.startswith("0000"):
                folder = own / name / f"person {int(file.name[:4])}"
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{file.stem.replace('_c', '-')}.png").write_bytes(file.read_bytes())
    path = tmp_path / "queries.jsonl"
    lists = evaluate(run, own, queries=path).rank_lists
    assert {entry.identity for entry in lists} == {f"person {k}" for k in range(1, 7)}
    assert all(answer.identity.startswith("person ") for entry in lists for answer in entry.gallery)
    assert {answer.camera for entry in lists for answer in entry.gallery} == {None}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {(line["identity"], line["camera"]) for line in lines} == {
        (f"person {k}", None) for k in range(1, 7)
    }
    packed = pack(own, tmp_path / "packed")
    alone = evaluate(run, packed.path).rank_lists
    assert {entry.identity for entry in alone} == {str(k) for k in range(1, 7)}
    assert {entry.camera for entry in alone} == {None}


def test_a_network_below_colours_is_told(run, monkeypatch):
    assert evaluate_run.BELOW_COLOURS not in evaluate(run).notes

    def worst(self, image):
        return torch.rand(len(image), 3, generator=torch.Generator().manual_seed(1)) * self.scale

    monkeypatch.setattr(MeanColour, "forward", worst)
    evaluation = evaluate(run)
    assert evaluation.rows[0].mAP < evaluation.baselines[0].mAP
    assert evaluate_run.BELOW_COLOURS in evaluation.notes


def test_rank_lists(run):
    lists = evaluate(run).rank_lists
    assert len(lists) == 6
    assert [entry.ap for entry in lists] == sorted((entry.ap for entry in lists), reverse=True)
    for entry in lists:
        assert entry.query.startswith("query/") and len(entry.gallery) == 10
        distances = [answer.distance for answer in entry.gallery]
        assert distances == sorted(distances)
        for answer in entry.gallery:
            assert answer.right == (answer.identity == entry.identity)
            assert (answer.identity, answer.camera) != (entry.identity, entry.camera)


def test_reranked_beside_the_plain_evaluation(run):
    plain = evaluate(run)
    evaluation = evaluate(run, rerank=True)
    assert {path.name for path in run.iterdir()} == {"evaluation.json", "evaluation-reranked.json"}
    assert read_evaluation(run / "evaluation.json") == plain
    assert read_evaluation(run / "evaluation-reranked.json") == evaluation
    assert evaluation.reranked and not plain.reranked
    assert evaluation.rows[0].name == "DSA-reID, re-ranked"
    assert evaluation.rows[1:] == plain.rows and evaluation.baselines == plain.baselines
    for entry in evaluation.rank_lists:
        distances = [answer.distance for answer in entry.gallery]
        assert distances == sorted(distances) and 0 <= distances[0] and distances[-1] <= 1
    assert evaluation.rank_lists != plain.rank_lists
    evaluate(run, features="fused", rerank=True)
    assert (run / "evaluation-fused-reranked.json").exists()


def test_batches_change_nothing(run):
    assert evaluate(run, batch_size=1).rows == evaluate(run, batch_size=100).rows


def test_fused_needs_iuv_and_says_so(run, data):
    missing = next((data / "iuv" / "query").iterdir())
    missing.unlink()
    evaluate(run)
    with pytest.raises(DSAError, match=f"{missing.name}.*fused features need the IUV"):
        evaluate(run, features="fused")
    assert not (run / "evaluation-fused.json").exists()


def test_fused_needs_a_dsa_model(run, monkeypatch):
    loaded = evaluate_run.load_run(run, "cpu")
    loaded.config = replace(loaded.config, model="two-branch")
    monkeypatch.setattr(evaluate_run, "load_run", lambda run, device: loaded)
    assert evaluate(run).rows[0].name == "two-branch"
    with pytest.raises(DSAError, match="fused features need two streams"):
        evaluate(run, features="fused")


def test_no_query_with_a_match(run, data):
    for path in (data / "bounding_box_test").iterdir():
        if "_c1" not in path.name:
            path.unlink()
    with pytest.raises(DSAError, match="no query has a match"):
        evaluate(run)


def test_features_that_are_not_finite(run, monkeypatch):
    loaded = evaluate_run.load_run(run, "cpu")
    loaded.model.scale.data.fill_(float("nan"))
    monkeypatch.setattr(evaluate_run, "load_run", lambda run, device: loaded)
    with pytest.raises(DSAError, match="cannot be ranked.*NaN"):
        evaluate(run)
    assert not list(run.iterdir())


def test_wrong_arguments(run):
    with pytest.raises(ValueError, match="features must be"):
        evaluate(run, features="z")
    with pytest.raises(DSAError, match="`batch_size` must be at least 1, not 0"):
        evaluate(run, batch_size=0)


def test_an_unfinished_run_is_noted(run, caplog, monkeypatch):
    loaded = evaluate_run.load_run(run, "cpu")
    loaded.epoch = 2
    monkeypatch.setattr(evaluate_run, "load_run", lambda *_: loaded)
    evaluate_run.evaluate(run)
    assert "has trained 2 of 3 epochs" in caplog.text


def test_a_store_in_place_of_the_folder(run, data, tmp_path):
    expected = evaluate(run, features="fused")
    store = pack(data, tmp_path / "store").path
    data.rename(tmp_path / "gone")
    assert evaluate(run, store, features="fused") == expected.model_copy(update={"data": str(store)})


def test_the_folder_is_packed_once(run, data, caplog):
    caplog.set_level("INFO", "dsareid")
    evaluate(run)
    assert "packed /" in caplog.text and (data / f"store-{HEIGHT}x{WIDTH}").is_dir()
    caplog.clear()
    evaluate(run)
    assert "packed /" not in caplog.text


def test_what_the_network_sees(run, data, monkeypatch):
    """The image as Pillow resizes it and the DSAP-images of the whole file, both normalised."""
    loaded = evaluate_run.load_run(run, "cpu")
    loaded.config = replace(loaded.config, height=32, width=32)
    seen = []
    loaded.model.fused = lambda image, dsap: seen.append((image, dsap)) or image.mean((2, 3))
    monkeypatch.setattr(evaluate_run, "load_run", lambda *_: loaded)
    evaluate(run, features="fused", batch_size=6)
    name = sorted(path.name for path in (data / "query").iterdir())[0]
    pixels, iuv = read_image(data / "query" / name), read_iuv(data / "iuv/query" / name)
    small = np.array(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    image, dsap = seen[0]
    assert torch.equal(image[0], (torch.from_numpy(small).permute(2, 0, 1) / 255 - mean) / std)
    arrays = (torch.from_numpy(x).permute(2, 0, 1)[None] for x in (pixels, iuv))
    assert torch.equal(dsap[:1], iuv_to_dsap(*arrays, size=8, dtype=torch.float32, mean=MEAN, std=STD))


def test_colours_in_slices_are_those_of_the_whole(run, data, monkeypatch):
    split = pack(data, data / "store-1x1").select("bounding_box_test", iuv=False)
    monkeypatch.setattr(evaluate_run, "_SLICE", 4)
    whole = colour_histograms(torch.from_numpy(split.store.images[split.rows]))
    assert torch.equal(evaluate_run._colours(split, balanced=False), whole)


def test_a_store_that_changes_meanwhile(run, data, tmp_path, monkeypatch):
    store = pack(data, tmp_path / "store").path
    loaded = evaluate_run.load_run(run, "cpu")

    class Meddler(MeanColour):
        def forward(self, image):
            batches.append(len(image))
            (store / "images.npy").touch()
            return super().forward(image)

    batches, loaded.model = [], Meddler()
    monkeypatch.setattr(evaluate_run, "load_run", lambda *_: loaded)
    with pytest.raises(DSAError, match="images.npy: changed while it was being read"):
        evaluate(run, store, batch_size=4)
    assert len(batches) == 1 and not list(run.iterdir())
