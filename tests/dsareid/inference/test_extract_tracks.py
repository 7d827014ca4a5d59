"""Tracks of videos and frames: means of their crops, against the crops one by one."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from runs import make_run

from dsareid.commands.main import main
from dsareid.data.iuv import write_iuv
from dsareid.data.video import write_video
from dsareid.ground.errors import DSAError
from dsareid.inference import feature_parts
from dsareid.inference.embedder import embed
from dsareid.inference.extract_tracks import extract_tracks
from dsareid.inference.feature_folder import open_features

FRAMES, HEIGHT, WIDTH = 12, 96, 128
TRACKS = {3: (4, 20, 6), 8: (70, 10, -2)}  # left and top in the first frame, and pixels a frame


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("tracks") / "run")


def box(track, frame):
    left, top, step = TRACKS[track]
    return left + step * frame, top, 30, 60


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Two people who walk through noise; lossless."""
    folder, draw = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    looks = {track: draw.integers(0, 256, (60, 30, 3), dtype=np.uint8) for track in TRACKS}
    for frame in range(FRAMES):
        pixels = draw.integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        for track in TRACKS:
            left, top, width, height = box(track, frame)
            pixels[top : top + height, left : left + width] = looks[track] // (1 + frame % 3)
        Image.fromarray(pixels).save(folder / f"{frame + 1:06d}.png")
    return folder


def mot(path, tracks=TRACKS, order=lambda rows: rows):
    rows = [(frame, track) for track in tracks for frame in range(FRAMES)]
    lines = []
    for frame, track in order(rows):
        left, top, width, height = box(track, frame)
        lines.append(f"{frame + 1},{track},{left + 1},{top + 1},{width},{height},1,-1,-1,-1\n")
    path.write_text("".join(lines))
    return path


def crops(frames, track):
    for frame in range(FRAMES):
        left, top, width, height = box(track, frame)
        whole = np.asarray(Image.open(frames / f"{frame + 1:06d}.png"))
        yield whole[top : top + height, left : left + width]


def mean(features, weights):
    """Each half of norm 1."""
    halves = (weights[:, None] * features).sum(0).reshape(2, -1)
    return (halves / np.linalg.norm(halves, axis=1, keepdims=True)).ravel()


def test_means_of_tracks(run, frames, tmp_path):
    found = extract_tracks(
        run, frames, mot(tmp_path / "gt.txt"), tmp_path / "out", device="cpu", camera="gate"
    )
    assert (found.images, found.skipped, found.already) == (2, [], False)
    folder, embedder = open_features(tmp_path / "out"), embed(run, "cpu")
    assert folder.tracks == ["3", "8"] and [label.camera for label in folder.labels] == ["gate"] * 2
    for row, track in enumerate(TRACKS):
        features = embedder(list(crops(frames, track))).numpy()
        assert np.allclose(folder.features[row], mean(features, np.ones(FRAMES)), atol=1e-5)
        picture = np.asarray(Image.open(folder.images / folder.files[row])).astype(int)
        expected = next(crops(frames, track)).astype(int)
        assert picture.shape == expected.shape
        assert np.corrcoef(picture.sum(2).ravel(), expected.sum(2).ravel())[0, 1] > 0.8  # of noise, as JPEG
    assert extract_tracks(
        run, frames, tmp_path / "gt.txt", tmp_path / "out", device="cpu", camera="gate"
    ).already


def test_any_order_of_lines(run, frames, tmp_path):
    extract_tracks(run, frames, mot(tmp_path / "a.txt"), tmp_path / "a", device="cpu")
    extract_tracks(run, frames, mot(tmp_path / "b.txt", order=sorted), tmp_path / "b", device="cpu")
    assert np.array_equal(open_features(tmp_path / "a").features, open_features(tmp_path / "b").features)


def test_yolos_labels(run, frames, tmp_path):
    extract_tracks(run, frames, mot(tmp_path / "gt.txt"), tmp_path / "mot", device="cpu")
    labels = tmp_path / "labels"
    labels.mkdir()
    for frame in range(FRAMES):
        rows = []
        for track in TRACKS:
            left, top, width, height = box(track, frame)
            centre = (left + width / 2) / WIDTH, (top + height / 2) / HEIGHT
            rows.append(f"0 {centre[0]} {centre[1]} {width / WIDTH} {height / HEIGHT} 0.9 {track}\n")
        (labels / f"{frame + 1:06d}.txt").write_text("".join(rows))
    extract_tracks(run, frames, labels, tmp_path / "yolo", device="cpu")
    found = [open_features(tmp_path / name).features for name in ("mot", "yolo")]
    assert np.array_equal(*found)


def test_a_video(run, frames, tmp_path):
    """The video's colours lose a little; its frames are the same."""
    pytest.importorskip("av")
    pixels = [np.asarray(Image.open(file)) for file in sorted(frames.glob("*.png"))]
    write_video(tmp_path / "walk.mp4", pixels, Fraction(10))
    extract_tracks(run, tmp_path / "walk.mp4", mot(tmp_path / "gt.txt"), tmp_path / "video", device="cpu")
    extract_tracks(run, frames, tmp_path / "gt.txt", tmp_path / "frames", device="cpu")
    one, other = (open_features(tmp_path / name) for name in ("video", "frames"))
    assert one.tracks == other.tracks and (one.features * other.features).sum(1).min() > 1.8
    with (tmp_path / "gt.txt").open("a") as file:
        file.write(f"{FRAMES + 1},3,1,1,10,10\n")
    with pytest.raises(DSAError, match=f"frame 13, track 3: the video has {FRAMES} frames"):
        extract_tracks(run, tmp_path / "walk.mp4", tmp_path / "gt.txt", tmp_path / "more", device="cpu")


def test_crops_that_show_more_weigh_more(run, frames, tmp_path):
    """Half of the body in even frames, nothing in others: they hardly count."""
    maps = tmp_path / "maps"
    maps.mkdir()
    for frame in range(FRAMES):
        iuv = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        if frame % 2 == 0:
            left, top, width, height = box(3, frame)
            iuv[top : top + height, left : left + width, 0] = 1 + np.arange(height)[:, None] // 5
        write_iuv(maps / f"{frame + 1:06d}.png", iuv)
    gt = mot(tmp_path / "gt.txt", tracks=[3])
    assert (
        main(
            ["extract", str(run), str(frames), str(tmp_path / "out"), "--boxes", str(gt), "--maps", str(maps)]
        )
        == 0
    )
    folder = open_features(tmp_path / "out")
    features = embed(run, "cpu")(list(crops(frames, 3))).numpy()
    weights = np.where(np.arange(FRAMES) % 2 == 0, 12 / 24, 1 / 48)
    assert np.allclose(folder.features[0], mean(features, weights), atol=1e-5)
    (maps / "000004.png").unlink()
    with pytest.raises(DSAError, match="000004.png"):
        extract_tracks(run, frames, gt, tmp_path / "again", maps=maps, device="cpu")


def test_resumes(run, frames, tmp_path, monkeypatch):
    gt = mot(tmp_path / "gt.txt")
    extract_tracks(run, frames, gt, tmp_path / "whole", device="cpu", batch_size=5)
    monkeypatch.setattr(feature_parts, "PART", 5)
    write, made = feature_parts.save, []

    def failing(*arguments):
        made.append(1)
        if len(made) == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(feature_parts, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        extract_tracks(run, frames, gt, tmp_path / "out", device="cpu", batch_size=5)
    extract_tracks(run, frames, gt, tmp_path / "out", device="cpu", batch_size=5)
    assert len(made) == 3 + 3  # two of five parts were there
    found = [open_features(tmp_path / name).features for name in ("whole", "out")]
    assert np.allclose(*found, atol=1e-6) and not (tmp_path / "out" / "parts").exists()
    with pytest.raises(DSAError, match="holds features of another model or other images"):
        extract_tracks(run, frames, mot(gt, tracks=[3]), tmp_path / "out", device="cpu")


@pytest.mark.parametrize(
    "line, message",
    [
        ("13,3,1,1,10,10\n", "frame 13, but no picture in .* is that frame"),
        ("1,3,1,1,10,10\n", "000001.png, track 3 has two boxes"),
        ("5,9,500,1,10,10\n", "000005.png, track 9: its box lies outside of the frame"),
    ],
)
def test_boxes_that_do_not_fit(run, frames, tmp_path, line, message):
    gt = mot(tmp_path / "gt.txt")
    gt.write_text(gt.read_text() + line)
    with pytest.raises(DSAError, match=message):
        extract_tracks(run, frames, gt, tmp_path / "out", device="cpu")
    if "outside" in message:
        found = extract_tracks(run, frames, gt, tmp_path / "out", device="cpu", skip_broken=True)
        assert found.images == 2 and len(found.skipped) == 1


def test_labels_of_another_video(run, frames, tmp_path):
    pytest.importorskip("av")
    pixels = [np.asarray(Image.open(file)) for file in sorted(frames.glob("*.png"))]
    write_video(tmp_path / "walk.mp4", pixels, Fraction(10))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "other_1.txt").write_text("0 0.5 0.5 0.2 0.4 7\n")
    with pytest.raises(DSAError, match="other_1.txt belongs to no frame of .*walk.mp4"):
        extract_tracks(run, tmp_path / "walk.mp4", tmp_path / "labels", tmp_path / "out", device="cpu")


def test_rank_and_search_take_tracks(run, frames, tmp_path, capsys):
    gt = mot(tmp_path / "gt.txt")
    for camera in ("gate", "hall"):
        extract_tracks(run, frames, gt, tmp_path / camera, device="cpu", camera=camera)
        table = tmp_path / camera / "images.csv"
        text = table.read_text()
        assert text.startswith("file,identity,camera,track\ncrops/000003.jpg,,")
        table.write_text(text.replace("3.jpg,,", "3.jpg,anna,").replace("8.jpg,,", "8.jpg,ben,"))
    assert main(["rank", str(tmp_path / "gate"), str(tmp_path / "hall")]) == 0
    assert "100.0" in capsys.readouterr().out
    query = tmp_path / "gate" / "crops" / "000003.jpg"
    assert main(["search", str(run), str(query), str(tmp_path / "hall"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[2] == "anna"
    assert main(["extract", str(run), str(frames), str(tmp_path / "x"), "--camera", "gate"]) == 1
    assert "--maps and --camera are for tracks: give --boxes as well" in capsys.readouterr().err
