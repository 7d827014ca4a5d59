"""Searching images by images, and a picture of what was found."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from runs import HEIGHT, WIDTH, make_run

from dsareid.commands.main import main
from dsareid.data.images import read_image
from dsareid.ground.errors import DSAError
from dsareid.inference import search as search_module
from dsareid.inference.calibrate import CALIBRATION, calibrate
from dsareid.inference.embedder import embed
from dsareid.inference.extract import extract
from dsareid.inference.search import draw_lists, format_list, search


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("search") / "run")


@pytest.fixture(scope="module")
def gallery(tiny_data):
    return tiny_data / "bounding_box_test"


@pytest.fixture(scope="module")
def features(run, gallery, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "out"
    extract(run, gallery, out, device="cpu")
    return out


@pytest.fixture(scope="module")
def query(tiny_data):
    return sorted((tiny_data / "query").iterdir())[0]


def test_folders_of_images_and_of_features_agree(run, gallery, features, query):
    by_images, by_features = (search(run, query, where, 5, "cpu")[0] for where in (gallery, features))
    assert [match.file for match in by_images.matches] == [match.file for match in by_features.matches]
    assert by_features.identity == "5" and len(by_features.matches) == 5
    embedder = embed(run, "cpu")

    def features_of(file):
        return embedder(file)[0]

    files = sorted(path for path in gallery.iterdir())
    expected = torch.stack([(features_of(file) - features_of(query)).norm() for file in files])
    for match, distance in zip(by_features.matches, expected.sort(stable=True).values.tolist()):
        assert match.distance == pytest.approx(distance, abs=1e-5)
    assert [match.file for match in by_features.matches] == [files[k] for k in expected.argsort()[:5]]


def test_the_query_finds_itself(run, features, gallery):
    for found in search(run, gallery, features, 1, "cpu"):
        assert found.matches[0].file == found.file and found.matches[0].distance < 1e-5


def test_command(run, features, gallery, query, tmp_path, capsys):
    arguments = ["search", str(run), str(query), str(features), "--count", "3", "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "list.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{query}, identity 5" and lines[1].split() == ["rank", "distance", "identity", "file"]
    assert len(lines) == 6 and lines[2].split()[0] == "1" and str(gallery) in lines[2]
    picture = Image.open(tmp_path / "list.png").convert("RGB")
    assert picture.size[0] > 4 * 96 and 192 < picture.size[1] < 300
    # The query stands at the left, its colours are there.
    shown = np.asarray(picture.crop((10, 10, 106, 202)).resize((WIDTH, HEIGHT))).astype(int)
    assert abs(shown - read_image(query).astype(int)).mean() < 20


def test_a_folder_of_queries(run, features, tiny_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(search_module, "PICTURED", 1)
    arguments = ["search", str(run), str(tiny_data / "query"), str(features), "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "lists.jpg")]) == 0
    assert capsys.readouterr().out.count("rank  distance") == 2
    assert Image.open(tmp_path / "lists.jpg").size[1] < 300


def test_names_that_say_nothing(run, tiny_data, tmp_path, capsys):
    (tmp_path / "g").mkdir()
    for k, path in enumerate(sorted((tiny_data / "query").iterdir())):
        (tmp_path / f"g/photo {k}.png").write_bytes(path.read_bytes())
    out, folder = tmp_path / "list.png", tmp_path / "g"
    assert main(["search", str(run), str(folder / "photo 0.png"), str(folder), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("photo 0.png") and lines[2].split()[1] == "0.0000" and out.exists()


def test_features_of_another_model(features, query, tmp_path):
    other = make_run(tmp_path / "other", seed=1)
    with pytest.raises(DSAError, match="out: features of model .*, but .*other is model .*cannot be"):
        search(other, query, features, device="cpu")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["{run}", "{notes}", "{features}"], "notes.txt: not readable as an image"),
        (["{run}", "{tmp}/nobody.jpg", "{features}"], "nobody.jpg: no such file"),
        (["{run}", "{tmp}", "{features}"], "no images in it or below"),
        (["{run}", "{query}", "{tmp}"], "no images in it or below"),
        (["{run}", "{query}", "{tmp}/nowhere"], "nowhere: no such file"),
        (["{tmp}", "{query}", "{features}"], "not a run's folder"),
        (["{run}", "{query}", "{features}", "--count", "0"], "--count must be at least 1, not 0"),
        (["{run}", "{query}", "{features}", "--out", "{tmp}/list.txt"], "the name must end in .bmp, .jpeg"),
    ],
)
def test_bad_arguments(run, features, query, tmp_path, capsys, arguments, words):
    notes = tmp_path / "notes.txt"
    notes.write_text("no image")
    places = {"run": run, "features": features, "query": query, "tmp": tmp_path, "notes": notes}
    arguments = [argument.format(**places) for argument in arguments]
    if "--out" not in arguments:
        arguments += ["--out", str(tmp_path / "list.png")]
    assert main(["search", *arguments, "--device", "cpu"]) == 1
    assert words in capsys.readouterr().err and list(tmp_path.iterdir()) == [notes]


def test_a_gallery_image_that_is_gone(run, features, query, tmp_path):
    with pytest.raises(DSAError, match="`count` must be at least 1, not 0"):
        search(run, query, features, 0)
    copied = tmp_path / "features"
    copied.mkdir()
    for path in features.iterdir():
        text = path.read_bytes()
        (copied / path.name).write_bytes(text.replace(b"bounding_box_test", b"bounding_box_gone"))
    arguments = ["search", str(run), str(query), str(copied), "--device", "cpu"]
    assert main(arguments) == 0  # the list needs the features alone
    assert main([*arguments, "--out", str(tmp_path / "list.png")]) == 1
    assert not (tmp_path / "list.png").exists()


def test_a_calibration_of_the_other_kind(run, features, query, tmp_path, caplog):
    copied = shutil.copytree(features, tmp_path / "features")
    calibrate(copied)
    search(run, query, copied, 3, "cpu")
    assert "learned from" not in caplog.text
    saved = json.loads((copied / CALIBRATION).read_text())
    (copied / CALIBRATION).write_text(json.dumps({**saved, "tracks": True}))
    search(run, query, copied, 3, "cpu")
    assert "learned from tracks, but some of these distances are of single pictures" in caplog.text


@pytest.mark.parametrize(
    "name, words", [("0000_c1s1_000000_00", "distractor"), ("-1_c1s1_000000_00", "junk")]
)
def test_nobody_is_found_right(run, gallery, features, tmp_path, name, words):
    """0 is as little a person as -1 is, though 0 equals 0."""
    query = gallery / f"{name}.png"
    (found,) = search(run, query, features, 3, "cpu")
    assert found.matches[0].file == query and found.matches[0].identity == found.identity
    assert format_list(found).startswith(f"{query}, {words}\n")
    green = np.array(ImageColor.getrgb(search_module._RIGHT))
    assert not (np.asarray(draw_lists([found])) == green).all(-1).any()
    (person,) = search(run, sorted(gallery.iterdir())[-1], features, 3, "cpu")
    assert (np.asarray(draw_lists([person])) == green).all(-1).any()


def test_identities_are_those_of_the_data_set(run, tiny_data, tmp_path, capsys):
    for folder, name in (
        ("gallery/anna", "0001_c2.png"),
        ("gallery/bob", "0001_c3.png"),
        ("query/anna", "a.png"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(next((tiny_data / "query").iterdir()), tmp_path / folder / name)
    arguments = [str(run), str(tmp_path / "query/anna/a.png"), str(tmp_path / "gallery"), "--device", "cpu"]
    assert main(["search", *arguments]) == 0
    query, _, first, second = capsys.readouterr().out.splitlines()
    assert (
        query.endswith("a.png, identity anna") and first.split()[2] == "anna" and second.split()[2] == "bob"
    )


@pytest.mark.parametrize("out", ["nowhere/list.png", "notes/list.png", "."])
def test_an_impossible_picture_is_refused_before_the_search(
    run, query, gallery, tmp_path, capsys, out, monkeypatch
):
    (tmp_path / "notes").touch()
    monkeypatch.setattr(search_module, "embed", None)
    picture = str(tmp_path / out) if out != "." else str(tmp_path)
    assert main(["search", str(run), str(query), str(gallery), "--out", picture]) == 1
    assert "dsareid search: error: " in capsys.readouterr().err
