"""dsareid rank: two folders of features, ranked as their images would be."""

import json
import math

import numpy as np
import pytest
import torch

from dsareid.commands.main import main
from dsareid.evaluation import FeatureDistances, Labels, Ranking, chance, k_reciprocal, rank
from dsareid.evaluation.bootstrap import interval
from dsareid.evaluation.verification import RATES
from dsareid.inference.feature_folder import open_features, write_features


def make_folder(path, seed, count, cams, ids=None, model="net", cameras=None):
    """A folder of `count` features, those of an identity near each other; returns features, ids and cams."""
    draw = np.random.default_rng(seed)
    ids = draw.integers(1, 7, count) if ids is None else np.asarray(ids)
    cameras = draw.integers(1, cams + 1, count) if cameras is None else cameras
    centres = np.random.default_rng(99).normal(size=(7, 8))
    features = (centres[ids] + draw.normal(size=(count, 8))).astype(np.float32)
    files = [f"{i}.png" for i in range(count)]
    write_features(path, features, files, model=model, ids=ids.tolist(), cams=list(cameras))
    return (torch.from_numpy(np.asarray(x)) for x in (features, ids, [camera or 0 for camera in cameras]))


@pytest.fixture
def folders(tmp_path):
    """Query, gallery, and what `rank` takes of them; a third of the gallery is junk."""
    query, query_ids, query_cams = make_folder(tmp_path / "query", 1, 12, 3)
    junk_or_not = np.where(np.arange(60) % 3, np.random.default_rng(5).integers(1, 7, 60), -1)
    gallery, ids, cams = make_folder(tmp_path / "gallery", 2, 60, 3, junk_or_not)
    kept = ids != -1
    case = query, gallery[kept], query_ids, ids[kept], query_cams, cams[kept]
    return tmp_path / "query", tmp_path / "gallery", case


def run(capsys, *arguments):
    status = main(["rank", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def assert_line(line, name, result, ranks=(1, 5, 10)):
    figures = [result.mAP, *(float(result.cmc[k - 1]) for k in ranks)]
    assert line == f"{line[: line.index('  ')]:<{len(line) - 9 * len(figures)}}" + "".join(
        f"{100 * figure:9.1f}" for figure in figures
    )
    assert line.startswith(name + " ")


def test_the_table(folders, capsys):
    query, gallery, case = folders
    status, out, err = run(capsys, query, gallery)
    assert (status, err) == (0, "")
    title, features, random, pairs, *others = out.splitlines()
    assert pairs.split() == ["mINP", "TPR@0.01", "TPR@0.001", "TPR@0.0001"]
    found = Ranking(FeatureDistances(*case[:2]), Labels(*case[2:])).result(rates=RATES)
    for line, name, figures in (
        (others[0], "features", (found.mINP, *found.tpr.values())),
        (others[1], "chance", (chance(Labels(*case[2:])).mINP, *RATES)),
    ):
        cells = ["-" if math.isnan(figure) else f"{100 * figure:.1f}" for figure in figures]
        assert line == f"{name:<8}" + "".join(f"{cell:>11}" for cell in cells)
    assert title.split() == ["mAP", "rank-1", "rank-5", "rank-10"]
    assert_line(features, "features", rank(*case))
    assert_line(random, "chance", chance(Labels(*case[2:])))


def test_reranked(folders, capsys):
    query, gallery, case = folders
    plain = run(capsys, query, gallery)[1].splitlines()
    status, out, _ = run(capsys, query, gallery, "--rerank")
    title, reranked, features, random, *_ = out.splitlines()
    assert status == 0 and features.split() == plain[1].split() and random.split() == plain[2].split()
    assert_line(reranked, "features, re-ranked", Ranking(k_reciprocal(*case[:2]), Labels(*case[2:])).result())


def test_a_line_for_each_query(folders, tmp_path, capsys):
    query, gallery, case = folders
    path = tmp_path / "queries.jsonl"
    assert run(capsys, query, gallery, "--queries", path)[0] == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    found = rank(*case)
    assert [line["identity"] for line in lines] == list(map(str, case[2].tolist()))
    counted = [lines[k] for k in found.queries.tolist()]
    for name in ("ap", "inp", "first"):
        assert [line[name] for line in counted] == pytest.approx(getattr(found, name).tolist())
    assert all(line["ap"] is None for k, line in enumerate(lines) if k not in found.queries.tolist())
    status, _, err = run(capsys, query, gallery, "--queries", tmp_path / "no/where/q.jsonl")
    assert status == 1 and "q.jsonl" in err


def test_options(folders, capsys):
    query, gallery, case = folders
    out = run(capsys, query, gallery, "--max-rank", 20)[1]
    assert out.splitlines()[0].split() == ["mAP", "rank-1", "rank-5", "rank-10", "rank-20"]
    assert_line(out.splitlines()[1], "features", rank(*case), (1, 5, 10, 20))
    out = run(capsys, query, gallery, "--max-rank", 3)[1]
    assert out.splitlines()[0].split() == ["mAP", "rank-1", "rank-3"]
    status, _, err = run(capsys, query, gallery, "--max-rank", 0)
    assert status == 1 and "--max-rank must be at least 1" in err


def test_junk_queries_are_not_asked(folders, tmp_path, capsys):
    expected = run(capsys, *folders[:2])[1]
    features, ids, cams = (np.concatenate([x, x[:2]]) for x in folders[2][::2])
    ids[-2:] = -1
    files = [f"{i}.png" for i in range(len(ids))]
    write_features(tmp_path / "more", features, files, model="net", ids=ids.tolist(), cams=cams.tolist())
    assert run(capsys, tmp_path / "more", folders[1])[1] == expected


def fails(capsys, *arguments):
    status, out, err = run(capsys, *arguments)
    assert status == 1 and out == "" and err.count("\n") == 1 and err.startswith("dsareid rank: error: ")
    return err


def test_two_models(folders, tmp_path, capsys):
    make_folder(tmp_path / "other", 3, 5, 2, model="another")
    assert "cannot be compared" in fails(capsys, folders[0], tmp_path / "other")


@pytest.mark.parametrize("column", ["identity", "camera"])
def test_labels_that_are_missing(folders, tmp_path, capsys, column):
    labels = {"identity": dict(ids=[1, -1]), "camera": dict(ids=[1, 2])}[column]
    cameras = [1, None] if column == "camera" else [1, 1]
    make_folder(tmp_path / "unknown", 4, 2, 2, cameras=cameras, **labels)
    csv = tmp_path / "unknown/images.csv"
    if column == "identity":
        csv.write_text(csv.read_text().replace("0.png,1,", "0.png,,"))
    err = fails(capsys, folders[0], tmp_path / "unknown")
    first = "0.png" if column == "identity" else "1.png"
    assert f"images.csv: identity or camera of 1 of 2 images are not known, the first {first}: fill in" in err


def test_features_that_are_not_finite(folders, capsys):
    path = folders[1] / "features.npy"
    features = np.load(path)
    features[31, 2] = np.nan
    np.save(path, features)
    for options in ((), ("--rerank",)):
        err = fails(capsys, *folders[:2], *options)
        assert "gallery_features holds NaN, infinite or too large values, the first in row 31" in err


def test_no_match_and_nothing_but_junk(folders, tmp_path, capsys):
    make_folder(tmp_path / "strangers", 5, 5, 2, ids=[0] * 5)
    assert "no query has a match" in fails(capsys, folders[0], tmp_path / "strangers")
    make_folder(tmp_path / "junk", 5, 5, 2, ids=[-1] * 5)
    assert "every image is junk" in fails(capsys, tmp_path / "junk", folders[1])
    assert "every image is junk" in fails(capsys, folders[0], tmp_path / "junk")


def test_no_folder_of_features(folders, tmp_path, capsys):
    assert "not a folder of features" in fails(capsys, folders[0], tmp_path)


def test_words_are_people(tmp_path, capsys):
    """The same word in both folders, in whatever order and Unicode form; numbers whatever their zeros."""
    names = {1: "anna", 2: "jos\u00e9", 3: "0003", 4: "mia", 5: "zo\u00eb", 6: "6"}
    other = names | {2: "jose\u0301", 3: "3", 6: "0006"}
    query, query_ids, query_cams = make_folder(tmp_path / "q", 1, 12, 3)
    gallery, ids, cams = make_folder(tmp_path / "g", 2, 40, 3)
    for folder, words, labels in (("q", names, query_ids), ("g", other, ids)):
        path = tmp_path / folder / "images.csv"
        lines = [line.split(",") for line in path.read_text().splitlines()]
        lines[1:] = [[file, words[int(k)], camera] for (file, _, camera), k in zip(lines[1:], labels)]
        path.write_text("".join(",".join(line) + "\n" for line in lines))
    status, out, err = run(capsys, tmp_path / "q", tmp_path / "g")
    assert (status, err) == (0, "")
    assert_line(out.splitlines()[1], "features", rank(query, gallery, query_ids, ids, query_cams, cams))


def test_distractors_are_nobody_to_each_other(folders, tmp_path, capsys):
    """A query of identity 0 is left out, as eval leaves it out."""
    expected = run(capsys, *folders[:2])[1]
    features, ids, cams = (np.concatenate([x, x[:2]]) for x in folders[2][::2])
    ids[-2:] = 0
    files = [f"{i}.png" for i in range(len(ids))]
    write_features(tmp_path / "more", features, files, model="net", ids=ids.tolist(), cams=cams.tolist())
    out = run(capsys, tmp_path / "more", folders[1])[1]
    assert out == f"{expected}2 queries of identity 0, a distractor, are left out\n"


def test_cameras_of_nobody_are_known(folders, tmp_path, capsys):
    """As eval does: the same-camera rule is off, and that is said."""
    query, gallery, ids, gallery_ids = folders[2][:4]
    for name, features, labels in (("q", query, ids), ("g", gallery, gallery_ids)):
        files = [f"{i}.png" for i in range(len(labels))]
        cams = [None] * len(labels)
        write_features(tmp_path / name, features.numpy(), files, model="net", ids=labels.tolist(), cams=cams)
    *table, note = run(capsys, tmp_path / "q", tmp_path / "g")[1].splitlines()
    off = [torch.full_like(labels, side) for side, labels in enumerate((ids, gallery_ids))]
    assert_line(table[1], "features", rank(query, gallery, ids, gallery_ids, *off))
    assert note.startswith("cameras are not known: the same-camera rule is off")


def test_queries_without_a_match_and_copies_are_counted(folders, tmp_path, capsys):
    features, ids, cams = (np.concatenate([x, x[:3]]) for x in folders[2][::2])
    ids[-2:] = 77  # with nobody in the gallery, but its features are there
    files = [f"{i}.png" for i in range(len(ids))]
    write_features(tmp_path / "q", features, files, model="net", ids=ids.tolist(), cams=cams.tolist())
    notes = run(capsys, tmp_path / "q", folders[1])[1].splitlines()[9:]
    assert notes == ["13 of 15 queries have a match: for 2 the person is not in the gallery"]
    gallery = [np.concatenate([x, y[:4]]) for x, y in zip(folders[2][1::2], folders[2][::2])]
    gallery[2][-4:-1] += 10  # other cameras; the last one is as the query's, so that it is removed
    gallery[0][-4] *= np.float32(1 + 1e-7)
    files = [f"{i}.png" for i in range(len(gallery[1]))]
    rows = {"ids": gallery[1].tolist(), "cams": gallery[2].tolist()}
    write_features(tmp_path / "g", gallery[0], files, model="net", **rows)
    (note,) = run(capsys, folders[0], tmp_path / "g")[1].splitlines()[9:]
    assert note.startswith("3 of 12 queries have the very same features in the gallery")


def test_the_open_set(folders, capsys):
    query, gallery, case = folders
    found = Ranking(FeatureDistances(*case[:2]), Labels(*case[2:])).result(open_set=True).open_set
    people = case[2].numpy()
    value, low, high = (100 * x for x in interval(found.tpir(0.1), people))
    title, tenth, hundredth = run(capsys, query, gallery)[1].splitlines()[6:9]
    assert title == "open set, and 95 % interval over people:"
    assert tenth == f"  TPIR@0.1   {value:6.1f}   {low:.1f} to {high:.1f}"
    assert hundredth == "  TPIR@0.01       -   - to -"  # 12 queries are too few to allow one false positive


# ---- two models ----


def compared(out):
    """The lines of the comparison, by the names of their figures."""
    lines = out[out.index("\nfirst: ") :].strip().splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines[2:]}


def test_two_models_side_by_side(folders, tmp_path, capsys):
    """The other model's folders hold the same images in another order."""
    query, gallery, _ = folders
    pairs = []
    for name, noise in (("same", 0.0), ("worse", 6.0)):
        pair = []
        for folder in (open_features(query), open_features(gallery)):
            draw = np.random.default_rng(0)
            order = draw.permutation(len(folder))
            features = folder.features[order] + noise * draw.normal(size=folder.features.shape)
            labels = [folder.labels[place] for place in order]
            pair.append(tmp_path / name / folder.path.name)
            write_features(
                pair[-1],
                features.astype(np.float32),
                [folder.files[place] for place in order],
                model=name,
                ids=[label.identity for label in labels],
                cams=[label.camera for label in labels],
            )
        pairs.append(pair)
    plain = run(capsys, query, gallery)[1]
    status, out, err = run(capsys, query, gallery, "--against", *pairs[0])
    assert (status, err) == (0, "") and out.startswith(plain)
    for name, values in compared(out).items():
        assert values[0] == values[1] and (name == "TPIR@0.01" or values[2:] == "+0.0 +0.0 to +0.0".split())
    out = run(capsys, query, gallery, "--against", *pairs[1])[1]
    mAP = compared(out)["mAP"]
    assert float(mAP[0]) - 20 > float(mAP[1]) and float(mAP[2]) < -20 and float(mAP[5]) < 0
    worse = run(capsys, *pairs[1])[1].splitlines()
    assert worse[1].split()[1] == mAP[1]


def test_other_images_or_labels_are_not_compared(folders, tmp_path, capsys):
    query, gallery, _ = folders
    make_folder(tmp_path / "fewer", 1, 11, 3)
    status, _, err = run(capsys, query, gallery, "--against", tmp_path / "fewer", gallery)
    assert status == 1 and f"hold different images: 1 only in {query}, the first 11.png" in err
    make_folder(tmp_path / "others", 1, 12, 3, ids=[1] * 12)
    status, _, err = run(capsys, query, gallery, "--against", tmp_path / "others", gallery)
    assert status == 1 and f"{query} and {tmp_path / 'others'} label " in err
    images = tmp_path / "others" / "images.csv"
    images.write_text(images.read_text().replace("1.png", "0.png", 1))
    status, _, err = run(capsys, query, gallery, "--against", tmp_path / "others", gallery)
    assert status == 1 and "a file stands there twice" in err
