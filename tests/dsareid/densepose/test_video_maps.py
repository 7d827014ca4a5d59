"""Maps of a video: followed, resumed, smoothed, drawn."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from dsareid.commands.main import main
from dsareid.data.iuv import read_iuv, read_pair
from dsareid.data.video import read_frames, write_video
from dsareid.densepose import estimate_video, load_estimator
from dsareid.densepose.estimators.bodypix import BodyPix
from dsareid.densepose.smoothing import RADIUS
from dsareid.densepose.video_maps import _windows
from dsareid.ground.errors import DSAError

pytest.importorskip("av")


@pytest.fixture
def video(tmp_path):
    """Seven frames of noise that moves."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    write_video(tmp_path / "walk.mp4", (noise[:, k : k + 24] for k in (0, 0, 2, 4, 6, 8, 8)), Fraction(10))
    return tmp_path / "walk.mp4"


@pytest.fixture(autouse=True)
def halves(monkeypatch):
    """Two people in every picture: the left half and the right half, which is the larger."""

    def tell(body, toward):
        return (
            torch.ones_like(body, dtype=torch.int64).index_fill_(1, torch.arange(body.shape[1] // 3), 2)
            * body
        )

    monkeypatch.setattr("dsareid.densepose.estimators.bodypix.tell_apart", tell)
    monkeypatch.setattr("dsareid.densepose.estimators.bodypix.BodyPix._threshold", lambda *_: 0.0)


def maps(out, folder="maps"):
    return {path.stem: path.read_bytes() for path in sorted((out / folder).glob("*.png"))}


def test_one_person_is_followed(video, tiny_bodypix, capsys):
    command = ["densepose", "estimate", str(video), "--weights", str(tiny_bodypix), "--device", "cpu"]
    assert main(command) == 0
    out = video.with_name("walk_IUV")
    said = capsys.readouterr().out
    assert f"{out}/maps: 7 maps written\n" in said and "all but one left out: 7 frames" in said
    assert sorted(maps(out)) == [f"{k:06}" for k in range(7)]
    everybody = load_estimator(weights=tiny_bodypix, device="cpu")
    for frame, path in zip(read_frames(video), sorted((out / "maps").glob("*.png"))):
        found = everybody(frame)
        assert np.array_equal(read_iuv(path), found.iuv * (found.instances == 1)[..., None])
    record = json.loads((out / "estimator.json").read_text())
    assert record["people"] == "one" and record["least_overlap"] and record["estimator"] == "bodypix"
    assert json.loads((out / "video.json").read_text()) == {"video": "walk.mp4", "rate": "10", "frames": 7}
    with Image.open(out / "contact_sheet.png") as image:
        assert image.height > 1000
    assert main([*command, str(out.with_name("left")), "--box", "0,0,8,40"]) == 0
    left = read_iuv(out.with_name("left") / "maps/000006.png")
    assert left[:, :8, 0].any() and not left[:, 8:].any()


def interrupting(call):
    """write_iuv, interrupted in this call."""
    from dsareid.data.iuv import write_iuv

    calls = iter(range(1, 1000))

    def write(*arguments):
        if next(calls) == call:
            raise KeyboardInterrupt
        write_iuv(*arguments)

    return write


def test_a_call_that_resumes_gives_the_same_bytes(video, tiny_bodypix, monkeypatch):
    options = {"weights": tiny_bodypix, "device": "cpu", "smooth": True}
    out = video.with_name("maps of it")
    report = estimate_video(video, out, **options)
    assert (report.written, report.kept) == (7, 0)
    before = maps(out), maps(out, "smoothed")
    for number in (2, 3, 6):
        (out / f"maps/{number:06}.png").unlink()
    report = estimate_video(video, out, **options)  # who is followed depends on the frames before
    assert (report.written, report.kept) == (5, 2) and (maps(out), maps(out, "smoothed")) == before
    other = video.with_name("interrupted")
    with monkeypatch.context() as patched:
        patched.setattr("dsareid.densepose.estimate_tasks.write_iuv", interrupting(3))
        with pytest.raises(
            KeyboardInterrupt, match=r"interrupted: 2 maps are in .*interrupted/maps; the same"
        ):
            estimate_video(video, other, **options)
    assert len(maps(other)) == 2
    report = estimate_video(video, other, **options)
    assert (report.written, report.kept) == (5, 2) and (maps(other), maps(other, "smoothed")) == before


def test_smoothed_maps_flicker_less(video, tiny_bodypix, capsys):
    report = estimate_video(video, weights=tiny_bodypix, device="cpu", smooth=True)
    out = video.with_name("walk_IUV")
    assert len(maps(out, "smoothed")) == 7
    before, after = report.flicker
    assert 0 < before.pixels and sum(after.mean_steps()) < sum(before.mean_steps())
    assert maps(out, "smoothed") != maps(out)
    words = "\n".join(report.lines())
    assert f"{out}/smoothed: 7 maps" in words and "before smoothing, where the picture" in words


def test_everybody(video, tiny_bodypix):
    report = estimate_video(video, weights=tiny_bodypix, device="cpu", people="all")
    with Image.open(report.out / "maps/000003_INDS.png") as image:
        people = np.array(image)
    assert np.array_equal(people > 0, read_iuv(report.out / "maps/000003.png")[..., 0] > 0)
    assert set(np.unique(people)) == {0, 1, 2} or set(np.unique(people)) == {1, 2}
    assert report.others == [] and report.begins == []
    one = estimate_video(video, weights=tiny_bodypix, device="cpu", people="one", overwrite=True)
    assert one.written == 7 and not list((report.out / "maps").glob("*_INDS.png"))


def test_maps_are_drawn_as_a_video(video, tiny_bodypix, tmp_path, capsys):
    pytest.importorskip("cv2")
    report = estimate_video(video, weights=tiny_bodypix, device="cpu", smooth=True)
    command = ["densepose", "render", str(report.out), str(tmp_path / "dense.mp4"), "--style"]
    assert main([*command, "magicanimate"]) == 0
    found = list(read_frames(tmp_path / "dense.mp4"))
    assert len(found) == 7 and found[0].shape == (40, 24, 3)
    assert (
        main([*command, "magicanimate"]) == 1 and "is there already; --overwrite" in capsys.readouterr().err
    )
    assert main([*command, "uv", "--overwrite"]) == 1
    assert "--style uv is not one picture a map; choose a folder" in capsys.readouterr().err
    assert main([*command[:3], str(tmp_path / "dense.webm"), *command[4:], "viton"]) == 1
    assert "must end in .mkv, .mov, .mp4" in capsys.readouterr().err
    for rate in ("0/0", "1/" + "9" * 30, "x"):
        (report.out / "video.json").write_text(json.dumps({"video": "a", "rate": rate, "frames": 7}))
        assert main([*command, "viton", "--overwrite"]) == 1
        assert "the rate must be 0.001..1000 frames a second, not" in capsys.readouterr().err
    (report.out / "smoothed/000006.png").unlink()
    assert main([*command, "viton", "--overwrite"]) == 1
    assert "6 maps of a video of 7 frames" in capsys.readouterr().err
    (report.out / "video.json").unlink()
    assert main([*command[:2], str(report.out / "maps"), *command[3:], "viton", "--overwrite"]) == 1
    assert "holds no maps of a video" in capsys.readouterr().err


def test_nobody_in_a_video(video, tiny_bodypix, monkeypatch):
    monkeypatch.setattr("dsareid.densepose.estimators.bodypix.BodyPix._threshold", lambda *_: 2.0)
    report = estimate_video(video, weights=tiny_bodypix, device="cpu", smooth=True)
    assert "nobody seen in any frame" in report.lines() and report.sheet is None
    assert len((report.out / "no_detection.txt").read_text().splitlines()) == 7


def test_a_video_that_was_cut_shorter(video, tiny_bodypix):
    options = {"weights": tiny_bodypix, "device": "cpu"}
    estimate_video(video, **options, people="all")
    write_video(video, list(read_frames(video))[:4], Fraction(10))
    report = estimate_video(video, **options, people="all")
    assert report.written == 4 and "maps of frames that the video no longer has, removed: 3" in report.lines()
    assert len(list((report.out / "maps").glob("*.png"))) == 8  # with those that say whose a pixel is


def test_two_videos_of_one_name(video, tiny_bodypix):
    options = {"weights": tiny_bodypix, "device": "cpu"}
    estimate_video(video, **options)
    other = video.rename(video.with_suffix(".mov"))
    with pytest.raises(
        DSAError, match=r"the maps of walk.mp4, not of walk.mov; dsareid densepose estimate with"
    ):
        estimate_video(other, **options)
    assert estimate_video(other, **options, overwrite=True).written == 0  # the same frames


def test_smoothed_maps_go_when_maps_change(video, tiny_bodypix, monkeypatch):
    options = {"weights": tiny_bodypix, "device": "cpu"}
    out = estimate_video(video, **options, smooth=True).out
    estimate_video(video, **options)
    assert len(maps(out, "smoothed")) == 7
    with pytest.raises(DSAError, match="nobody overlaps"):
        estimate_video(video, **options, box=(0, 0, 1, 1), overwrite=True)
    assert len(maps(out, "smoothed")) == 7  # nothing was written
    (out / "smoothed/mine.txt").touch()
    estimate_video(video, **options, quality="best", overwrite=True)
    assert [path.name for path in (out / "smoothed").iterdir()] == ["mine.txt"]
    with pytest.raises(DSAError, match="smoothed"):
        estimate_video(video, **options, quality="best", smooth=True)
    (out / "smoothed/mine.txt").unlink()
    (out / "smoothed").rmdir()
    estimate_video(video, **options, quality="best", smooth=True)
    whole = list(read_frames(video))
    monkeypatch.setattr("dsareid.densepose.video_maps.read_frames", lambda _: (frame for frame in whole[:4]))
    assert estimate_video(video, **options, quality="best").removed == 3
    assert not (out / "smoothed").exists()


def test_a_box_with_nobody_in_it(video, tiny_bodypix, monkeypatch):
    monkeypatch.setattr("dsareid.densepose.estimators.bodypix.BodyPix._threshold", lambda *_: 2.0)
    with pytest.raises(DSAError, match=r"`box=0,0,8,40`: in the first frame nobody overlaps with it by 0.3"):
        estimate_video(video, weights=tiny_bodypix, device="cpu", box=(0, 0, 8, 40))
    assert not video.with_name("walk_IUV").exists()


def test_unsure_frames_are_named(video, tiny_bodypix, monkeypatch):
    real = BodyPix.__call__
    monkeypatch.setattr(BodyPix, "__call__", lambda *given: real(*given)._replace(unsure=True))
    report = estimate_video(video, weights=tiny_bodypix, device="cpu")
    said = "nobody with a score of 0.5 or more, the best taken: 7 frames: 000000, 000001, 000002, ..."
    assert said in report.lines()


def test_maps_of_frames_fit_other_commands(video, tiny_bodypix, capsys):
    """They are read beside a picture of the frame, and are not taken for pictures."""
    out = estimate_video(video, weights=tiny_bodypix, device="cpu").out
    Image.fromarray(next(read_frames(video))).save(video.with_name("frame.png"))
    image, iuv = read_pair(video.with_name("frame.png"), out / "maps/000000.png")
    assert image.shape == iuv.shape
    command = ["densepose", "estimate", str(video.parent), str(video.parent / "iuv"), "--device", "cpu"]
    assert main([*command, "--weights", str(tiny_bodypix)]) == 0
    said = capsys.readouterr()
    assert "1 map written" in said.out and "skipped because they hold estimated maps: walk_IUV" in said.err


def test_what_is_refused(video, tiny_bodypix, capsys, monkeypatch, tmp_path):
    command = ["densepose", "estimate", str(video), "--weights", str(tiny_bodypix), "--device", "cpu"]
    for options, words in (
        (
            ["--smooth", "--people", "all"],
            "--smooth is for the one person who is followed, not for --people all",
        ),
        (["--box", "0,0,8,8", "--people", "all"], "--box is for the one person who is followed"),
        (["--box", "0,0,8"], "--box must be x0,y0,x1,y1 in whole pixels"),
        (["--box", "9,0,8,8"], "--box must be x0, y0, x1, y1 with x0 < x1 and y0 < y1, not [9, 0, 8, 8]"),
        (["--boxes", "a.csv"], "--boxes is for pictures, not for a video"),
        (["--protocol", "x"], "--protocol is for pictures, not for a video"),
    ):
        assert main([*command, *options]) == 1
        assert words in capsys.readouterr().err
    assert not video.with_name("walk_IUV").exists()
    picture = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(picture)
    for option in (["--smooth"], ["--box", "0,0,8,8"]):
        assert main([*command[:2], str(picture), *option]) == 1
        assert f"{option[0]} is for a video" in capsys.readouterr().err
    (tmp_path / "bad.mp4").write_bytes(video.read_bytes()[:-99])
    assert main([*command[:2], str(tmp_path / "bad.mp4"), *command[3:]]) == 1
    assert "bad.mp4: no frame in it can be decoded" in capsys.readouterr().err
    assert not (tmp_path / "bad_IUV").exists()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(DSAError, match="a video is estimated by one process"):
        estimate_video(video)


def test_maps_by_other_settings(video, tiny_bodypix, capsys):
    command = ["densepose", "estimate", str(video), "--weights", str(tiny_bodypix), "--device", "cpu"]
    assert main(command) == 0 and main([*command, "--quality", "best"]) == 1
    assert "7 of the maps were made by other settings" in capsys.readouterr().err
    assert main([*command, "--quality", "best", "--overwrite"]) == 0
    assert "7 maps written" in capsys.readouterr().out


def test_windows():
    found = [(frame, sorted(others)) for frame, others in _windows(iter(range(9)))]
    expected = [(k, [j for j in range(9) if j != k and abs(j - k) <= RADIUS]) for k in range(9)]
    assert found == expected
    assert list(_windows(iter(range(1)))) == [(0, [])] and list(_windows(iter(()))) == []
