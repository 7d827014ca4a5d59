"""Maps by DensePose R-CNN, from files like the zoo's with random weights."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from zoo_files import MOBILE, VARIANTS, script_of, write_zoo_file, zoo_weights

from dsareid.commands.main import main
from dsareid.data.iuv import read_iuv
from dsareid.densepose import estimate_maps, estimate_missing, load_estimator
from dsareid.densepose.estimators.batcher import Batcher
from dsareid.densepose.estimators.densepose_rcnn import RCNN, _chosen, network_input
from dsareid.densepose.estimators.rcnn_file import read_weights
from dsareid.ground.errors import DSAError
from dsareid.ground.machine import on_threads

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    path = write_zoo_file(tmp_path_factory.mktemp("zoo") / "model.pkl", **VARIANTS["R_50_FPN_s1x"])
    yield path
    path.unlink()  # 256 MB, which pytest would keep


@pytest.fixture
def crops(tmp_path):
    random = np.random.default_rng(1)
    for k in range(3):
        pixels = random.integers(0, 256, (48, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    return tmp_path


def maps(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("[0-9].png"))}


def test_a_crop_is_seen_with_a_border_and_the_rows_that_are_asked_for(zoo):
    estimator = RCNN(zoo, "cpu")
    pixels, box = estimator._crop(np.zeros((128, 64, 3), np.uint8))
    assert pixels.shape == (1, 3, 416, 224)  # 160 x 80 with the border, 400 x 200 at 2.5, multiples of 32
    assert box.tolist() == [[20, 40, 180, 360]]
    estimator.rows = 1024
    pixels, box = estimator._crop(np.zeros((20, 600, 3), np.uint8))
    assert pixels.shape[3] == 1344 and box[0, 2] < 1333


def test_a_picture_gives_a_map_of_its_size(zoo):
    image = np.random.default_rng(0).integers(0, 256, (50, 20, 3), dtype=np.uint8)
    estimator = load_estimator(model=zoo, device="cpu", rows=128)
    found = estimator(image)
    assert found.iuv.shape == (50, 20, 3) and found.iuv.dtype == np.uint8
    assert found.uv.shape == (2, 50, 20) and 0 <= found.uv.min() <= found.uv.max() <= 1
    body = found.iuv[..., 0] > 0
    assert 0.05 < body.mean() < 0.95 and len(np.unique(found.iuv[..., 0])) > 5
    assert not found.iuv[~body].any() and 0 < found.probability <= 1 and found.others == 0
    for plane in (0, 1):
        assert np.array_equal(found.iuv[..., 1 + plane], np.trunc(255 * found.uv[plane]).astype(np.uint8))
    again = estimator([image[::-1], image], uv=False)[1]
    assert np.array_equal(again.iuv, found.iuv) and again.uv is None
    assert estimator.record() == {
        "estimator": "densepose-rcnn",
        "weights_sha256": estimator.network.digest,
        "trunk": "R_50",
        "decoder": True,
        "deeplab": False,
        "coarse": 2,
        "weighted": False,
        "rows": 128,
        "border": 0.125,
    }


def test_a_folder_is_estimated_once_and_resumed(zoo, crops, capsys):
    command = ["densepose", "estimate", str(crops), "--model", str(zoo), "--rows", "96", "--device", "cpu"]
    main(command)
    assert "3 maps written" in capsys.readouterr().out
    first = maps(crops / "iuv")
    assert len(first) == 3
    assert json.loads((crops / "iuv/estimator.json").read_text())["rows"] == 96
    (crops / "iuv/1.png").unlink()
    renamed = zoo.with_name("renamed.pkl")
    zoo.rename(renamed)
    try:
        report = estimate_maps(crops, model=renamed, rows=96, device="cpu")
    finally:
        renamed.rename(zoo)
    assert (report.written, report.kept) == (1, 2) and maps(crops / "iuv") == first
    with pytest.raises(DSAError, match=r"iuv: 3 of the maps were made by other settings"):
        estimate_maps(crops, model=zoo, rows=128, device="cpu")


def test_a_light_model(crops, tmp_path_factory):
    """One of DensePoseFnL, as torch.save leaves it."""
    weights = {
        name: torch.from_numpy(x) for name, x in zoo_weights(**MOBILE["mobile_parsing_rcnn_b_s3x"]).items()
    }
    path = tmp_path_factory.mktemp("mobile") / "model.pth"
    torch.save({"model": weights, "iteration": 9}, path)
    for options in ([], ["--detect"], ["--bfloat16"]):
        command = ["densepose", "estimate", str(crops), "--model", str(path), "--overwrite", *options]
        assert main([*command, "--device", "cpu"]) == 0
        assert json.loads((crops / "iuv/estimator.json").read_text())["trunk"] == "spnasnet_100"
        assert len(maps(crops / "iuv")) == 3
    assert len(np.unique(read_iuv(crops / "iuv/0.png")[..., 0])) > 4


def test_crops_that_go_together_have_nearly_the_same_maps(crops, monkeypatch):
    """As on CUDA; here with the light model, and whatever the threads make of it."""
    weights = {
        name: torch.from_numpy(x) for name, x in zoo_weights(**MOBILE["mobile_parsing_rcnn_b_s3x"]).items()
    }
    images = [
        np.random.default_rng(k).integers(0, 256, (48, 24 + k // 6, 3), dtype=np.uint8) for k in range(12)
    ]
    alone, together = RCNN(weights, "cpu"), RCNN(weights, "cpu")
    sizes = []

    def heads(given):
        sizes.append(len(given))
        return together._crop_heads(given)

    assert together.together is None  # on a processor threads must not wait for each other
    together.together = Batcher(heads, 32)
    for one, other in zip(map(alone, images), on_threads(together, images, 6), strict=True):
        assert one.iuv.shape == other.iuv.shape and (one.iuv[..., 0] == other.iuv[..., 0]).mean() > 0.99
    assert sum(sizes) == 12 and max(sizes) > 1


def test_weights_of_half_precision(zoo):
    weights = {name: value.bfloat16() for name, value in read_weights(zoo).items()}
    estimator = RCNN(weights, "cpu", rows=64)
    assert estimator(np.zeros((40, 20, 3), np.uint8)).iuv.shape == (40, 20, 3)
    assert estimator.digest != RCNN(zoo, "cpu").digest


@pytest.mark.parametrize("detect", [False, True])
def test_bfloat16_gives_nearly_the_same_map(zoo, monkeypatch, detect):
    small_photographs(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (60, 30, 3), dtype=np.uint8)
    exact, fast = (load_estimator(model=zoo, device="cpu", detect=detect, bfloat16=x) for x in (False, True))
    network = fast.network.network
    assert network.trunk.conv1.weight.dtype == network.head.convs[7].weight.dtype == torch.bfloat16
    assert network.trunk.bn1.weight.dtype == network.predictor.u.weight.dtype == torch.float32
    boxes = [(0, 0, 30, 60)] if detect else None
    one, other = (estimator(image, boxes=boxes) for estimator in (exact, fast))
    same = one.iuv[..., 0] == other.iuv[..., 0]
    assert not np.array_equal(one.uv, other.uv)
    assert same.mean() > 0.9 and np.abs(one.uv - other.uv)[:, same].mean() < 0.01
    assert fast.record() == exact.record() | {"bfloat16": True} and "bfloat16" not in exact.record()


def test_a_processor_without_bfloat16_is_told(zoo, monkeypatch, caplog):
    monkeypatch.setattr("dsareid.densepose.estimators.densepose_rcnn._has_bfloat16", lambda: False)
    load_estimator(model=zoo, device="cpu", bfloat16=True)
    assert "has no instructions for bfloat16: `bfloat16` makes it slower" in caplog.text


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning")
def test_weights_inside_torchscript(zoo, tmp_path):
    """The names that DensePose-TorchScript adds beside detectron2's do not matter."""
    weights = read_weights(zoo)
    again = {name.replace("bottom_up.res2", "bottom_up.stages.0"): value for name, value in weights.items()}
    again |= weights | {"pixel_mean": torch.zeros(3, 1, 1)}
    torch.jit.save(torch.jit.script(script_of(again)), tmp_path / "model.pt")
    image = np.random.default_rng(0).integers(0, 256, (48, 24, 3), dtype=np.uint8)
    one, other = (load_estimator(model=path, device="cpu") for path in (zoo, tmp_path / "model.pt"))
    assert np.array_equal(one(image).iuv, other(image).iuv)
    (tmp_path / "model.pt").unlink()  # 256 MB


def test_people_who_do_not_exist(zoo):
    with pytest.raises(ValueError, match="people must be one of all, one, not 'some'"):
        load_estimator(model=zoo, device="cpu", detect=True, people="some")


def small_photographs(monkeypatch):
    """Seen at a size that a test has time for."""
    monkeypatch.setattr("dsareid.densepose.estimators.densepose_rcnn.SHORTEST", 96)


def test_people_of_a_photograph(zoo, monkeypatch):
    small_photographs(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    everybody = load_estimator(model=zoo, device="cpu", detect=True)
    found = everybody(image)
    assert found.iuv.shape == (60, 90, 3) and found.others == 0 and found.probability > 0.5
    assert np.array_equal(found.instances > 0, found.iuv[..., 0] > 0) and found.instances.max() > 1
    one = load_estimator(model=zoo, device="cpu", detect=True, people="one")(image)
    mine = one.iuv[..., 0] > 0
    assert one.instances is None and mine.any()
    (number,) = np.unique(found.instances[mine])
    assert np.array_equal(mine, found.instances == number)
    assert np.array_equal(one.iuv[mine], found.iuv[mine]) and not one.iuv[~mine].any()
    assert one.others == pytest.approx(1 - mine.sum() / (found.instances > 0).sum())
    assert everybody.record()["people"] == "all" and "rows" not in everybody.record()


def test_nobody_in_a_photograph(zoo, monkeypatch):
    small_photographs(monkeypatch)
    for people in ("all", "one"):
        estimator = load_estimator(model=zoo, device="cpu", detect=True, people=people)
        estimator.network.network.detector.scores.bias.data = torch.tensor([-50.0, 50.0])
        found = estimator(np.zeros((60, 90, 3), np.uint8))
        assert not found.iuv.any() and not found.uv.any()
        assert (found.probability, found.others) == (0, 0)


def test_who_is_in_the_map():
    """Everybody with a score of at least .5; the main person is the largest of them, else the surest."""
    assert _chosen([0.2, 0.5, 0.9], [0.9, 0.6, 0.4]) == ([0, 1], 1)
    assert _chosen([0.2, 0.5], [0.3, 0.1]) == ([0], 0)
    assert _chosen([], []) == ([], None)


def test_instances_are_written_beside_the_maps(zoo, crops, monkeypatch, capsys):
    small_photographs(monkeypatch)
    (crops / "2.png").rename(crops / "b_IUV.png")  # which is not a picture then
    assert (
        main(["densepose", "estimate", str(crops), "--model", str(zoo), "--detect", "--device", "cpu"]) == 0
    )
    assert sorted(x.name for x in (crops / "iuv").glob("?_*.png")) == ["0_INDS.png", "1_INDS.png"]
    with Image.open(crops / "iuv/0_INDS.png") as image:
        assert image.mode == "L" and image.size == (24, 48)
        assert np.array_equal(np.array(image) > 0, read_iuv(crops / "iuv/0.png")[..., 0] > 0)
    assert main(["densepose", "estimate", str(crops / "0.png"), "--model", str(zoo), "--detect"]) == 0
    assert (crops / "0_IUV.png").exists() and (crops / "0_INDS.png").exists()


def test_given_boxes_take_the_place_of_the_detector(zoo, monkeypatch):
    small_photographs(monkeypatch)
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    estimator = load_estimator(model=zoo, device="cpu", detect=True)
    network = estimator.network.network
    levels = network.levels(network_input(image, 96, 144)[None])
    boxes, scores = network.detector(levels, 96, 144)
    own = torch.cat([boxes * 90 / 144, scores[:, None]], 1)
    found, given = estimator(image), estimator(image, boxes=own.flip(0).numpy())
    assert np.abs(found.iuv.astype(int) - given.iuv).mean() < 1  # the boxes are rounded once more
    assert given.instances.max() == found.instances.max()
    monkeypatch.setattr(network, "detector", None)
    left = estimator(image, boxes=[(-5, -5, 40, 70)])
    assert left.iuv[:, :40, 0].any() and not left.iuv[:, 40:].any() and not left.unsure
    assert estimator(image, boxes=[(0, 0, 40, 60, 0.3)]).unsure
    assert not estimator(image, boxes=[]).iuv.any()
    assert not estimator(image, boxes=[(100, 0, 120, 60)]).iuv.any()
    for wrong in ([(1, 2, 3)], [(5, 0, 5, 9)], [(0, 0, np.nan, 9)], [(0, 0, 1, 1)] * 256, [(0, 0, 9, 9, 87)]):
        with pytest.raises(ValueError, match="boxes must"):
            estimator(image, boxes=wrong)
    with pytest.raises(ValueError, match="boxes are for one picture"):
        estimator([image], boxes=[(0, 0, 9, 9)])
    with pytest.raises(ValueError, match="load the estimator with detect=True"):
        load_estimator(model=zoo, device="cpu")(image, boxes=[(0, 0, 9, 9)])


def test_a_person_below_the_least_score_is_named(zoo, crops, monkeypatch):
    small_photographs(monkeypatch)
    monkeypatch.setattr("dsareid.densepose.estimators.densepose_rcnn.MIN_SCORE", 2.0)
    report = estimate_maps(crops, model=zoo, device="cpu", detect=True)
    assert report.unsure == ["0.png", "1.png", "2.png"] and report.left_boxes == 0
    assert "nobody with a score of 0.5 or more, the best taken: 3 (0.png, 1.png, 2.png)" in report.lines()


def test_a_folder_with_given_boxes(zoo, crops, monkeypatch, capsys, tmp_path_factory):
    small_photographs(monkeypatch)
    file = tmp_path_factory.mktemp("boxes") / "boxes.csv"
    file.write_text(
        "image,x0,y0,x1,y1,score\n0.png,0,0,12,48,.9\n0.png,12,0,30,48,.8\n0.png,2,0,9,48,.1\n1.png,0,0,24,48,.2\n"
    )
    command = [
        "densepose",
        "estimate",
        str(crops),
        "--model",
        str(zoo),
        "--boxes",
        str(file),
        "--device",
        "cpu",
    ]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "no box given, all background: 1 (2.png)" in said
    assert "boxes left out for a score below 0.5: 1\n" in said
    assert "nobody with a score of 0.5 or more, the best taken: 1 (1.png)" in said
    assert "boxes reach beyond the picture and were cut off; are they of another size?: 1 (0.png)" in said
    with Image.open(crops / "iuv/0_INDS.png") as image:
        people = np.array(image)
    assert set(np.unique(people[:, :12])) == {0, 1} and set(np.unique(people[:, 12:])) == {0, 2}
    before = maps(crops / "iuv")
    assert main(command) == 0 and "0 maps written, 3 kept" in capsys.readouterr().out
    file.write_text(file.read_text().replace("1.png,0,0,24", "1.png,0,0,20"))
    assert main(command) == 1
    assert "1 of the maps were made by other settings or boxes" in capsys.readouterr().err
    assert main([*command, "--people", "one", "--overwrite"]) == 0
    assert not (crops / "iuv/0_INDS.png").exists() and maps(crops / "iuv") != before


def test_what_is_wider_than_tall_is_named(zoo, crops):
    Image.new("RGB", (40, 30)).save(crops / "wide.png")
    report = estimate_maps(crops, model=zoo, rows=64, device="cpu")
    assert report.wide == ["wide.png"]
    assert "wider than tall, yet taken as a crop of one person: 1 (wide.png)" in report.lines()


def test_maps_of_a_model_are_not_completed_by_bodypix(zoo, own_data):
    shutil.rmtree(own_data / "iuv")
    estimate_maps(own_data, model=zoo, rows=64, device="cpu")
    next((own_data / "iuv").glob("*/*.png")).unlink()
    with pytest.raises(
        DSAError, match=r"iuv: 1 maps are missing, and those .* made by densepose-rcnn: complete"
    ):
        estimate_missing(own_data, device="cpu")


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--rows", "5"], "--rows is a setting of DensePose R-CNN; it needs --model"),
        (["--model", "MODEL", "--rows", "5"], "--rows must be 64..1024, not 5"),
        (
            ["--model", "MODEL", "--quality", "best"],
            "--quality is a setting of BodyPix, which --model replaces",
        ),
        (["--model", "MODEL", "--weights", "."], "--weights is a setting of BodyPix, which --model replaces"),
        (
            ["--model", "MODEL", "--people", "all"],
            "--people all: with --model each picture is taken as a crop of",
        ),
        (
            ["--model", "MODEL", "--detect", "--rows", "99"],
            "--rows is for crops, and --detect for photographs",
        ),
        (["--boxes", "b.csv"], "--boxes are for a model of DensePose R-CNN; give it by --model"),
        (["--model", "MODEL", "--boxes", "b.csv", "--detect"], "--boxes take the place of the detector"),
        (["--model", "MODEL", "--boxes", "b.csv"], "b.csv: cannot be read: No such file"),
        (["--bfloat16"], "--bfloat16 is a setting of DensePose R-CNN; it needs --model"),
        (["--detect"], "--detect is a setting of DensePose R-CNN; it needs --model"),
        (["--model", "none.pkl"], "none.pkl: cannot be read: No such file or directory"),
        (["--model", "0.png"], "0.png: not readable as a pickle of arrays"),
    ],
)
def test_bad_settings(zoo, crops, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(crops)
    given = [str(zoo) if x == "MODEL" else x for x in arguments]
    assert main(["densepose", "estimate", ".", *given, "--device", "cpu"]) != 0
    assert words in capsys.readouterr().err
    assert not (crops / "iuv").exists()


@pytest.mark.skipif("DSA_REAL" not in os.environ, reason="DSA_REAL, the folder of real files, is not set")
def test_real_photographs_go_through(zoo, tmp_path):
    photographs = Path(os.environ["DSA_REAL"]) / "pairs"
    report = estimate_maps(photographs, tmp_path / "maps", model=zoo, rows=160, device="cpu")
    assert report.written == 4 and report.kept == 0 and not report.unreadable
    for path in (tmp_path / "maps").glob("*.png"):
        if path.stem == "contact_sheet":
            continue
        with Image.open(photographs / f"{path.stem}.jpg") as image:
            iuv = read_iuv(path)
            assert iuv.shape[:2] == image.size[::-1]
        assert len(np.unique(iuv[..., 0])) > 8
