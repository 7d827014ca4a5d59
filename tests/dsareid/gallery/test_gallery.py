"""A gallery that grows, embedded in a folder and on a server, against plain arithmetic over the same rows."""

import csv
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

pymilvus = pytest.importorskip("pymilvus")
pytest.importorskip("milvus_lite")

from runs import make_run  # noqa: E402
from tiny_market import make_data  # noqa: E402

import dsareid  # noqa: E402
from dsareid.commands.main import main  # noqa: E402
from dsareid.gallery import store as store_module  # noqa: E402
from dsareid.gallery.add import add_rows, parse_time  # noqa: E402
from dsareid.gallery.rows import quote  # noqa: E402
from dsareid.gallery.search import GalleryFilter, search_gallery  # noqa: E402
from dsareid.gallery.store import GalleryStore  # noqa: E402
from dsareid.gallery.summary import remove_rows, summarise  # noqa: E402
from dsareid.ground.errors import DSAError  # noqa: E402
from dsareid.inference.calibrate import calibrate  # noqa: E402
from dsareid.inference.feature_folder import open_features, write_features  # noqa: E402
from dsareid.inference.search import search  # noqa: E402

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, a tiny data set, and the model's features of all its images."""
    base = tmp_path_factory.mktemp("world")
    data, run = make_data(base / "market"), make_run(base / "run")
    dsareid.extract(run, data, base / "features", device="cpu")
    return run, data, base / "features"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a server of Milvus Lite."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        folder, port = tmp_path_factory.mktemp("server"), free.getsockname()[1]
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers():
        assert process.poll() is None, "milvus-lite server has ended"
        try:
            pymilvus.MilvusClient(f"http://127.0.0.1:{port}", timeout=1).close()
        except pymilvus.MilvusException:
            return False
        return True

    try:
        until = time.monotonic() + 60
        while not answers():
            assert time.monotonic() < until, "milvus-lite server does not answer"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def random_features(folder, count=60, seed=0, model="net", dimension=8, **labels):
    draw = np.random.default_rng(seed)
    features = draw.normal(size=(count, dimension)).astype(np.float32)
    ids = labels.get("ids", [1 + x % 7 for x in range(count)])
    cams = labels.get("cams", [f"c{x % 3}" for x in range(count)])
    files = [f"{x:04d}.png" for x in range(count)]
    given = {"model": model, "ids": ids, "cams": cams, "images": folder.absolute()}
    write_features(folder, features, files, **(given | labels))
    return features


def nearest(gallery, vector, count=100, where="", **parameters):
    with GalleryStore(gallery) as store:
        (hits,) = store.nearest(vector[None].astype(np.float32), count, where, parameters)
    return hits


# ---- adding ----


def test_features_are_found_again(tmp_path):
    features, gallery = random_features(tmp_path / "f"), tmp_path / "g.db"
    assert add_rows(gallery, tmp_path / "f")[:3] == (60, 0, 0)
    query = np.random.default_rng(9).normal(size=8).astype(np.float32)
    hits = nearest(gallery, query, 10)
    order = np.linalg.norm(features - query, axis=1).argsort()[:10]
    assert [os.path.basename(hit["file"]) for hit in hits] == [f"{x:04d}.png" for x in order]
    assert np.array_equal(np.stack([hit["vector"] for hit in hits]), features[order])
    assert [hit["identity"] for hit in hits] == [str(1 + x % 7) for x in order]


def test_adding_again_makes_no_doubles(tmp_path):
    random_features(tmp_path / "f")
    gallery = tmp_path / "g.db"
    add_rows(gallery, tmp_path / "f")
    assert add_rows(gallery, tmp_path / "f")[:3] == (0, 60, 0)
    images = tmp_path / "f" / "images.csv"
    features = np.load(tmp_path / "f" / "features.npy")
    shutil.rmtree(tmp_path / "f")
    random_features(tmp_path / "f")
    changed = np.load(tmp_path / "f" / "features.npy", mmap_mode="r+")
    changed[:5] += 1
    changed.flush()
    assert images.exists() and add_rows(gallery, tmp_path / "f") == (0, 55, 5, [], 60)
    assert np.allclose(nearest(gallery, features[0] + 1, 1)[0]["vector"], features[0] + 1)


def test_pictures_are_embedded_as_extract_does(world, tmp_path):
    run, data, features = world
    gallery = tmp_path / "g.db"
    added = add_rows(gallery, data, model=run, device="cpu", tags=["first"])
    folder = open_features(features)
    assert added.added == len(folder)
    for row in (0, 5, 17):
        (hit,) = nearest(gallery, folder.features[row], 1)
        assert hit["file"] == str(folder.images / folder.files[row]) and list(hit["tags"]) == ["first"]
        assert (hit["identity"], hit["camera"]) == folder.labels[row]
        assert np.allclose(hit["vector"], folder.features[row], atol=1e-6)
    # The features of the same pictures are other rows' stamps, but the same keys.
    assert add_rows(gallery, features) == (0, 0, len(folder), [], len(folder))
    picture = data / "query" / "0005_c3s1_000009_00.png"
    time.sleep(0.01)
    Image.new("RGB", (32, 64), "red").save(picture)
    try:
        again = add_rows(gallery, data / "query", model=run, device="cpu")
        assert again.rows == len(folder) and again.replaced == 2
    finally:
        make_data(data)


def test_the_words_of_a_row_are_corrected(tmp_path):
    gallery = tmp_path / "g.db"
    random_features(tmp_path / "f")
    add_rows(gallery, tmp_path / "f", tags=["first"])
    images = tmp_path / "f" / "images.csv"
    images.write_text(images.read_text().replace("0003.png,4,c0", "0003.png,anna,c0"))
    assert add_rows(gallery, tmp_path / "f", tags=["first"])[:3] == (0, 59, 1)
    (hit,) = nearest(gallery, np.zeros(8), where=GalleryFilter(people=["anna"]).expression())
    assert hit["file"].endswith("0003.png") and list(hit["tags"]) == ["first"]
    assert add_rows(gallery, tmp_path / "f", tags=["second"])[:3] == (0, 0, 60)


def test_one_picture_by_two_paths(world, tmp_path, monkeypatch):
    run, data, _ = world
    gallery = tmp_path / "g.db"
    (tmp_path / "below").mkdir()
    shutil.copytree(data / "query", tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "below")
    add_rows(gallery, "../photos", model=run, device="cpu")
    monkeypatch.chdir(tmp_path)
    assert add_rows(gallery, "photos", model=run, device="cpu")[:3] == (0, 2, 0)
    name = sorted(os.listdir("photos"))[0]
    assert main(["gallery", "remove", str(gallery), "--file", f"below/../photos/{name}"]) == 0


def test_features_that_do_not_do(tmp_path):
    write_features(
        tmp_path / "f", np.ones((2, 8), np.float32), ["a.png", "a.png"], model="net", images=tmp_path
    )
    with pytest.raises(DSAError, match="a.png stands here twice"):
        add_rows(tmp_path / "g.db", tmp_path / "f")
    random_features(tmp_path / "nowhere", images="")
    with pytest.raises(DSAError, match="does not say where its pictures are"):
        add_rows(tmp_path / "g.db", tmp_path / "nowhere")
    random_features(tmp_path / "one", dimension=1)
    with pytest.raises(DSAError, match="a gallery cannot hold these features: dimension"):
        add_rows(tmp_path / "g.db", tmp_path / "one")
    random_features(tmp_path / "good")
    with pytest.raises(DSAError, match="65 tags, more than 64"):
        add_rows(tmp_path / "g.db", tmp_path / "good", tags=[f"tag {x}" for x in range(65)])
    assert not (tmp_path / "g.db").exists()


def test_a_table(world, tmp_path):
    run, data, _ = world
    table = tmp_path / "new.csv"
    pictures = sorted((data / "query").glob("*.png"))
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["time", "file", "identity", "camera", "tags", "track"])
        writer.writerow(
            ["1700000000", os.path.relpath(pictures[0], tmp_path), 'an"na', "gate\\1", "red; at night", "7"]
        )
        writer.writerow(["2023-11-14T22:15:00+00:00", pictures[1], "", "", "", ""])
    gallery = tmp_path / "g.db"
    assert add_rows(gallery, table, model=run, device="cpu", camera="hall", tags=["new"])[:2] == (2, 0)
    found = {hit["time"]: hit for hit in nearest(gallery, np.zeros(512))}
    assert (
        found[1_700_000_000]["identity"],
        found[1_700_000_000]["camera"],
        found[1_700_000_000]["track"],
    ) == ('an"na', "gate\\1", "7")
    assert list(found[1_700_000_000]["tags"]) == ["new", "red", "at night"]
    assert (
        found[1_700_000_100]["identity"],
        found[1_700_000_100]["camera"],
        found[1_700_000_100]["track"],
    ) == (None, "hall", None)
    summary = summarise(gallery)
    assert (summary.rows, summary.people, summary.unknown, summary.times) == (
        2,
        1,
        1,
        (1_700_000_000, 1_700_000_100),
    )
    assert summary.cameras == {"gate\\1": 1, "hall": 1} and summary.tracks == 1 and summary.size > 1000


@pytest.mark.parametrize(
    "text, message",
    [
        ("name\n", "columns of file, .*: file is missing"),
        ("file,colour\n", "colour is not known"),
        ("file\n", "no line with a file"),
        ("file,camera\na.png\n", "line 2: expected a file and as many cells as columns"),
        ("file\nmissing.png\n", "line 2: there is no file .*missing.png"),
        ("file,time\na.png,yesterday\n", "line 2: time must be a date such as"),
        ("file,identity\na.png,-2\n", "the identity must be a word"),
        ("file,camera\na.png,a\tb\n", "must not hold control characters"),
        ("file\na.png\n./a.png\n", "stands here twice"),
        ('file\n"a.png', "not readable as a CSV table"),
    ],
)
def test_tables_that_do_not_do(world, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    Image.new("RGB", (32, 64)).save(tmp_path / "a.png")
    with pytest.raises(DSAError, match=message):
        add_rows(tmp_path / "g.db", tmp_path / "t.csv", model=world[0], device="cpu")
    assert not (tmp_path / "g.db").exists()


def test_broken_pictures(world, tmp_path):
    run, _, _ = world
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (32, 64), "blue").save(folder / f"{name}.png")
    (folder / "b.png").write_bytes(b"no picture")
    with pytest.raises(DSAError, match="b.png.*skip_broken=True"):
        add_rows(tmp_path / "g.db", folder, model=run, device="cpu")
    done = add_rows(tmp_path / "g.db", folder, model=run, device="cpu", skip_broken=True)
    assert done.added == 2 and len(done.skipped) == 1 and done.rows == 2


def test_other_models_are_refused(world, tmp_path):
    gallery = tmp_path / "g.db"
    random_features(tmp_path / "one")
    random_features(tmp_path / "two", model="other")
    add_rows(gallery, tmp_path / "one")
    with pytest.raises(DSAError, match="holds vectors of model net .*, these are of model other"):
        add_rows(gallery, tmp_path / "two")
    random_features(tmp_path / "three", dimension=9)
    with pytest.raises(DSAError, match="cannot be compared"):
        add_rows(gallery, tmp_path / "three")
    with pytest.raises(DSAError, match="vectors of model net .* is model"):
        search_gallery(gallery, world[1] / "query", model=world[0], device="cpu")
    with pytest.raises(DSAError, match="its index is FLAT, not HNSW: it is chosen when a gallery is made"):
        add_rows(gallery, tmp_path / "one", index="HNSW")
    with pytest.raises(DSAError, match="features already; leave out `model`"):
        add_rows(gallery, tmp_path / "one", model=world[0])
    with pytest.raises(DSAError, match="holds pictures: say by which `model`"):
        add_rows(gallery, world[1] / "query")


# ---- searching ----


def test_search_is_that_of_a_features_folder(world, tmp_path):
    run, data, features = world
    gallery = tmp_path / "g.db"
    add_rows(gallery, features)
    answers = search_gallery(gallery, data / "query", model=run, count=6, device="cpu")
    plain = search(run, data / "query", features, count=6, device="cpu")
    for one, other in zip(answers, plain, strict=True):
        assert one.query == other.file and one.identity == other.identity
        distances = [match.distance for match in other.matches]
        assert [row.distance for row in one.found] == pytest.approx(distances, abs=1e-6)


def test_words_are_read_as_in_images_csv(tmp_path):
    random_features(tmp_path / "f", cams=[f"{x % 3 + 1:02d}" for x in range(60)])
    gallery = tmp_path / "g.db"
    add_rows(gallery, tmp_path / "f")
    with GalleryStore(gallery) as store:
        counts = {
            "cameras": GalleryFilter(cameras=["01"]),
            "others": GalleryFilter(other_cameras=["01"]),
            "people": GalleryFilter(people=["0003"]),
        }
        found = {name: store.count(each.expression()) for name, each in counts.items()}
    assert found == {"cameras": 20, "others": 40, "people": 9}


def test_all_rows_are_read(tmp_path):
    """More than a page of them, each once."""
    random_features(tmp_path / "f", count=20_000, dimension=2)
    gallery = tmp_path / "g.db"
    add_rows(gallery, tmp_path / "f")
    with GalleryStore(gallery) as store:
        files = [row["file"] for row in store.rows("", ["file"])]
        some = list(store.rows(GalleryFilter(people=["3"]).expression(), ["identity"]))
    assert len(files) == len(set(files)) == 20_000 and summarise(gallery).rows == 20_000
    assert len(some) == sum(1 + x % 7 == 3 for x in range(20_000))


def matching(rows, **wanted):
    return sorted(
        row for row, known in enumerate(rows) if all(test(known[key]) for key, test in wanted.items())
    )


def test_filters_leave_what_they_say(tmp_path):
    """Every filter alone and in pairs, against Python over the same rows."""
    with GalleryStore(tmp_path / "g.db", _info(4)) as store:
        from dsareid.gallery.rows import GalleryRow

        draw, rows = np.random.default_rng(0), []
        for number in range(80):
            known = {
                "identity": [None, "1", 'a"b', "c\\d", "é x"][number % 5],
                "camera": [None, "gate", "hall"][number % 3],
                "time": None if number % 4 == 0 else 100 * number,
                "track": str(number // 8) if number % 2 else None,
                "tags": [word for word in ("red", 'o"k') if draw.random() < 0.5],
                "added": 10_000 + number,
            }
            rows.append({**known, "file": f"/{number}.png"})
            vector = draw.normal(size=4).astype(np.float32)
            store.put([GalleryRow(f"{number:03d}", "s", f"/{number}.png", vector, **known)])
        filters = {
            "cameras": (["gate"], {"camera": lambda x: x == "gate"}),
            "other_cameras": (["gate"], {"camera": lambda x: x != "gate"}),
            "people": (['a"b', "c\\d", "é x"], {"identity": lambda x: x in ('a"b', "c\\d", "é x")}),
            "tracks": (["3", "4"], {"track": lambda x: x in ("3", "4")}),
            "files": (["/7.png"], {"file": lambda x: x == "/7.png"}),
            "tags": (["red", 'o"k'], {"tags": lambda x: set(x) >= {"red", 'o"k'}}),
            "after": (3000, {"time": lambda x: x is not None and x >= 3000}),
            "before": (3000, {"time": lambda x: x is not None and x < 3000}),
            "added_before": (10_020, {"added": lambda x: x < 10_020}),
        }
        for names in (*((name,) for name in filters), *itertools.combinations(filters, 2)):
            where = GalleryFilter(**{name: filters[name][0] for name in names}).expression()
            expected = set(range(80))
            for name in names:
                expected &= set(matching(rows, **filters[name][1]))
            assert store.count(where) == len(expected), where
            (hits,) = store.nearest(np.zeros((1, 4), np.float32), 100, where, {})
            assert {int(hit["key"]) for hit in hits} == expected, where
            assert {row["key"] for row in store.rows(where, ["key"])} == {f"{x:03d}" for x in expected}


def _info(dimension, **changes):
    from dsareid.gallery.rows import GalleryInfo

    return GalleryInfo(model="net", dimension=dimension, features="test", **changes)


def test_the_same_camera_rule(world, tmp_path):
    run, data, features = world
    gallery = tmp_path / "g.db"
    add_rows(gallery, features)
    everything = search_gallery(gallery, data / "query", model=run, count=100, device="cpu")
    kept = search_gallery(gallery, data / "query", model=run, count=100, device="cpu", same_camera_rule=True)
    for one, other in zip(everything, kept):
        own = [row for row in one.found if (row.identity, row.camera) == (one.identity, "3")]
        assert own and [row for row in one.found if row not in own] == other.found


def test_unknown(world, tmp_path, capsys):
    run, data, features = world
    shutil.copytree(features, tmp_path / "features")
    calibrate(tmp_path / "features")
    gallery = tmp_path / "g.db"
    add_rows(gallery, features)
    arguments = [
        "gallery",
        "search",
        str(gallery),
        str(data / "query"),
        "--model",
        str(run),
        "--device",
        "cpu",
    ]
    more = ["--calibration", str(tmp_path / "features"), "--false-match-rate", "0.02", "--out"]
    assert main([*arguments, *more, str(tmp_path / "p.png")]) == 0
    out = capsys.readouterr().out
    assert "score" in out and (tmp_path / "p.png").exists()
    answers = search_gallery(
        gallery,
        data / "query",
        model=run,
        device="cpu",
        count=100,
        false_match_rate=0.02,
        calibration=tmp_path / "features",
    )
    for answer in answers:
        assert all(row.distance < answer.limit for row in answer.found)
        assert answer.beyond.distance >= answer.limit
    assert main([*arguments, "--false-match-rate", "0.02"]) == 1
    assert "--false-match-rate needs a --calibration" in capsys.readouterr().err


def test_rows_of_another_version(tmp_path, monkeypatch):
    random_features(tmp_path / "f")
    add_rows(tmp_path / "g.db", tmp_path / "f")
    monkeypatch.setattr(store_module, "FIELDS", (*store_module.FIELDS, "later"))
    with pytest.raises(DSAError, match="g.db: made by another version of dsareid: its rows lack later; make"):
        GalleryStore(tmp_path / "g.db")


def test_learned_from_crops_but_rows_are_tracks(world, tmp_path, caplog):
    run, data, features = world
    shutil.copytree(features, tmp_path / "crops")
    calibrate(tmp_path / "crops")
    shutil.copytree(features, tmp_path / "tracks")
    lines = (tmp_path / "tracks/images.csv").read_text().splitlines()
    rows = [f"{line},{number}" for number, line in enumerate(lines[1:])]
    (tmp_path / "tracks/images.csv").write_text("\n".join([f"{lines[0]},track", *rows]) + "\n")
    for kind in ("crops", "tracks"):
        add_rows(tmp_path / f"{kind}.db", tmp_path / kind)
        search_gallery(
            tmp_path / f"{kind}.db",
            data / "query",
            model=run,
            device="cpu",
            calibration=tmp_path / "crops",
            false_match_rate=0.02,
        )
        said = "learned from single pictures, but some of these distances are of tracks: rates may not hold"
        assert (said in caplog.text) == (kind == "tracks")


def test_an_index_by_name(tmp_path):
    """What it returns is near, and is scored by the stored vectors."""
    features = random_features(tmp_path / "f", count=500, dimension=16)
    gallery = tmp_path / "g.db"
    add_rows(gallery, tmp_path / "f", index="HNSW", parameters={"M": 8, "efConstruction": 64})
    assert summarise(gallery).info.parameters == {"M": 8, "efConstruction": 64}
    found = 0
    for row in range(0, 500, 25):
        hits = nearest(gallery, features[row], 10, ef=64)
        order = np.linalg.norm(features - features[row], axis=1).argsort()[:10]
        found += len({os.path.basename(hit["file"]) for hit in hits} & {f"{x:04d}.png" for x in order})
    assert found > 180  # of 200


def test_commands(world, tmp_path, capsys):
    run, data, features = world
    gallery = str(tmp_path / "g.db")
    assert main(["gallery", "add", gallery, str(data / "query"), "--model", str(run), "--device", "cpu"]) == 0
    assert "2 added; 2 rows" in capsys.readouterr().out
    assert main(["gallery", "info", gallery]) == 0
    out = capsys.readouterr().out
    assert "2 rows of 512 numbers, float32" in out and "index FLAT (exact)" in out and "2 people" in out
    query = str(next((data / "query").glob("0005*")))
    arguments = ["gallery", "search", gallery, query, "--model", str(run), "--device", "cpu"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["rank", "distance", "identity", "camera", "file"]
    assert lines[2].split()[:4] == ["1", "0.0000", "5", "3"]
    assert main([*arguments, "--camera", "elsewhere"]) == 1
    assert 'no row is left: camera in ["elsewhere"]' in capsys.readouterr().err
    assert main([*arguments, "--parameter", "ef"]) == 1
    assert "--parameter must be NAME=NUMBER, such as M=16, not 'ef'" in capsys.readouterr().err
    assert main([*arguments, "--after", "soon"]) == 1
    assert "--after must be a date such as" in capsys.readouterr().err
    assert main(["gallery", "remove", gallery, "--person", "5"]) == 0
    assert "1 rows removed" in capsys.readouterr().out
    assert main(["gallery"]) == 2


# ---- removing ----


def test_removing(tmp_path):
    gallery = tmp_path / "g.db"
    random_features(tmp_path / "f")
    add_rows(gallery, tmp_path / "f")
    assert remove_rows(gallery, GalleryFilter(people=["3"])) == sum(1 + x % 7 == 3 for x in range(60))
    with pytest.raises(DSAError, match="no row to remove"):
        remove_rows(gallery, GalleryFilter(people=["3"]))
    with pytest.raises(DSAError, match="nothing says which rows to remove"):
        remove_rows(gallery, GalleryFilter())
    left = summarise(gallery)
    assert left.people == 6
    assert remove_rows(gallery, GalleryFilter(added_before=int(time.time()) + 10)) == left.rows
    assert summarise(gallery).rows == 0
    with pytest.raises(DSAError, match="no row to remove"):
        remove_rows(gallery, GalleryFilter(people=["1"]))


def test_what_is_still_there_is_said(tmp_path, monkeypatch):
    gallery = tmp_path / "g.db"
    random_features(tmp_path / "f")
    add_rows(gallery, tmp_path / "f")
    monkeypatch.setattr(pymilvus.MilvusClient, "delete", lambda *_, **__: None)
    with pytest.raises(DSAError, match="of 9 rows are still there; remove them again"):
        remove_rows(gallery, GalleryFilter(people=["3"]))


# ---- places ----


def test_places_that_are_no_gallery(tmp_path):
    random_features(tmp_path / "f")
    for name, message in {
        "g": "a gallery is a folder whose name ends in .db, or the address",
        "http://127.0.0.1:19530": "must be http://HOST:PORT/NAME",
        "http://127.0.0.1:19530/a-b": "must be http://HOST:PORT/NAME",
        "http://127.0.0.1:1/people": "http://127.0.0.1:1/people: ",
    }.items():
        with pytest.raises(DSAError, match=message):
            add_rows(name, tmp_path / "f")
    (tmp_path / "file.db").write_text("text")
    with pytest.raises(DSAError, match="a gallery is a folder, but this is a file"):
        add_rows(tmp_path / "file.db", tmp_path / "f")
    with pytest.raises(DSAError, match="no such gallery; dsareid gallery add makes one"):
        summarise(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()
    with pytest.raises(DSAError, match="a folder's vectors are float32"):
        add_rows(tmp_path / "half.db", tmp_path / "f", precision="float16")


def test_another_programs_folder(tmp_path):
    client = pymilvus.MilvusClient(str(tmp_path / "g.db"))
    client.create_collection("gallery", dimension=4)
    client.close()
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(str(tmp_path / "g.db"))
    with pytest.raises(DSAError, match="not a gallery of dsareid"):
        summarise(tmp_path / "g.db")


def test_one_process_at_a_time(tmp_path):
    random_features(tmp_path / "f")
    with GalleryStore(tmp_path / "g.db", _info(8)):
        done = subprocess.run(
            [sys.executable, "-m", "dsareid", "gallery", "add", str(tmp_path / "g.db"), str(tmp_path / "f")],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1 and "in use by another process" in done.stderr
    assert add_rows(tmp_path / "g.db", tmp_path / "f").rows == 60


def test_without_the_packages(tmp_path, monkeypatch):
    random_features(tmp_path / "f")
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(DSAError, match=r'pip install "dsareid\[gallery\]"'):
        add_rows(tmp_path / "g.db", tmp_path / "f")


def test_times():
    assert parse_time("", "x") is None and parse_time("1700000000", "x") == 1_700_000_000
    assert parse_time("2026-11-30T20:15:00+02:00", "x") == 1_796_062_500
    assert parse_time("2026-11-30T20:15", "x") - parse_time("2026-11-30", "x") == 20 * 3600 + 15 * 60
    for text in ("2026", "2026-13-01", "1e5", "now", "9" * 400, "-1700000000"):
        with pytest.raises(DSAError, match="x must be a date"):
            parse_time(text, "x")


def test_words():
    assert quote('a"\\b') == '"a\\"\\\\b"'
    assert quote("9.41.00\u202fAM \U0001f468\u200d\U0001f469.png").startswith('"9.41')
    for word in ("a\nb", "\0", "x" * 1025, "\udcff"):
        with pytest.raises(DSAError):
            quote(word)


# ---- a server ----


def test_a_server_takes_the_same_commands(server, tmp_path):
    features, gallery = random_features(tmp_path / "f"), f"{server}/people"
    assert add_rows(gallery, tmp_path / "f") == (60, 0, 0, [], 60)
    assert add_rows(gallery, tmp_path / "f") == (0, 60, 0, [], 60)
    with GalleryStore(gallery) as one, GalleryStore(gallery) as other:  # two at a time
        assert one.count() == other.count() == 60
    assert np.array_equal(nearest(gallery, features[4], 1)[0]["vector"], features[4])
    assert remove_rows(gallery, GalleryFilter(people=["2"])) == 9 and summarise(gallery).rows == 51
    assert summarise(gallery).size is None
    random_features(tmp_path / "two", model="second")
    assert add_rows(f"{server}/others", tmp_path / "two").rows == 60  # another gallery of the same server
    with pytest.raises(DSAError, match="no such gallery"):
        summarise(f"{server}/third")


# ---- what is half made ----


@pytest.mark.parametrize("moment", ["_make_rows", "info collection", "info row"])
def test_killed_while_it_was_made(tmp_path, monkeypatch, moment):
    class Killed(BaseException):
        pass

    random_features(tmp_path / "f")
    create, upsert = pymilvus.MilvusClient.create_collection, pymilvus.MilvusClient.upsert

    def creating(client, name, **settings):
        if moment == "info collection" and name.endswith("_info"):
            raise Killed
        create(client, name, **settings)
        if moment == "_make_rows":
            raise Killed

    def upserting(client, name, rows):
        if moment == "info row" and name.endswith("_info"):
            raise Killed
        return upsert(client, name, rows)

    with monkeypatch.context() as patch:
        patch.setattr(pymilvus.MilvusClient, "create_collection", creating)
        patch.setattr(pymilvus.MilvusClient, "upsert", upserting)
        with pytest.raises(Killed):
            add_rows(tmp_path / "g.db", tmp_path / "f")
    with pytest.raises(DSAError, match="no such gallery"):
        summarise(tmp_path / "g.db")
    assert add_rows(tmp_path / "g.db", tmp_path / "f").rows == 60


def test_an_index_that_is_refused(tmp_path, monkeypatch):
    """The next call may name another one."""
    random_features(tmp_path / "f")
    create = pymilvus.MilvusClient.create_collection

    def refusing(client, name, **settings):
        create(client, name, **settings)
        raise pymilvus.MilvusException(1100, "param 'M' must be within 2 and 2048")

    with monkeypatch.context() as patch:
        patch.setattr(pymilvus.MilvusClient, "create_collection", refusing)
        with pytest.raises(DSAError, match="g.db: param 'M' must be within"):
            add_rows(tmp_path / "g.db", tmp_path / "f", index="HNSW", parameters={"M": 1})
    assert add_rows(tmp_path / "g.db", tmp_path / "f", index="HNSW", parameters={"M": 8}).rows == 60


def test_what_a_killed_server_left(tmp_path):
    """Its port may be another gallery's by now."""
    random_features(tmp_path / "f")
    random_features(tmp_path / "two", model="other")
    add_rows(tmp_path / "a.db", tmp_path / "f")
    with GalleryStore(tmp_path / "b.db", _info(8)) as other:
        other.share()
        with GalleryStore(tmp_path / "a.db") as store:
            name = store.info.gallery
        left = (tmp_path / "b.db.served").read_text().replace(other.info.gallery, name)
        code = "import sys, time; from dsareid.gallery.store import GalleryStore; "
        code += "store = GalleryStore(sys.argv[1]); print('open', flush=True); time.sleep(600)"
        holder = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "a.db")], stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout.readline() == "open\n"
            with pytest.raises(DSAError, match="in use by another process"):
                summarise(tmp_path / "a.db")
            (tmp_path / "a.db.served").write_text(left)
            with pytest.raises(DSAError, match="in use by another process"):
                remove_rows(tmp_path / "a.db", GalleryFilter(people=["1"]))
            dead = subprocess.Popen([sys.executable, "-c", ""])
            dead.wait()
            (tmp_path / "a.db.served").write_text(left.replace(str(os.getpid()), str(dead.pid)))
            with pytest.raises(DSAError, match="in use by another process"):
                summarise(tmp_path / "a.db")
        finally:
            holder.kill()
            holder.wait()
    assert not (tmp_path / "b.db.served").exists()


# ---- kill -9 ----

SLOW = """
import sys, time
import dsareid.gallery.add as add
from dsareid.commands.main import main
from dsareid.gallery.store import GalleryStore
add.BATCH, put = 10, GalleryStore.put
def slowly(store, rows):
    put(store, rows)
    print(len(rows), flush=True)
    time.sleep(0.05)
GalleryStore.put = slowly
sys.exit(main())
"""


@pytest.mark.parametrize("batches", [1, 3])
def test_kill_9_loses_at_most_the_batch_in_hand(tmp_path, batches):
    features, gallery = random_features(tmp_path / "f", count=200), tmp_path / "g.db"
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, str(tmp_path / "slow.py"), "gallery", "add", str(gallery), str(tmp_path / "f")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(batches):
        assert process.stdout.readline() == "10\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = summarise(gallery).rows
    assert kept >= 10 * batches
    done = add_rows(gallery, tmp_path / "f")
    assert (done.added, done.already, done.rows) == (200 - kept, kept, 200)
    assert np.array_equal(nearest(gallery, features[7], 1)[0]["vector"], features[7])
