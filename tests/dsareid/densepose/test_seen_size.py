"""Sources made on images of another size: refused before anything is written, or converted with `scale`."""

import json
import math
import re

import numpy as np
import pytest
import torch
from densepose_sources import HEIGHT, WIDTH, dump, person, write_images

from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.densepose import convert
from dsareid.densepose.seen_size import Scale, parse_scale
from dsareid.ground.errors import DSAError

NAMES = [f"query/{number:02d}.jpg" for number in range(20)]


def boxes_of(size, count, seed=0):
    """Boxes of people in crops of a size: near its edges, clipped to it."""
    rng = np.random.default_rng(seed)
    low, high = rng.uniform(0, 0.1, (count, 2)), rng.uniform(0.85, 1.05, (count, 2)).clip(max=1)
    low, high = low * size, high * size
    return np.concatenate([low, high], axis=1).tolist()


def seen_at(mimic, path, size, names=NAMES):
    people = {n: [person(mimic, box)] for n, box in zip(names, boxes_of(size, len(names)))}
    return dump(mimic, path, people)


@pytest.fixture
def many(tmp_path):
    return write_images(tmp_path / "data", *NAMES)


# ---- the option ----


@pytest.mark.parametrize(
    "text, expected",
    [
        ("0.5", Scale(0.5)),
        (2, Scale(2.0)),
        ("1/64", None),
        ("0.015625", Scale(1 / 64)),
        ("64", Scale(64.0)),
        ("128x256", Scale(size=(128, 256))),
        ("128X256", Scale(size=(128, 256))),
        *((bad, None) for bad in ("0", "-1", "65", "nan", "inf", "0.0156", "", "x", "ax2", "0x5", "1x2x3")),
        *(
            (bad, None)
            for bad in ("70000x70000", "9" * 400 + "x1", "-1x2", "1.5x2", True, math.nan, "²x3", [1])
        ),
    ],
)
def test_numbers_and_sizes(text, expected):
    if expected is None:
        with pytest.raises(DSAError, match=r"`scale=.*`: expected a number from 1/64 to 64, .* WIDTHxHEIGHT"):
            parse_scale(text)
    else:
        assert parse_scale(text) == expected and parse_scale(str(expected)) == expected


def test_a_scale_that_makes_an_image_too_large(mimic, tmp_path):
    root = write_images(tmp_path / "data", "query/a.jpg", size=(4000, 2000))
    source = dump(mimic, tmp_path / "dump.pkl", {"a.jpg": [person(mimic, (1, 1, 9, 9))]})
    with pytest.raises(
        DSAError, match="`scale=64`: an image of 4000x2000 would have been seen as 256000x128000"
    ):
        convert(source, tmp_path / "iuv", root, scale=64)
    assert not (tmp_path / "iuv").exists()


# ---- the check ----


@pytest.mark.parametrize(
    "size, hint",
    [((10, 20), "0.5"), ((5, 10), "0.25"), ((40, 80), "2"), ((60, 120), "3"), ((32, 128), "32x128")],
)
def test_boxes_of_another_size_are_refused_with_the_scale(mimic, tmp_path, many, run, size, hint):
    source, out = seen_at(mimic, tmp_path / "dump.pkl", size), tmp_path / "iuv"
    status, _, err = run(source, out, "--data", many)
    assert status == 1 and f"--scale {hint} may fit" in err and "--scale 1 takes the boxes as they are" in err
    assert not out.exists()
    status, _, err = run(source, out, "--data", many, "--scale", hint)
    assert status == 0 and len(list((out / "query").iterdir())) == 20, err


def test_all_made_to_one_size(mimic, tmp_path):
    """Boxes then end at the same pixel, whatever the image's size."""
    for number, name in enumerate(NAMES):
        write_images(tmp_path / "data", name, size=(WIDTH + 3 * number, HEIGHT + 4 * number))
    source = seen_at(mimic, tmp_path / "dump.pkl", (128, 256))
    with pytest.raises(DSAError, match="boxes leave 20 of 20 images .* `scale=128x256` may fit"):
        convert(source, tmp_path / "iuv", tmp_path / "data")


def test_sources_that_are_not_refused(mimic, tmp_path, many, caplog):
    small = {name: [person(mimic, (1, 1, 9, 9))] for name in NAMES}
    one_reaches = small | {NAMES[0]: [person(mimic, (1, 1, 19, 39))]}
    along_one_side = small | {NAMES[0]: [person(mimic, (1, 1, 9, 39))]}
    few = {name: along_one_side[name] for name in NAMES[:19]}
    two_leave = small | {name: [person(mimic, (1, 1, 30, 39))] for name in NAMES[:2]}
    three_leave = two_leave | {NAMES[2]: [person(mimic, (1, 1, 30, 39))]}
    nobody = dict.fromkeys(NAMES, [])
    for number, (people, words) in enumerate(
        (
            (seen_at(mimic, tmp_path / "right.pkl", (WIDTH, HEIGHT)), ""),
            (small, "no box reaches beyond 45% of the width or height of its image, in 20 images"),
            ({name: small[name] for name in NAMES[:3]}, "no box reaches beyond 45%"),
            (one_reaches, ""),
            (along_one_side, "no box reaches beyond 45% of the width of its image, in 20 images"),
            (few, ""),
            (two_leave, ""),
            (three_leave, "boxes leave 3 of 20 images with people, as that of query/00.jpg, 20x40"),
            (nobody, ""),
        )
    ):
        source = dump(mimic, tmp_path / f"{number}.pkl", people) if isinstance(people, dict) else people
        if words:
            with pytest.raises(DSAError, match=words):
                convert(source, tmp_path / f"iuv{number}", many)
        convert(source, tmp_path / f"iuv{number}", many, scale=1 if words else None)
    assert not caplog.messages


@pytest.mark.parametrize(
    "size, told", [((10, 20), "`scale=0.5` may fit"), ((20, 40), "without `scale` they")]
)
@pytest.mark.parametrize("scale", ["0.5", "2", "40x20", "4"])
def test_a_wrong_scale_is_refused_with_the_right_one(mimic, tmp_path, many, size, told, scale):
    source = seen_at(mimic, tmp_path / "dump.pkl", size)
    if size == (10, 20) and scale == "0.5":
        convert(source, tmp_path / "iuv", many, scale=scale)
        return
    with pytest.raises(DSAError, match=f"(boxes leave|no box reaches) .* by `scale={scale}`.*{told}"):
        convert(source, tmp_path / "iuv", many, scale=scale)
    assert not (tmp_path / "iuv").exists()
    convert(source, tmp_path / "iuv", many, scale=1)


@pytest.mark.parametrize("factor", [0.3, 0.45, 0.55, 1.1, 1.15, 1.3, 1.9, 2.2, 2.75, 7])
def test_an_uncommon_scale_is_not_taken_for_a_common_one(mimic, tmp_path, run, factor):
    root = write_images(tmp_path / "data", *NAMES, size=(100, 200))
    source = seen_at(mimic, tmp_path / "dump.pkl", (100 * factor, 200 * factor))
    _, _, err = run(source, tmp_path / "iuv", "--data", root)
    assert f"--scale {factor} may fit" in err
    status, _, err = run(source, tmp_path / "iuv", "--data", root, "--scale", factor)
    assert status == 0 and "may fit" not in err


@pytest.mark.parametrize(
    "size, seen, refused, words",
    [
        ((20, 40), (20, 20), True, "beyond 50% of the height of its image.*images of another size"),
        ((140, 500), (128, 256), True, "beyond 51% of the height"),
        ((20, 40), (20, 30), False, "beyond 75% of the height"),
    ],
)
def test_a_scale_of_one_side_alone(mimic, tmp_path, caplog, size, seen, refused, words):
    root = write_images(tmp_path / "data", *NAMES, size=size)
    source, hint = seen_at(mimic, tmp_path / "dump.pkl", seen), f"{seen[0]}x{seen[1]}"
    try:
        convert(source, tmp_path / "iuv", root)
    except DSAError as error:
        said = [str(error)]
    else:
        said = caplog.messages
    assert (not caplog.messages) == refused and len(said) == 1
    assert re.search(f"{words}.*`scale={hint}` may fit", said[0])
    caplog.clear()
    convert(source, tmp_path / "iuv", root, scale=hint, overwrite=True)
    assert not caplog.messages


@pytest.mark.parametrize("least, refused", [(125, True), (140, False)])
def test_images_of_many_sizes_that_all_were_seen_at_one(mimic, tmp_path, caplog, least, refused):
    for number, name in enumerate(NAMES):
        write_images(tmp_path / "data", name, size=(least + 3 * number, 2 * least + 4 * number))
    boxes = [(1, 1, 128, 256), *boxes_of((128, 256), 20)[1:]]
    source = dump(mimic, tmp_path / "dump.pkl", {n: [person(mimic, box)] for n, box in zip(NAMES, boxes)})
    words = "in 20 images with people boxes end as if all had been of one size.* `scale=128x256` may fit"
    if refused:
        with pytest.raises(DSAError, match=words):
            convert(source, tmp_path / "iuv", tmp_path / "data")
    else:
        convert(source, tmp_path / "iuv", tmp_path / "data")
        assert len(caplog.messages) == 1 and re.search(words, caplog.text)


def test_images_of_many_sizes_that_were_seen_as_they_are(mimic, tmp_path, caplog):
    people = {}
    for number, name in enumerate(NAMES):
        size = (100 + 3 * number, 250 - 4 * number)
        write_images(tmp_path / "data", name, size=size)
        people[name] = [person(mimic, box) for box in boxes_of(size, 1, number)]
    convert(dump(mimic, tmp_path / "dump.pkl", people), tmp_path / "iuv", tmp_path / "data")
    assert not caplog.messages


def test_small_people_in_few_photographs_are_doubted(mimic, tmp_path, many, caplog):
    """They may be small, so that it is said and not refused."""
    two = {name: [person(mimic, (1, 1, 9, 9))] for name in NAMES[:2]}
    convert(dump(mimic, tmp_path / "dump.pkl", two | dict.fromkeys(NAMES[2:], [])), tmp_path / "iuv", many)
    assert "no box reaches beyond 45% of the width or height of its image, in 2 images" in caplog.text


def test_a_reach_in_between_is_doubted(mimic, tmp_path, many, caplog):
    convert(seen_at(mimic, tmp_path / "dump.pkl", (15, 30)), tmp_path / "iuv", many)
    assert "no box reaches beyond 75% of the width or height" in caplog.text
    assert "`scale=0.75` may fit" in caplog.text


# ---- what it makes ----


def fitting(mimic, size):
    """People in other images who fit what was seen: one box outside is then no sign of another size."""
    return {name: [person(mimic, (0, 0, *size))] for name in NAMES}


def pasted(seen, box, chart):
    """uint8 [h, w, 3], by hand."""
    canvas = np.zeros((seen[1], seen[0], 3), np.uint8)
    x, y = int(box[0]), int(box[1])
    labels, uv = chart.labels.numpy(), (chart.uv.clamp(0, 1) * 255).to(torch.uint8).numpy()
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            if 0 <= y + row < seen[1] and 0 <= x + column < seen[0] and labels[row, column]:
                canvas[y + row, x + column] = labels[row, column], *uv[:, row, column]
    return canvas


@pytest.mark.parametrize(
    "scale, seen", [("0.5", (10, 20)), ("2", (40, 80)), ("1", (20, 40)), ("13x31", (13, 31))]
)
def test_a_chart_is_pasted_into_what_was_seen_and_resized(mimic, tmp_path, many, scale, seen):
    write_images(many, "query/a.jpg")
    for box in ((2.7, 3.2, 9.9, 18.1), (-3.5, -2, 6, 9), (5, 8, seen[0] + 4, seen[1] + 9)):
        _, chart = person(mimic, box)
        source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": [(box, chart)]} | fitting(mimic, seen))
        convert(source, tmp_path / "iuv", many, scale=scale, overwrite=True)
        expected = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        canvas = pasted(seen, box, chart)
        for y in range(HEIGHT):
            for x in range(WIDTH):
                expected[y, x] = canvas[
                    math.floor((y + 0.5) * seen[1] / HEIGHT), math.floor((x + 0.5) * seen[0] / WIDTH)
                ]
        assert expected.any() and np.array_equal(read_iuv(tmp_path / "iuv/query/a.png"), expected)


def test_shares_are_of_what_was_seen(mimic, tmp_path, root, many):
    people = [person(mimic, (0, 0, 5, 20)), person(mimic, (0, 0, 10, 10))]
    source = dump(mimic, tmp_path / "dump.pkl", {"query/a.jpg": people})
    report = convert(source, tmp_path / "iuv", root, scale=0.5)
    rows = (tmp_path / "iuv/several_people.csv").read_text().splitlines()
    assert [row.split(",")[3] for row in rows[1:]] == ["0.500", "0.500"] and not report.outside
    outside = {"query/a.jpg": [person(mimic, (0, 0, 15, 20))]} | fitting(mimic, (10, 20))
    source = dump(mimic, tmp_path / "dump.pkl", outside)
    assert convert(source, tmp_path / "iuv", root, scale=0.5).outside == ["query/a.jpg"]


def whole_map(path, size, part=7):
    path.parent.mkdir(exist_ok=True, parents=True)
    iuv = np.full((size[1], size[0], 3), part, np.uint8)
    iuv[: size[1] // 2] = 0
    write_iuv(path, iuv)
    return path.parent


@pytest.mark.parametrize(
    "size, hint", [((10, 20), "0.5"), ((40, 80), "2"), ((26, 52), "1.3"), ((30, 30), "30x30")]
)
def test_whole_maps_of_another_size(tmp_path, root, run, size, hint):
    source = whole_map(tmp_path / "maps/a_IUV.png", size)
    out = tmp_path / "iuv"
    status, _, err = run(source, out, "--data", root)
    assert status == 1 and f"the map of query/a.jpg is {size[0]}x{size[1]}, but its image" in err
    assert f"--scale {hint} may fit" in err
    assert run(source, out, "--data", root, "--scale", hint)[0] == 0
    expected = np.zeros((HEIGHT, WIDTH, 3))
    expected[HEIGHT // 2 :] = 7
    assert np.array_equal(read_iuv(out / "query/a.png"), expected)
    status, _, err = run(source, tmp_path / "iuv2", "--data", root, "--scale", "5")
    assert status == 1 and f"20x40, was seen as 100x200 by --scale 5; --scale {hint} may fit" in err


def test_maps_of_odd_sizes_rounded_either_way(tmp_path):
    root = write_images(tmp_path / "data", "a.jpg", size=(65, 131))
    for size in ((32, 65), (33, 66)):
        whole_map(tmp_path / "maps/a_IUV.png", size)
        convert(tmp_path / "maps", tmp_path / "iuv", root, scale=0.5, overwrite=True)
        assert read_iuv(tmp_path / "iuv/a.png").shape == (131, 65, 3)
    whole_map(tmp_path / "maps/a_IUV.png", (34, 66))
    with pytest.raises(
        DSAError, match="a.jpg is 34x66, but its image .*, 65x131, was seen as 32x66 by `scale=0.5`"
    ):
        convert(tmp_path / "maps", tmp_path / "iuv", root, scale=0.5, overwrite=True)


# ---- sizes that COCO annotations tell ----


def coco(as_png, path, sizes):
    """Results with a person in each image, and annotations that tell its size, None or (width, height)."""
    chart = np.full((3, 8, 6), 7, np.uint8)
    images = [
        {"id": name, "file_name": name} | ({"width": size[0], "height": size[1]} if size else {})
        for name, size in sizes.items()
    ]
    person = {"bbox": [2, 3, 6, 8], "score": 1, "uv_shape": [3, 8, 6], "uv_data": as_png(chart)}
    results = [person | {"image_id": name} for name in sizes]
    path.write_text(json.dumps({"images": images, "annotations": results}))
    return path


def test_sizes_that_are_told(as_png, tmp_path, root, caplog):
    path, a, b = tmp_path / "r.json", "query/a.jpg", "query/b.jpg"
    for sizes, words in (
        (
            {a: (10, 20), b: (10, 20)},
            "not those of 2 images: by it query/a.jpg is 10x20, .* 20x40; `scale=0.5` f",
        ),
        (
            {a: (20, 40), b: (40, 80)},
            "not those of 1 image: by it query/b.jpg is 40x80, .*; no single scale fits",
        ),
        ({a: (30, 30), b: (30, 30)}, "`scale=30x30` fits; `scale=1` takes"),
    ):
        with pytest.raises(DSAError, match=words):
            convert(coco(as_png, path, sizes), tmp_path / "iuv", root)
        assert not (tmp_path / "iuv").exists()
    convert(coco(as_png, path, {a: (20, 40)}), tmp_path / "iuv", root)
    assert not caplog.messages
    for size in (None, (0, 0), (None, 40), ("20", "40")):  # not told, so that the box is looked at
        caplog.clear()
        convert(coco(as_png, path, {a: size}), tmp_path / "iuv", root)
        (note,) = caplog.messages
        assert "no box reaches beyond 40% of the width" in note
    caplog.clear()
    convert(coco(as_png, path, {a: (10, 20)}), tmp_path / "iuv", root, scale=0.5)
    assert not caplog.messages
    with pytest.raises(
        DSAError, match="is 10x20, but it is 40x80 by `scale=2`; `scale=0.5` fits; `scale=1` t"
    ):
        convert(coco(as_png, path, {a: (10, 20)}), tmp_path / "iuv", root, scale=2)
    convert(coco(as_png, path, {a: (10, 20)}), tmp_path / "iuv", root, scale=1)
    assert "its sizes of 1 image are not those of `scale=1`: query/a.jpg is 10x20, not 20x40" in caplog.text


# ---- images that EXIF turns upright ----

SIDEWAYS = [5, 6, 7, 8]


@pytest.mark.parametrize("turned", range(1, 9))
def test_maps_are_of_the_upright_image(mimic, tmp_path, run, turned):
    root = write_images(tmp_path / "data", "a.jpg", turned=turned)
    source = dump(mimic, tmp_path / "dump.pkl", {"a.jpg": [person(mimic, (1, 1, 19, 39))]})
    status, printed, err = run(source, tmp_path / "iuv", "--data", root)
    assert status == 0 and read_iuv(tmp_path / "iuv/a.png").shape == (HEIGHT, WIDTH, 3), err
    words = "turned upright by EXIF: 1 image (a.jpg); their maps must be of the upright pictures"
    assert (words in printed) == (turned > 1)


@pytest.mark.parametrize("turned", SIDEWAYS)
def test_maps_of_the_image_before_its_turn(mimic, as_png, tmp_path, turned):
    root = write_images(tmp_path / "data", "a.jpg", turned=turned)
    words = rf"40x20, the file's size before .* EXIF .*\(orientation {turned}\).* here it is 20x40"
    whole = whole_map(tmp_path / "maps/a_IUV.png", (HEIGHT, WIDTH))
    boxes = dump(mimic, tmp_path / "dump.pkl", {"a.jpg": [person(mimic, (1, 1, 39, 19))]})
    told = coco(as_png, tmp_path / "r.json", {"a.jpg": (HEIGHT, WIDTH)})
    for source, where in (
        (whole, "the map fits"),
        (boxes, "boxes of a.jpg fit"),
        (told, "its size of a.jpg is"),
    ):
        with pytest.raises(DSAError, match=f"{where} {words}"):
            convert(source, tmp_path / "iuv", root)
    assert not list((tmp_path / "iuv").rglob("*.png"))
