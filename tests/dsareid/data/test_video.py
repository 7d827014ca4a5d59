"""Videos: whole, upright, and nothing but the file."""

import struct
import wave
from fractions import Fraction

import numpy as np
import pytest

from dsareid.data import video
from dsareid.data.video import is_video, read_frames, video_header, write_video
from dsareid.ground.errors import DSAError

av = pytest.importorskip("av")


def drawn(count, height=48, width=64):
    """Red on the left; the upper half becomes greener from frame to frame."""
    for k in range(count):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[:, : width // 2, 0], pixels[: height // 2, :, 1] = 200, min(5 * k, 255)
        yield pixels


def written(
    path,
    pixel_format="yuv420p",
    codec="libx264",
    size=(48, 64),
    count=5,
    rate=25,
    first=0,
    options=(),
    metadata=(),
):
    with av.open(str(path), "w", options=dict(options)) as container:
        container.metadata.update(metadata)
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        for number, pixels in enumerate(drawn(count, *size), first):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "v.mp4"
    write_video(path, drawn(12, 47, 63), Fraction(30000, 1001))
    assert video_header(path) == (Fraction(30000, 1001), 12)
    found = list(read_frames(path))
    assert len(found) == 12 and all(each.shape == (48, 64, 3) and each.dtype == np.uint8 for each in found)
    assert abs(found[9][:47, :63].astype(int) - list(drawn(10, 47, 63))[9]).mean() < 3
    assert np.abs(found[3][46].astype(int) - found[3][47]).max() < 30  # the odd row is continued


def test_a_phone_held_upright(tmp_path):
    """A matrix in the file turns the picture by a quarter, clockwise."""
    path = tmp_path / "v.mp4"
    write_video(path, drawn(5), Fraction(25))
    content = path.read_bytes()
    start = content.index(b"tkhd") + 44
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(content[:start] + matrix + content[start + 36 :])
    plain, turned = (list(read_frames(each)) for each in (path, tmp_path / "turned.mp4"))
    assert turned[3].flags.c_contiguous and np.array_equal(turned[3], np.rot90(plain[3], -1))


@pytest.mark.parametrize(
    "pixel_format, codec",
    [
        ("yuv420p10le", "libx265"),
        ("yuv444p", "libx264"),
        ("gray", "libx264"),
        ("yuvj420p", "mjpeg"),
        ("rgba", "png"),
    ],
)
def test_odd_pixel_formats(tmp_path, pixel_format, codec):
    found = list(read_frames(written(tmp_path / "v.mov", pixel_format, codec)))
    assert len(found) == 5 and all(each.shape == (48, 64, 3) for each in found)
    middle = found[4][10, 40] if pixel_format != "gray" else found[4][10, 10]
    assert abs(int(middle[1]) - (20 if pixel_format != "gray" else 72)) < 14


def test_damaged_and_other_files(tmp_path):
    whole = written(tmp_path / "v.mp4", count=20).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile v.mp4\n")
    for name in ("cut", "empty", "text", "list"):
        with pytest.raises(DSAError, match=rf"{name}.mp4: not readable as a video, or damaged: "):
            list(read_frames(tmp_path / f"{name}.mp4"))
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(800))
    (tmp_path / "sound.wav").rename(tmp_path / "sound.mp4")
    with pytest.raises(DSAError, match=r"sound.mp4: no video in it"):
        video_header(tmp_path / "sound.mp4")
    with pytest.raises(DSAError, match=r"none.mp4: cannot be read: No such file"):
        list(read_frames(tmp_path / "none.mp4"))


def test_videos_whose_end_or_middle_is_missing(tmp_path):
    """In a file that begins with its index nothing but the pictures tells."""
    whole = written(tmp_path / "v.mp4", count=60, options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "end.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    matroska = written(tmp_path / "v.mkv", count=60).read_bytes()
    (tmp_path / "end.mkv").write_bytes(matroska[: len(matroska) * 6 // 10])
    broken = bytearray(whole)
    broken[len(whole) // 2 : len(whole) * 3 // 4] = bytes(len(whole) * 3 // 4 - len(whole) // 2)
    (tmp_path / "middle.mp4").write_bytes(broken)
    for name in ("end.mp4", "end.mkv", "middle.mp4"):
        with pytest.raises(
            DSAError, match=rf"{name}: (not readable as a video, or )?(damaged|its frames end)"
        ):
            list(read_frames(tmp_path / name))
    assert len(list(read_frames(tmp_path / "v.mkv"))) == len(list(read_frames(tmp_path / "v.mp4"))) == 60


@pytest.mark.parametrize("name, codec", [("v.mp4", "libx264"), ("v.mkv", "libx264"), ("v.avi", "mjpeg")])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_frames_a_second(tmp_path, name, codec, count):
    """The last frame is shown for a while, too."""
    path = written(tmp_path / name, "yuvj420p" if codec == "mjpeg" else "yuv420p", codec, count=count, rate=1)
    assert len(list(read_frames(path))) == count


def test_a_video_that_begins_late(tmp_path):
    for name in ("v.mkv", "v.mp4"):
        path = written(tmp_path / name, count=30, first=250)
        assert len(list(read_frames(path))) == 30


def test_names_of_other_alphabets_and_titles(tmp_path):
    path = written(tmp_path / "v.avi", codec="mpeg4", metadata={"title": "caf-"})
    path.write_bytes(path.read_bytes().replace(b"caf-", "café".encode("latin1")))
    assert len(list(read_frames(path))) == 5
    with pytest.raises(DSAError, match="must end in .mkv, .mov, .mp4"):
        write_video(tmp_path / "v.webm", drawn(2), Fraction(25))


def test_claims_of_size(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "MOST_PIXELS", 1000)
    with pytest.raises(DSAError, match="claims 64 x 48 pixels, too many"):
        list(read_frames(written(tmp_path / "v.mp4")))


def test_nothing_half_written(tmp_path):
    def broken():
        yield from drawn(2)
        raise DSAError("a map cannot be read")

    with pytest.raises(DSAError, match="a map cannot be read"):
        write_video(tmp_path / "v.mp4", broken(), Fraction(25))
    assert not list(tmp_path.glob("*.mp4"))


def test_names(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    assert is_video("a/B.MOV") and not is_video("a.jpg") and not is_video(tmp_path / "folder.mp4")


def test_without_pyav(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(DSAError, match="reading and writing videos needs PyAV: pip install av"):
        video_header(tmp_path / "v.mp4")
