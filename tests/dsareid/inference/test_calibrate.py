"""dsareid calibrate, and what search makes of it."""

import json
import re

import numpy as np
import pytest
import torch
from runs import make_run
from tiny_market import make_data

import dsareid
from dsareid.commands.main import main
from dsareid.ground.errors import DSAError
from dsareid.inference.calibrate import CALIBRATION, Judge, calibrate, read_calibration
from dsareid.inference.feature_folder import write_features
from dsareid.inference.search import search


def people(path, count=20, images=6, noise=0.35, seed=0, cams=3, camera_words=None, **changes):
    """Features of people, those of a person near each other."""
    draw = np.random.default_rng(seed)
    ids = np.repeat(np.arange(1, count + 1), images)
    features = draw.normal(size=(count + 1, 16))[ids] + noise * draw.normal(size=(len(ids), 16))
    words = camera_words or [1 + x % cams for x in range(len(ids))]
    given = {"ids": ids.tolist(), "cams": words, "model": "net", **changes}
    write_features(path, features.astype(np.float32), [f"{x}.png" for x in range(len(ids))], **given)
    return path, features.astype(np.float32), ids


def test_all_labelled_pairs(tmp_path, capsys):
    folder, features, ids = people(tmp_path / "features")
    assert main(["calibrate", str(folder)]) == 0
    out = capsys.readouterr().out
    distances = torch.cdist(*2 * [torch.from_numpy(features)]).numpy()
    upper, same = np.triu(np.ones_like(distances), 1) > 0, ids[:, None] == ids
    cams = np.arange(len(ids)) % 3
    other = distances[upper & ~same]
    right = (upper & same & (cams[:, None] != cams)).sum()
    assert f"{right:,} pairs of one person and {len(other):,} of two" in out
    fitted = read_calibration(folder, "net").fitted
    assert (fitted.same, fitted.other) == (right, len(other))
    for rate in (0.1, 0.01):
        assert (other < fitted.threshold(rate)).mean() <= rate + 1e-4
        assert re.search(rf"^ +{rate} +{fitted.threshold(rate):.4f}", out, re.M)
    assert "rests on" in out and "0.0001   too few pairs" in out


def test_rates_hold_for_people_left_out(tmp_path):
    folder, _, _ = people(tmp_path / "features", count=150)
    found = calibrate(folder)
    for rate in (0.1, 0.01, 0.001):
        assert 0.5 * rate < found.held_out[rate] < 1.6 * rate


def test_without_cameras(tmp_path, capsys):
    """No image is paired with itself."""
    folder, _, _ = people(tmp_path / "features", cams=1)
    with pytest.raises(DSAError, match="no pair of images shows one person from two cameras"):
        calibrate(folder)
    folder, _, _ = people(tmp_path / "without", camera_words=[None] * 120)
    assert main(["calibrate", str(folder)]) == 0
    assert f"{20 * 15:,} pairs of one person" in (out := capsys.readouterr().out)
    assert "cameras" in out


def test_images_without_a_person(tmp_path, capsys):
    ids = [None, 0, -1] * 10 + [1, 1, 2, 2] * 5
    write_features(
        tmp_path / "f",
        np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32),
        [f"{x}.png" for x in range(50)],
        model="net",
        ids=ids,
        cams=[1 + x % 7 for x in range(50)],
    )
    assert main(["calibrate", str(tmp_path / "f")]) == 0
    assert "30 of 50 images are left out" in capsys.readouterr().out


def test_listed_pairs(tmp_path):
    folder, features, ids = people(tmp_path / "features", cams=1)
    draw = np.random.default_rng(5)
    pairs = draw.integers(0, len(ids), (3000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    same = ids[pairs[:, 0]] == ids[pairs[:, 1]]
    rows = [f"{a}.png,{b}.png,{int(x)}" for (a, b), x in zip(pairs, same)]
    (tmp_path / "pairs.csv").write_text("\n".join(["a,b,same", *rows]))
    found = calibrate(folder, tmp_path / "pairs.csv")
    assert (found.fitted.same, found.fitted.other) == (same.sum(), (~same).sum())
    distances = np.linalg.norm(features[pairs[:, 0]] - features[pairs[:, 1]], axis=1)
    limit = found.fitted.threshold(0.01)
    assert (distances[~same] < limit).mean() <= 0.01 and found.held_out == {}


def test_pairs_of_tracks(tmp_path, capsys):
    """A person has two tracks, that nobody has joined; people 1 and 2, 2 and 3 and so on are seen at once."""
    folder, features, ids = people(tmp_path / "features", count=6, images=8, cams=1)
    place = np.arange(len(ids)) % 8
    track, frame = 2 * ids + (place >= 4), 4 * (ids + 2 * (place >= 4) * (ids % 2)) + place % 4
    frame[place == 1] = 4 * (ids[place == 1] + 1)  # also seen with the next person
    rows = [f"{x}.png,{t},{f}" for x, (t, f) in enumerate(zip(track, frame))]
    (tmp_path / "tracks.csv").write_text("\n".join(["file,track,frame", *rows]))
    assert main(["calibrate", str(folder), "--pairs", str(tmp_path / "tracks.csv")]) == 0
    shown = {number: set(frame[track == number]) for number in np.unique(track)}
    upper = [(a, b) for a in range(len(ids)) for b in range(a + 1, len(ids))]
    same = [(a, b) for a, b in upper if track[a] == track[b]]
    other = [(a, b) for a, b in upper if track[a] != track[b] and shown[track[a]] & shown[track[b]]]
    assert len(same) == 12 * 6 and 0 < len(other) < len(upper) - len(same)
    fitted = read_calibration(folder, "net").fitted
    assert (fitted.same, fitted.other) == (len(same), len(other))
    far = [np.linalg.norm(features[a] - features[b]) for a, b in other]
    assert np.mean(np.array(far) < fitted.threshold(0.1)) <= 0.1
    out = capsys.readouterr().out
    assert "pairs of one person are of one track" in out
    described = json.loads((folder / CALIBRATION).read_text())["pairs"]
    assert described == f"{len(same) + len(other):,} pairs of 48 crops of 12 tracks, tracks.csv"


@pytest.mark.parametrize(
    "text, message",
    [
        ("x,y\n", "the first line must be a,b,same or file,track,frame, not 'x,y'"),
        ("file,track,frame\n0.png,1,\n", "line 2: expected a file, a track and a frame, not '0.png,1,'"),
        ("file,track,frame\nno.png,1,1\n", "has no file 'no.png'"),
        ("file,track,frame\n0.png,1,1\n0.png,1,2\n", "0.png stands twice"),
        ("file,track,frame\n0.png,1,7\n1.png,1,7\n", "track 1 has two crops of frame 7"),
        ("file,track,frame\n0.png,1,1\n1.png,1,2\n", "no pair of images shows two people"),
        ("file,track,frame\n0.png,1,1\n1.png,2,1\n", "no pair of images shows one person"),
        ("a,b,same\n0.png,1.png,yes\n", "line 2: expected two files and 0 or 1"),
        ("a,b,same\n0.png,no.png,1\n", "has no file 'no.png'"),
        ("a,b,same\n0.png,1.png,1\n", "no pair of images shows two people"),
        ("a,b,same\n", "no pair of images shows one person"),
        ('a,b,same\n"' + "x" * 200_000, "not readable as CSV"),
    ],
)
def test_wrong_pairs(tmp_path, text, message):
    folder, _, _ = people(tmp_path / "features")
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(DSAError, match=message):
        calibrate(folder, tmp_path / "pairs.csv")
    with pytest.raises(DSAError, match="cannot be read"):
        calibrate(folder, tmp_path / "missing.csv")
    assert not (folder / CALIBRATION).exists()


def test_labels_that_do_not_do(tmp_path):
    folder, _, _ = people(tmp_path / "nobody", ids=[None] * 120)
    with pytest.raises(DSAError, match="no image has a person's identity"):
        calibrate(folder)
    folder, _, _ = people(tmp_path / "half", camera_words=[None, 1, 2] * 40)
    with pytest.raises(DSAError, match="the camera of 40 of 120 images is not known"):
        calibrate(folder)


def test_a_file_that_is_none(tmp_path):
    folder, _, _ = people(tmp_path / "features")
    with pytest.raises(DSAError, match="there is no calibration; dsareid calibrate writes one"):
        read_calibration(folder, "net")
    calibrate(folder)
    with pytest.raises(DSAError, match="learned for model net, but these features are of model other"):
        read_calibration(folder, "other")
    good = json.loads((folder / CALIBRATION).read_text())
    for text in ("", "{", "[]", json.dumps({**good, "version": 2}), json.dumps({**good, "more": 1})):
        (folder / CALIBRATION).write_text(text)
        with pytest.raises(DSAError, match="not what dsareid calibrate writes"):
            read_calibration(folder, "net")


def test_learned_from_crops_but_used_for_tracks(tmp_path):
    folder, _, _ = people(tmp_path / "features")
    calibrate(folder)
    judge = Judge.of("net", folder)
    assert judge.doubt([False, False]) is judge.doubt([]) is Judge(None).doubt([True]) is None
    assert "learned from single pictures, but some of these distances are of tracks" in judge.doubt(
        [False, True]
    )
    with pytest.raises(DSAError, match="`false_match_rate` needs a `calibration`"):
        Judge(None).within(0.1)


# ---- search ----


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A model, and its calibrated features of a data set."""
    base = tmp_path_factory.mktemp("world")
    make_data(base / "market")
    run = make_run(base / "run")
    dsareid.extract(run, base / "market", base / "features", device="cpu")
    calibrate(base / "features")
    return run, base / "market" / "query", base / "features"


def test_search_tells_scores(world, capsys):
    run, query, features = world
    found = search(run, query, features, count=3, device="cpu")
    fitted = read_calibration(features, dsareid.embed(run).model).fitted
    for one in found:
        assert one.limit is None and len(one.matches) == 3
        assert [match.score for match in one.matches] == [
            fitted.score(match.distance) for match in one.matches
        ]
    assert main(["search", str(run), str(query), str(features), "--device", "cpu"]) == 0
    assert "score" in capsys.readouterr().out


def test_search_says_unknown(world, tmp_path, capsys):
    run, query, features = world
    limit = read_calibration(features, dsareid.embed(run).model).fitted.threshold(0.5)
    found = search(run, query, features, count=50, device="cpu", false_match_rate=0.5)
    plain = search(run, query, features, count=50, device="cpu")
    for one, other in zip(found, plain):
        assert one.limit == limit and one.matches == [x for x in other.matches if x.distance < limit]
        assert one.beyond == next((x for x in other.matches if x.distance >= limit), None)
    # A calibration by which nobody is near enough: the gallery's own, with all distances shrunk.
    file = json.loads((features / CALIBRATION).read_text())
    small = tmp_path / "small.json"
    file["fitted"]["distances"] = [x * 1e-9 for x in file["fitted"]["distances"]]
    small.write_text(json.dumps(file))
    gallery = query.parent / "bounding_box_test"
    arguments = [
        "search",
        str(run),
        str(query),
        str(gallery),
        "--device",
        "cpu",
        "--out",
        str(tmp_path / "p.png"),
    ]
    assert main([*arguments, "--false-match-rate", "0.5", "--calibration", str(small)]) == 0
    out = capsys.readouterr().out
    assert ": unknown\nnobody is nearer than 0.0000; the nearest: " in out and (tmp_path / "p.png").exists()


def test_search_refuses(world, tmp_path, capsys):
    run, query, features = world
    gallery = query.parent / "bounding_box_test"
    arguments = ["search", str(run), str(query), str(gallery), "--device", "cpu", "--false-match-rate", "0.5"]
    assert main(arguments) == 1
    assert "there is no calibration; dsareid calibrate writes one" in capsys.readouterr().err
    arguments[3:] = [str(features), "--device", "cpu", "--false-match-rate", "0.0000001"]
    assert main(arguments) == 1
    assert "--false-match-rate 1e-07: the calibration knows" in capsys.readouterr().err
