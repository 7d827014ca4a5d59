"""Features of a folder: those of `dsareid eval`, whatever happens on the way."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from runs import make_run

from dsareid.commands.main import main
from dsareid.data.layouts.base import GALLERY
from dsareid.data.store.pack import pack
from dsareid.evaluation import run_features as evaluation
from dsareid.ground.errors import DSAError
from dsareid.inference import extract as extract_module
from dsareid.inference import extraction, feature_parts
from dsareid.inference.embedder import embed
from dsareid.inference.extract import extract
from dsareid.inference.feature_folder import open_features
from dsareid.runs.folder import load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("extract") / "run")


@pytest.fixture
def images(tmp_path):
    """Ten images in folders, of several sizes, and files that are none."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for k in range(10):
        path = root / ("", "more", "more/yet more")[k % 3] / f"{k:04d}_c{k % 3 + 1}s1_000001_00.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = ((64, 32), (50, 40), (128, 64))[k % 3]
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    shutil.copy(root / "0000_c1s1_000001_00.png", root / "photo of a friend.JPG")
    for name in ("notes.txt", ".hidden.png"):
        (root / name).write_text("nothing")
    return root


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(feature_parts, "PART", 4)


def read(out):
    found = open_features(out)
    return {file: found.features[row].copy() for row, file in enumerate(found.files)}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", ["files of one size", "files of several sizes"])
def test_features_are_those_of_eval(own_data, tmp_path, size):
    """Of a network of another size than the files, so that both resize."""
    run = make_run(tmp_path / "net", data=own_data)
    run_of_96 = make_run(tmp_path / "net96", data=own_data)
    text = (run_of_96 / "config.json").read_text()
    (run_of_96 / "config.json").write_text(text.replace('"height": 64', '"height": 96'))
    if size == "files of several sizes":
        path = sorted((own_data / "bounding_box_test").iterdir())[-1]
        for place in (path, own_data / "iuv/bounding_box_test" / path.name):
            Image.open(place).resize((40, 90), Image.Resampling.NEAREST).save(place)
    for folder, height in ((run, 64), (run_of_96, 96)):
        out, loaded = tmp_path / f"features{height}", load_run(folder, "cpu")
        assert loaded.config.height == height
        store = pack(own_data, tmp_path / f"store{height}", default=(height, 32))
        split = store.select(GALLERY, iuv=False)
        expected = evaluation.compute_features(loaded, split, "mf", 64).numpy()
        extract(folder, own_data / "bounding_box_test", out, batch_size=64, device="cpu")
        found = open_features(out)
        rows = [found.files.index(name.rpartition("/")[2]) for name in split.names]
        np.testing.assert_allclose(found.features[rows], expected, rtol=0, atol=1e-6)
        labels = [tuple(map(int, found.labels[row])) for row in rows]
        assert labels == list(zip(split.ids.tolist(), split.cams.tolist()))


def test_what_is_written(run, images, tmp_path, capsys):
    assert main(["extract", str(run), str(images), str(tmp_path / "out"), "--device", "cpu"]) == 0
    model = embed(run, "cpu").model
    assert f"out: 11 x 512 features of model {model}" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "plan.json",
        "features.npy",
        "images.csv",
        "features.json",
        "skipped.txt",
    }
    found = open_features(tmp_path / "out")
    assert found.files == sorted(found.files) and len(found.files) == 11
    assert found.images == images.absolute() and found.model == model
    assert found.labels[found.files.index("photo of a friend.JPG")] == (None, None)
    with (tmp_path / "out/images.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert rows["more/yet more/0002_c3s1_000001_00.png"]["identity"] == "2"
    assert rows["photo of a friend.JPG"]["identity"] == ""
    assert main(["extract", str(run), str(images), str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "already done: 11 x 512" in capsys.readouterr().out


def test_parts_and_batches_change_nothing(run, images, tmp_path, small_parts):
    expected = None
    for batch_size in (1, 3, 64):
        extract(run, images, tmp_path / f"out{batch_size}", batch_size=batch_size, device="cpu")
        found = read(tmp_path / f"out{batch_size}")
        same(found, expected or found)
        expected = found


class Killed(BaseException):
    """As SIGKILL: nothing of ours may stop it or clean up behind it."""


def test_an_interrupted_call_resumes(run, images, tmp_path, small_parts, monkeypatch):
    extract(run, images, tmp_path / "whole", device="cpu")
    out, computed = tmp_path / "out", []

    def counting(model, device, trust, facts):
        embedder = embed(model, device, trust=trust, facts=facts)
        compute = embedder.compute

        def count(batch):
            computed.append(len(batch))
            return compute(batch)

        object.__setattr__(embedder, "compute", count)
        return embedder

    def one_alone(*arguments):
        (out / "parts/torn").write_bytes(b"half")
        if len(list((out / "parts").glob("0*.safetensors"))) == 1:
            raise Killed
        return save(*arguments)

    save = feature_parts.save
    monkeypatch.setattr(extraction, "embed", counting)
    monkeypatch.setattr(feature_parts, "save", one_alone)
    with pytest.raises(Killed):
        extract(run, images, out, batch_size=4, device="cpu")
    assert sum(computed) == 8 and not (out / "features.json").exists()
    computed.clear()
    monkeypatch.setattr(feature_parts, "save", save)
    monkeypatch.setattr(extract_module, "write_index", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):  # while the parts are joined
        extract(run, images, out, batch_size=4, device="cpu")
    assert sum(computed) == 7 and not (out / "features.json").exists()
    computed.clear()
    monkeypatch.undo()
    monkeypatch.setattr(feature_parts, "PART", 4)
    assert not extract(run, images, out, device="cpu").already
    assert not computed
    same(read(out), read(tmp_path / "whole"))


def test_a_damaged_part_is_made_again(run, images, tmp_path, small_parts, monkeypatch):
    monkeypatch.setattr(extract_module, "_join_parts", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        extract(run, images, tmp_path / "out", device="cpu")
    first, second, third = sorted((tmp_path / "out/parts").iterdir())
    first.write_bytes(first.read_bytes()[:-1])
    second.write_bytes(b"")
    third.unlink()
    monkeypatch.undo()
    monkeypatch.setattr(feature_parts, "PART", 4)
    extract(run, images, tmp_path / "out", device="cpu")
    extract(run, images, tmp_path / "whole", device="cpu")
    same(read(tmp_path / "out"), read(tmp_path / "whole"))


def break_images(images):
    (images / "more/0001_c2s1_000001_00.png").write_bytes(b"no image")
    whole = (images / "0009_c1s1_000001_00.png").read_bytes()
    (images / "0009_c1s1_000001_00.png").write_bytes(whole[: len(whole) // 2])


def test_broken_images(run, images, tmp_path, small_parts, capsys):
    expected = read(_extracted(run, images, tmp_path / "before"))
    break_images(images)
    arguments = ["extract", str(run), str(images), str(tmp_path / "out"), "--device", "cpu"]
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert "0009_c1s1_000001_00.png: not readable as an image" in err and "--skip-broken" in err
    assert main([*arguments, "--skip-broken"]) == 0
    out = capsys.readouterr().out
    assert "out: 9 x 512" in out and "2 images skipped" in out and "more/0001_c2" in out
    lines = (tmp_path / "out/skipped.txt").read_text().splitlines()
    assert len(lines) == 2 and "0009_c1s1" in lines[0] and "0001_c2s1" in lines[1]
    for name in ("more/0001_c2s1_000001_00.png", "0009_c1s1_000001_00.png"):
        del expected[name]
    same(read(tmp_path / "out"), expected)


def test_skipping_is_no_habit(run, images, tmp_path, small_parts, monkeypatch):
    """Parts that a call with --skip-broken made do not let one without it pass."""
    break_images(images)
    monkeypatch.setattr(extract_module, "_join_parts", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        extract(run, images, tmp_path / "out", device="cpu", skip_broken=True)
    with pytest.raises(DSAError, match="0009_c1s1_000001_00.png: not readable"):
        extract(run, images, tmp_path / "out", device="cpu")


def test_nothing_but_broken_images(run, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_text("none")
    with pytest.raises(DSAError, match="no image can be read; the first: .*a.jpg"):
        extract(run, tmp_path / "images", tmp_path / "out", device="cpu", skip_broken=True)


def _extracted(run, images, out):
    extract(run, images, out, device="cpu")
    return out


def test_out_that_is_something_else(run, images, tmp_path):
    out = _extracted(run, images, tmp_path / "out")
    other = make_run(tmp_path / "other", seed=1)
    with pytest.raises(DSAError, match="out: holds features of another model or other images: its model is"):
        extract(other, images, out, device="cpu")
    with pytest.raises(DSAError, match="its images is"):
        extract(run, images / "more", out, device="cpu")
    (images / "0000_c1s1_000001_00.png").touch()
    with pytest.raises(DSAError, match="files have been added, removed or changed since"):
        extract(run, images, out, device="cpu")
    with pytest.raises(DSAError, match="images: exists already and was not written by extract"):
        extract(run, images, images, device="cpu")
    (tmp_path / "file").write_text("")
    with pytest.raises(DSAError, match="file: exists already"):
        extract(run, images, tmp_path / "file", device="cpu")
    for text in ("{", "[]"):
        (out / "plan.json").write_text(text)
        with pytest.raises(DSAError, match="plan.json: not readable|holds features of another"):
            extract(run, images, out, device="cpu")


def test_names_that_are_no_text(run, images, tmp_path, capsys):
    name = os.fsdecode(b"\xff.png")
    shutil.copy(images / "0000_c1s1_000001_00.png", images / name)
    assert name in read(_extracted(run, images, tmp_path / "out"))
    (images / name).write_text("no image")
    found = extract(run, images, tmp_path / "other", device="cpu", skip_broken=True)
    assert found.images == 11 and name in found.skipped[0]


def test_a_dangling_link_is_an_image_that_cannot_be_read(run, images, tmp_path):
    (images / "gone.png").symlink_to("nowhere")
    with pytest.raises(DSAError, match="gone.png: no such file .*`skip_broken=True` leaves such images out"):
        extract(run, images, tmp_path / "out", device="cpu")
    found = extract(run, images, tmp_path / "out", device="cpu", skip_broken=True)
    assert found.images == 11 and len(found.skipped) == 1 and "gone.png" in found.skipped[0]


def test_a_folder_whose_name_is_no_text(run, images, tmp_path, capfd):
    """What is written can be read again, and printed where the terminal is strict."""
    place = images.rename(tmp_path / os.fsdecode(b"im\xffages"))
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "dsareid", "extract", run, place, tmp_path / "out", "--device", "cpu"]
    subprocess.run(command, check=True, env=environment)
    assert open_features(tmp_path / "out").images == place
    (place / "0000_c1s1_000001_00.png").rename(place / os.fsdecode(b"0000_c1s1_\xff.png"))
    command = [sys.executable, "-m", "dsareid", "search", run, place, tmp_path / "out", "--device", "cpu"]
    subprocess.run(command, check=True, env=environment)
    assert "im\\udcffages" in capfd.readouterr().out


def test_links_are_followed_and_hidden_folders_are_not(run, images, tmp_path, caplog):
    (images / "more").rename(tmp_path / "elsewhere")
    (images / "more").symlink_to(tmp_path / "elsewhere")
    for name in (".thumbnails", "@eaDir", "__MACOSX"):
        shutil.copytree(tmp_path / "elsewhere", images / name)
    assert extract(run, images, tmp_path / "out", device="cpu").images == 11
    assert "notes.txt is skipped: files of its kind are not read" in caplog.text


def make_identity_folders(data, root):
    """The people of a data set in folders, under names that begin with a frame."""
    folders = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    for split, folder in folders.items():
        for frame, path in enumerate(sorted((data / split).iterdir())):
            identity, camera = path.name.split("_")[:2]
            place = root / folder / (f"person {identity}" if int(identity) > 0 else identity)
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place / f"{frame % 3:04d}_{camera[:2]}_{frame}.png")
    return root


def test_ranking_gives_what_eval_gives(run, tiny_data, tmp_path, capsys):
    """An image has the identity that its data set gives it, whatever its name begins with."""
    root = make_identity_folders(tiny_data, tmp_path / "own")
    assert main(["eval", str(run), "--data", str(root), "--device", "cpu"]) == 0
    expected = capsys.readouterr().out.splitlines()
    for folder in ("query", "gallery"):
        extract(run, root / folder, tmp_path / folder, device="cpu")
    assert main(["rank", str(tmp_path / "query"), str(tmp_path / "gallery")]) == 0
    found = capsys.readouterr().out.splitlines()
    assert found[1].split()[-4:] == expected[1].split()[-4:]  # of the network
    assert found[2].split()[-4:] == expected[4].split()[-4:]  # chance
    labels = open_features(tmp_path / "gallery").labels
    assert {label.identity for label in labels} == {"-1", "0", "person 0005", "person 0006"}


def test_labels_that_are_not_known_are_told(run, tiny_data, tmp_path, caplog):
    root = make_identity_folders(tiny_data, tmp_path / "own")
    (root / "gallery").rename(tmp_path / "people")
    extract(run, tmp_path / "people", tmp_path / "out", device="cpu")
    assert "identity and camera of 10 of 10 images are not known, the first -1/0" in caplog.text


def test_maps_of_a_data_set_are_no_photographs(run, own_data, tmp_path):
    found = extract(run, own_data, tmp_path / "out", device="cpu")
    assert found.images == 28 and not any("iuv" in file for file in open_features(tmp_path / "out").files)


def test_labels_that_have_changed_since_are_told(run, tiny_data, tmp_path, caplog):
    root = make_identity_folders(tiny_data, tmp_path / "own")
    for _ in range(2):
        extract(run, root / "gallery", tmp_path / "out", device="cpu")
        assert "other labels" not in caplog.text
    table = tmp_path / "out/images.csv"
    table.write_text(table.read_text().replace("person 0005,1", "person 0006,1"))
    extract(run, root / "gallery", tmp_path / "out", device="cpu")
    assert "images.csv: labels that differ from the images' own: 2, the first of person 0005/" in caplog.text
    assert "person 0006,1" in table.read_text()


def test_a_name_with_a_carriage_return(run, images, tmp_path):
    name = "0000_c1s1_000001_00.png\r, x.png"
    shutil.copy(images / "0000_c1s1_000001_00.png", images / name)
    assert name in read(_extracted(run, images, tmp_path / "out"))


def test_folders_without_images(run, tmp_path):
    with pytest.raises(DSAError, match="nothing: cannot be listed: No such file"):
        extract(run, tmp_path / "nothing", tmp_path / "out", device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DSAError, match="empty: no images in it or below"):
        extract(run, tmp_path / "empty", tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_options(run, images, tmp_path, capsys):
    assert main(["extract", str(run), str(images), str(tmp_path / "out"), "--batch-size", "0"]) == 1
    assert "--batch-size must be at least 1, not 0" in capsys.readouterr().err
    with pytest.raises(DSAError, match="`batch_size` must be at least 1, not 0"):
        extract(run, images, tmp_path / "out", batch_size=0)


# `dsareid extract` with small parts, each of which takes its time.
SLOW = """
import sys, time, dsareid.inference.feature_parts as e
from dsareid.commands.main import main
e.PART, save = 2, e.save
def slowly(*arguments):
    time.sleep(0.2)
    return save(*arguments)
e.save = slowly
sys.exit(main())
"""


def command(tmp_path, run, images, out, *start):
    (tmp_path / "slow.py").write_text(SLOW)
    arguments = ["extract", run, images, out, "--device", "cpu", "--batch-size", "2"]
    return [sys.executable, *start, *map(str, [tmp_path / "slow.py", *arguments])]


@pytest.mark.processes
def test_two_processes(run, images, tmp_path):
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = command(tmp_path, run, images, tmp_path / "out", *start)
    done = subprocess.run(both, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("out: 11 x 512 features") == 1
    same(read(tmp_path / "out"), read(_extracted(run, images, tmp_path / "alone")))
    break_images(images)
    both = command(tmp_path, run, images, tmp_path / "two", *start)
    done = subprocess.run(both, capture_output=True, text=True)
    assert done.returncode and "0009_c1s1_000001_00.png: not readable" in done.stderr
    assert not (tmp_path / "two/features.json").exists()


def test_killed_and_called_again(run, images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    process = subprocess.Popen(command(tmp_path, run, images, out), stderr=subprocess.DEVNULL)
    while len(list((out / "parts").glob("0*"))) < 2:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= len(list((out / "parts").glob("0*"))) < 6
    monkeypatch.setattr(feature_parts, "PART", 2)
    extract(run, images, out, device="cpu")
    same(read(out), read(_extracted(run, images, tmp_path / "whole")))


def test_a_call_that_was_killed_before_its_plan_was_there(run, images, tmp_path):
    (tmp_path / "out/parts").mkdir(parents=True)
    (tmp_path / "out/.plan-unfinished-0.json").write_text("{")
    assert extract(run, images, tmp_path / "out", device="cpu").images
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
