"""Every form is read to the same bytes; nothing that comes from a file is run, believed or too much."""

import json
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch

from dsareid.data.iuv import write_iuv
from dsareid.densepose import read_source, sources
from dsareid.ground.errors import DSAError

BOX = [2.7, 3.2, 6.9, 8.4]  # 5 rows, 4 columns


def entry(charts, name="a.jpg", boxes=None, scores=None):
    boxes = torch.tensor([BOX] * len(charts)) if boxes is None else boxes
    scores = torch.linspace(0.9, 0.5, len(charts)) if scores is None else scores
    return {"file_name": name, "scores": scores, "pred_boxes_XYXY": boxes, "pred_densepose": charts}


def result(as_png, chart, **changes):
    """A COCO result of the chart."""
    return {
        "image_id": 7,
        "category_id": 1,
        "bbox": [2.7, 3.2, 4.2, 5.2],
        "score": 0.5,
        "uv_shape": list(chart.shape),
        "uv_data": as_png(chart),
    } | changes


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


def only_person(found):
    (detections,) = found
    (person,) = detections.people
    return person


# ---- the forms ----


def forms(mimic, as_png, labels, uv, chart):
    return {
        "floats": mimic.DensePoseChartResult(labels, uv),
        "confidences": mimic.DensePoseChartResultWithConfidences(labels, uv, torch.rand(5, 4), None),
        "small types": mimic.DensePoseChartResult(labels.to(torch.uint8), uv.double()),
        "quantized": mimic.DensePoseChartResultQuantized(torch.from_numpy(chart)),
        "compressed": mimic.DensePoseChartResultCompressed(chart.shape, as_png(chart)),
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_every_form_of_a_dump_gives_the_same_bytes(mimic, as_png, detection, tmp_path, legacy):
    for name, form in forms(mimic, as_png, *detection).items():
        path = mimic.save([entry([form], "dir/a.jpg")], tmp_path / "dump.pkl", legacy)
        (found,) = read_source(path)
        assert found.file_name == "dir/a.jpg"
        assert found.people[0].box == pytest.approx(BOX) and found.people[0].score == pytest.approx(0.9)
        chart = found.people[0].chart()
        assert chart.dtype == np.uint8 and np.array_equal(chart, detection[2]), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(mimic, detection, tmp_path, dtype):
    labels, uv, _ = detection
    path = mimic.save([entry([mimic.DensePoseChartResult(labels, uv.to(dtype))])], tmp_path / "dump.pkl")
    expected = (uv.to(dtype).double().clamp(0, 1) * 255).to(torch.uint8) * (labels > 0)
    assert np.array_equal(only_person(read_source(path)).chart()[1:], expected.numpy())


@pytest.mark.parametrize("value", [-1.1, 2.1, 255, torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_values_that_are_no_u_or_v_are_refused_in_the_body_alone(mimic, detection, tmp_path, value, dtype):
    labels, uv, chart = detection
    uv = uv.to(torch.float32)
    labels[1, 0], labels[1, 1] = 3, 0
    uv[:, 1, 1] = value  # the background
    path = mimic.save([entry([mimic.DensePoseChartResult(labels, uv.to(dtype))])], tmp_path / "dump.pkl")
    assert not only_person(read_source(path)).chart()[:, 1, 1].any()
    uv[1, 1, 0] = value
    path = mimic.save([entry([mimic.DensePoseChartResult(labels, uv.to(dtype))])], tmp_path / "dump.pkl")
    words = (
        "U or V is not a number" if value != value else r"U and V must be near 0..1, within -1..2, found .*"
    )
    with pytest.raises(DSAError, match=rf"dump.pkl: a.jpg, person 1: {words}"):
        only_person(read_source(path)).chart()


def test_u_and_v_in_bytes_are_named(mimic, detection, tmp_path):
    labels, uv, _ = detection
    bytes_of = mimic.DensePoseChartResult(labels, uv.clamp(0, 1) * 255)
    path = mimic.save([entry([bytes_of])], tmp_path / "dump.pkl")
    with pytest.raises(DSAError, match=r"found 0..255 \(are these 0..255\?\)"):
        only_person(read_source(path)).chart()


def test_images_without_a_detection(mimic, detection, tmp_path):
    empty = torch.empty(0), torch.empty(0, 4)
    entries = [
        entry([], "a.jpg", empty[1], empty[0]),
        {"file_name": "b.jpg"},
        {"file_name": "c.jpg", "scores": empty[0], "pred_boxes_XYXY": empty[1]},
        {"file_name": "d.jpg", "scores": [], "pred_boxes_XYXY": [], "pred_densepose": []},
        {"file_name": "e.jpg", "scores": empty[0], "pred_boxes_XYXY": empty[1], "pred_densepose": None},
    ]
    found = read_source(mimic.save(entries, tmp_path / "dump.pkl"))
    assert [(f.file_name, f.people) for f in found] == [(f"{x}.jpg", []) for x in "abcde"]


def test_a_dump_without_scores(mimic, detection, tmp_path):
    one = entry([mimic.DensePoseChartResult(*detection[:2])])
    del one["scores"]
    assert only_person(read_source(mimic.save([one], tmp_path / "dump.pkl"))).score is None


def test_the_predictions_of_an_evaluation(mimic, as_png, detection, tmp_path):
    """coco_densepose_predictions.pth: an entry for each person, quantised or compressed."""
    chart = detection[2]
    charts = (
        mimic.DensePoseChartResultQuantized(torch.from_numpy(chart)),
        mimic.DensePoseChartResultCompressed(chart.shape, as_png(chart)),
    )
    entries = [
        {
            "image_id": 7,
            "category_id": 0,
            "bbox": [2.7, 3.2, 4.2, 5.2],
            "score": 0.5,
            "densepose": form,
            "segmentation": {"size": [20, 20], "counts": "abc"},
        }
        for form in charts
    ]
    path = mimic.save(entries, tmp_path / "coco_densepose_predictions.pth")
    names = write_json(tmp_path / "names.json", {"images": [{"id": 7, "file_name": "a.jpg"}]})
    (found,) = read_source(path, names)
    assert found.file_name == "a.jpg" and len(found.people) == 2
    assert all(np.array_equal(person.chart(), chart) for person in found.people)
    with pytest.raises(DSAError, match="image_id 7 has no file name.*`images`"):
        read_source(path)


def test_coco_results(as_png, detection, tmp_path):
    chart = detection[2]
    flat = result(as_png, chart)
    nested = {key: flat[key] for key in ("image_id", "bbox", "score")}
    nested["densepose"] = {key: flat[key] for key in ("uv_shape", "uv_data")}
    listed = {"images": [{"id": 8, "file_name": "b.jpg"}, {"id": 7, "file_name": "a.jpg"}]}
    ways = {
        "own list": ({**listed, "annotations": [flat, nested]}, None),
        "--images": ([flat, nested], listed),
    }
    for name, (results, names) in ways.items():
        path = write_json(tmp_path / "results.json", results)
        given = names and write_json(tmp_path / "names.json", names)
        found = read_source(path, given)
        assert [(f.file_name, len(f.people)) for f in found] == [("b.jpg", 0), ("a.jpg", 2)], name
        for person in found[1].people:
            assert person.box == pytest.approx([2.7, 3.2, 6.9, 8.4]) and person.score == 0.5
            assert np.array_equal(person.chart(), chart)


def test_coco_results_that_name_their_images_themselves(as_png, detection, tmp_path):
    chart = detection[2]
    named = [result(as_png, chart, file_name="a.jpg"), result(as_png, chart, image_id="b.jpg")]
    found = read_source(write_json(tmp_path / "results.json", named))
    assert [f.file_name for f in found] == ["a.jpg", "b.jpg"]


def test_a_folder_of_classic_maps(tmp_path):
    iuv = np.random.default_rng(0).integers(0, 25, (6, 5, 3), dtype=np.uint8)
    for name in ("query/a.png", "query/b.x.png", "gallery/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_iuv(tmp_path / name, iuv)
    found = read_source(tmp_path)
    assert [f.file_name for f in found] == ["gallery/c", "query/a", "query/b.x"]
    person = found[0].people[0]
    assert person.box is None and np.array_equal(person.chart().transpose(1, 2, 0), iuv)
    write_iuv(tmp_path / "query/a_IUV.png", iuv)  # then the others are images, or INDS
    assert [f.file_name for f in read_source(tmp_path)] == ["query/a"]


def test_charts_are_decoded_only_when_asked_for(mimic, detection, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "decode_chart", lambda *_: pytest.fail("decoded"))
    labels, uv, _ = detection
    path = mimic.save([entry([mimic.DensePoseChartResult(labels, uv)] * 3)], tmp_path / "dump.pkl")
    assert len(read_source(path)[0].people) == 3


# ---- what a file must not do ----


class Bomb:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def bombs(marker):
    return {
        "system": Bomb(os.system, f"touch {marker}"),
        "eval": Bomb(eval, f"open({str(marker)!r}, 'w')"),
        "open": Bomb(open, str(marker), "w"),
        "memory": Bomb(bytearray, 10**9),
        "load": Bomb(torch.storage._load_from_bytes, b"x"),
        "sparse": torch.rand(3).to_sparse(),
    }


NAMES = {
    "system": r"(posix|nt)\.system",
    "eval": r"builtins\.eval|__builtin__\.eval",
    "open": r"io\.open",
    "memory": r"(builtins|__builtin__)\.bytearray",
    "load": r"torch\.storage\._load_from_bytes",
    "sparse": r"torch\._utils\._rebuild_sparse_tensor",
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["alone", "entry", "state"])
def test_hostile_pickles_are_refused_by_name(mimic, detection, tmp_path, name, place, legacy):
    marker = tmp_path / "marker"
    bomb = bombs(marker)[name]
    value = {
        "alone": bomb,
        "entry": [entry([mimic.DensePoseChartResult(*detection[:2])]) | {"more": bomb}],
        "state": [entry([mimic.DensePoseChartResult(detection[0], bomb)])],
    }[place]
    path = mimic.save(value, tmp_path / "dump.pkl", legacy)
    with pytest.raises(DSAError, match=rf"it holds ({NAMES[name]}), .*not loaded"):
        read_source(path)
    assert not marker.exists()


def test_hostile_pickles_in_other_forms(mimic, tmp_path):
    marker = tmp_path / "marker"
    bomb = bombs(marker)["system"]
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps([bomb]))
    (tmp_path / "oldest.pkl").write_bytes(pickle.dumps([bomb], protocol=0))
    with pytest.raises(DSAError, match="no file of torch.save.*pickle.dump"):
        read_source(tmp_path / "plain.pkl")
    with pytest.raises(DSAError, match="no file of torch.save.*pickle.dump"):
        read_source(tmp_path / "oldest.pkl")
    mimic.save([bomb], tmp_path / "new.pkl", protocol=4)
    with pytest.raises(DSAError, match="not readable as a file of torch.save: a pickle of protocol 4"):
        read_source(tmp_path / "new.pkl")
    assert not marker.exists()


def test_the_second_wall_stands_by_itself(mimic, tmp_path, monkeypatch):
    """Were a name missed when the names are read, torch's unpickler would refuse it."""
    from dsareid.densepose import dump

    marker = tmp_path / "marker"
    path = mimic.save([bombs(marker)["system"]], tmp_path / "dump.pkl")
    monkeypatch.setattr(dump, "_names_in_pickle", lambda pickled: iter(()))
    with pytest.raises(DSAError, match="dump.pkl: not readable .* holds what a dump does not") as caught:
        read_source(path)
    assert "weights_only" not in str(caught.value) and not marker.exists()


@pytest.mark.parametrize(
    "name,count,words",
    [
        ("DensePoseEmbeddingPredictorOutput", 2, r"structures\.cse\.\w+, output of a CSE model.*no U"),
        ("DensePoseChartPredictorOutput", 4, r"DensePoseChartPredictorOutput, the raw output.*apply_net"),
        ("Instances", 1, r"detectron2\.structures\.instances\.Instances, which a DensePose dump has no use"),
    ],
)
def test_other_classes_of_detectron2(mimic, tmp_path, name, count, words):
    form = getattr(mimic, name)(*[torch.rand(1, 2, 3, 3) for _ in range(count)])
    one = entry([], boxes=torch.tensor([BOX])) | {"pred_densepose": form}
    path = mimic.save([one], tmp_path / "dump.pkl")
    with pytest.raises(DSAError, match=words):
        read_source(path)


def test_embeddings_of_an_evaluation(mimic, tmp_path):
    one = {"image_id": "a", "bbox": [1, 2, 3, 4], "score": 0.5, "embedding": torch.rand(16, 3, 3)}
    with pytest.raises(DSAError, match="result 1: it holds embedding, output of a CSE model"):
        read_source(mimic.save([one], tmp_path / "predictions.pth"))


class Claim:
    """A tensor that claims a shape and strides on the storage of a few bytes."""

    def __init__(self, tensor, size, stride, offset=0):
        storage = torch.storage.TypedStorage(
            wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True
        )
        self.arguments = storage, offset, size, stride, False, {}

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.arguments


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "size,stride,offset",
    [
        ((3, 1000, 1000), (0, 0, 0), 0),
        ((3, 10**5, 10**5), (10**10, 10**5, 1), 0),
        ((3, 5, 4), (20, 4, 1), 100),
        ((3, 5, 4), (20, 4, 1), -1),
        ((3, 5, 4), (-20, 4, 1), 40),
        ((3, 5, -4), (20, 4, 1), 0),
    ],
)
def test_tensors_that_claim_more_than_the_file_holds(mimic, tmp_path, size, stride, offset, legacy):
    claim = Claim(torch.zeros(60, dtype=torch.uint8), size, stride, offset)
    box = torch.tensor([[0.0, 0, abs(size[2]), size[1]]])
    form = mimic.DensePoseChartResultQuantized(claim)
    path = mimic.save([entry([form], boxes=box)], tmp_path / "dump.pkl", legacy)
    with pytest.raises(DSAError, match="is no plain tensor|not readable as a file of torch.save"):
        only_person(read_source(path)).chart()


def test_a_compressed_archive(mimic, tmp_path):
    """A small archive may unpack to any size; torch.save never compresses."""
    path = mimic.save([entry([])], tmp_path / "dump.pkl")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.pkl", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(DSAError, match="is compressed, which torch.save never does"):
        read_source(tmp_path / "b.pkl")


def test_a_png_larger_than_it_says(as_png, detection, tmp_path):
    huge = as_png(np.zeros((3, 3000, 3000), np.uint8))
    for shape, box, words in (
        ((3, 5, 4), BOX, "RGB of 4x5, not RGB of 3000x3000"),
        ((3, 10**5, 10**5), [0, 0, 10**5, 10**5], "more than 33,554,432 pixels"),
        ((3, 3000, 3000), BOX, "3000x3000, but its box is 4.2x5.2"),
    ):
        x0, y0, x1, y1 = box
        one = result(as_png, detection[2], image_id="a", bbox=[x0, y0, x1 - x0, y1 - y0])
        path = write_json(tmp_path / "r.json", [one | {"uv_shape": shape, "uv_data": huge}])
        with pytest.raises(DSAError, match=f"result 1: .*{words}"):
            only_person(read_source(path)).chart()


# ---- what may be wrong ----


def spoilt(labels, uv):
    nan, high, low = uv.clone(), labels.clone(), labels.clone()
    nan[1, 2, 3], high[2, 2], low[4, 1] = torch.nan, 25, -1
    wide = torch.zeros(5, 9, dtype=torch.long)
    return {
        "NaN": (labels, nan, "not a number"),
        "25": (high, uv, "a part must be 0..24, found 0..25"),
        "-1": (low, uv, "a part must be 0..24, found -1..24"),
        "shapes": (labels, uv[:, :4].clone(), r"not \[5, 4\] and \[2, 4, 4\]"),
        "box": (wide, torch.zeros(2, 5, 9), "the chart is 9x5, but its box is 4.2x5.2"),
        "empty": (labels[:0], uv[:, :0], "the chart is 4x0"),
        "floats": (uv[0], uv, "labels must be a tensor of torch.uint8 or the like, not torch.float32"),
        "integers": (labels, labels, "uv must be a tensor of torch.float16 or the like, not torch.int64"),
        "text": ("labels", uv, "labels must be a tensor .* not str"),
        "nothing": (labels, None, "uv must be a tensor .* not NoneType"),
    }


@pytest.mark.parametrize("name", spoilt(torch.zeros(5, 4, dtype=torch.long), torch.zeros(2, 5, 4)))
def test_charts_that_are_wrong(mimic, detection, tmp_path, name):
    labels, uv, words = spoilt(*detection[:2])[name]
    good, bad = mimic.DensePoseChartResult(*detection[:2]), mimic.DensePoseChartResult(labels, uv)
    people = read_source(mimic.save([entry([good, bad])], tmp_path / "dump.pkl"))[0].people
    people[0].chart()
    with pytest.raises(DSAError, match=rf"dump.pkl: a.jpg, person 2: .*{words}"):
        people[1].chart()


@pytest.mark.parametrize(
    "mode,shape,words",
    [
        ("L", (3, 5, 4), "must be RGB of 4x5, not L of 4x5"),
        ("RGB", (3, 5, 5), "must be RGB of 5x5, not RGB of 4x5"),
        ("RGB", (1, 5, 4), "must have the shape 3, h, w"),
        ("RGB", (3, 5.0, 4), "must have the shape 3, h, w"),
        ("RGB", [[3], 5, 4], "must have the shape 3, h, w"),
        ("RGB", None, "must have the shape 3, h, w"),
        ("RGB", (3, 5, 0), "the chart is 0x5"),
    ],
)
def test_compressed_charts_that_are_wrong(as_png, detection, tmp_path, mode, shape, words):
    one = result(as_png, detection[2], image_id="a", uv_shape=shape, uv_data=as_png(detection[2], mode))
    with pytest.raises(DSAError, match=words):
        only_person(read_source(write_json(tmp_path / "r.json", [one]))).chart()


@pytest.mark.parametrize("data", ["", "AAAA", "Ä", "iVBORw0KGgo=", 7])
def test_damaged_pngs(as_png, detection, tmp_path, data):
    one = result(as_png, detection[2], image_id="a", uv_data=data)
    with pytest.raises(DSAError, match="damaged|a PNG in Base64"):
        only_person(read_source(write_json(tmp_path / "r.json", [one]))).chart()
    cut = result(as_png, detection[2], image_id="a")
    cut["uv_data"] = cut["uv_data"][:60]
    with pytest.raises(DSAError, match="damaged"):
        only_person(read_source(write_json(tmp_path / "r.json", [cut]))).chart()


def test_entries_that_are_wrong(mimic, detection, tmp_path):
    form = mimic.DensePoseChartResult(*detection[:2])
    two = torch.tensor([BOX, BOX])
    for value, words in (
        ([entry([form], boxes=two)], "boxes 2, scores 1, pred_densepose 1"),
        ([entry([form], scores=torch.rand(2))], "boxes 1, scores 2"),
        ([entry([], boxes=two, scores=torch.rand(2))], "boxes 2.*pred_densepose 0"),
        ([entry([form]) | {"pred_densepose": form}], "pred_densepose ChartResult"),
        ([entry([form], boxes=torch.rand(1, 5))], r"pred_boxes_XYXY must be \['N', 4\], not \[1, 5\]"),
        ([entry([form], scores=torch.tensor(0.5))], r"scores must be \['N'\], not \[\]"),
        ([entry([form], boxes=[BOX])], "pred_boxes_XYXY must be a tensor"),
        ([entry([form], boxes=torch.tensor([[0, 0, torch.nan, 1]]))], "person 1: box and score must be f"),
        ([entry([form], boxes=torch.tensor([[0, 0, torch.inf, 1]]))], "box and score must be finite"),
        ([entry([form], boxes=torch.tensor([[0, 0, 1e12, 1]]))], "box and score must be finite"),
        ([entry([form], scores=torch.tensor([torch.nan]))], "box and score must be finite"),
        ([entry([form], name=None)], "file_name must be the name of an image, not None"),
        ([entry([form], name="a\0.jpg")], "file_name must be the name"),
        ([entry([form], name="\x1b[2Ja.jpg")], "file_name must be the name"),
        ([{"scores": torch.rand(1)}], "file_name must be the name of an image"),
        ([[form]], "a list with a dictionary for each image"),
        ({"a": 1}, "a list with a dictionary for each image"),
    ):
        with pytest.raises(DSAError, match=words):
            read_source(mimic.save(value, tmp_path / "dump.pkl"))
    with pytest.raises(DSAError, match="a.jpg, person 1: a chart must be one of .* not dict"):
        only_person(read_source(mimic.save([entry([{"labels": 1}])], tmp_path / "dump.pkl"))).chart()


def test_results_that_are_wrong(as_png, detection, tmp_path):
    good = result(as_png, detection[2], image_id="a")
    for value, words in (
        ([good | {"bbox": [1, 2, 3]}], "result 1: bbox must be x, y, width, height"),
        ([good, good | {"bbox": [1, 2, 3, float("nan")]}], "result 2: bbox must be"),
        ([good | {"bbox": [1, 2, 3, 10**400]}], "bbox must be"),
        ([good | {"bbox": [1, 2, "3", True]}], "bbox must be"),
        ([good | {"bbox": {"x": 1}}], "bbox must be"),
        ([good | {"score": "high"}], "score must be finite"),
        ([good | {"score": float("inf")}], "score must be finite"),
        ([good | {"image_id": [1]}], "has no file name"),
        ([good | {"image_id": None}], "has no file name"),
        ([{"image_id": "a", "bbox": [1, 2, 3, 4]}], "no uv_shape and uv_data"),
        ([1], "a list with a dictionary"),
        ({"annotations": [good]}, "id and file_name of each image in images"),
        ({"a": 1}, "an object without annotations: a dictionary with 'a' in it"),
        ({"images": [{"id": 1}], "annotations": []}, "file_name must be the name"),
        ({"images": [{"id": [], "file_name": "a"}], "annotations": []}, "an id of its own"),
        ({"images": [{"id": 1, "file_name": "a"}] * 2, "annotations": []}, "an id of its own"),
        ({"images": []}, "an object without annotations: a dictionary with 'images' in it"),
        (
            {"images": [{"id": 100, "file_name": "a"}], "annotations": [good | {"image_id": "100"}]},
            "result 1: the image_id '100' is text, but the id of this image is a number; make them alike",
        ),
        (
            {"images": [{"id": "7", "file_name": "a"}], "annotations": [good | {"image_id": 7}]},
            "result 1: the image_id 7 is a number, but the id of this image is text",
        ),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}], "annotations": [good]},
            "images: a is the file_name of the id 1 and of 2",
        ),
    ):
        with pytest.raises(DSAError, match=words):
            read_source(write_json(tmp_path / "r.json", value))


def test_text_that_is_no_json(tmp_path):
    for text, words in (
        ("[", "not readable as JSON"),
        ("[" * 200_000, "not readable as JSON"),
        ("[1" + "0" * 5000 + "]", "not readable as JSON"),
        ("hello", "of no known form"),
        ("", r"r.json: it is empty \(0 bytes\); expected a folder"),
    ):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(DSAError, match=words):
            read_source(tmp_path / "r.json")
    (tmp_path / "r.json").write_bytes(b'["\xff"]')
    with pytest.raises(DSAError, match="not readable as JSON"):
        read_source(tmp_path / "r.json")


def test_images_is_for_coco_results_alone(mimic, tmp_path):
    names = write_json(tmp_path / "names.json", {"images": [{"id": 7, "file_name": "a.jpg"}]})
    path = mimic.save([entry([])], tmp_path / "dump.pkl")
    write_iuv(tmp_path / "a_IUV.png", np.zeros((3, 3, 3), np.uint8))
    for source in (path, tmp_path):
        with pytest.raises(DSAError, match="`images` is only for COCO results"):
            read_source(source, names)
    with pytest.raises(DSAError, match="missing.json: cannot be read"):
        read_source(path, tmp_path / "missing.json")
    (tmp_path / "empty.json").touch()
    with pytest.raises(DSAError, match=r"empty.json: it is empty \(0 bytes\)"):
        read_source(path, tmp_path / "empty.json")


def test_files_that_are_something_else(mimic, tmp_path):
    np.savez(tmp_path / "a.npz", iuv=np.zeros(3))
    np.savez_compressed(tmp_path / "b.npz", iuv=np.zeros(3))
    np.save(tmp_path / "c.npy", np.zeros(3))
    (tmp_path / "c.npy").rename(tmp_path / "c.pkl")
    (tmp_path / "empty.pkl").touch()
    write_iuv(tmp_path / "d_IUV.png", np.zeros((3, 3, 3), np.uint8))
    (tmp_path / "d_IUV.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    (tmp_path / "dump.pkl.gz").write_bytes(b"\x1f\x8b\x08")
    with zipfile.ZipFile(tmp_path / "maps.zip", "w") as archive:
        archive.writestr("maps/a_IUV.png", b"")
    mimic.save(torch.zeros(3), tmp_path / "tensor.pth")
    mimic.save({"model": torch.zeros(3), "optimizer": 1}, tmp_path / "model.pth")
    mimic.save([], tmp_path / "list.pkl")
    write_json(tmp_path / "list.json", [])
    write_json(tmp_path / "none.json", {"images": [], "annotations": []})
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("script/data.pkl", "script/code/__torch__.py"):
            archive.writestr(name, b"")
    for name, words in (
        ("a.npz", "it is an .npz of NumPy; expected a dump of detectron2"),
        ("b.npz", "it is an .npz of NumPy; expected a dump of detectron2"),
        ("c.pkl", "it is an .npy of NumPy; expected a folder"),
        ("empty.pkl", r"it is empty \(0 bytes\); expected a folder"),
        ("d_IUV.png", "it is one picture; give the folder that it is in"),
        ("d_IUV.jpg", "it is one picture, a JPEG"),
        ("dump.pkl.gz", "it is packed with gzip; unpack it"),
        ("maps.zip", "it is a zip archive, but not of torch.save"),
        (
            "tensor.pth",
            r"dictionary for each image or person, but it holds something else \(Tensor\); known: a folder",
        ),
        ("model.pth", "it holds a dictionary with 'model', 'optimizer' in it"),
        ("list.pkl", "it holds an empty list; expected a list with a dictionary for each image"),
        ("list.json", "it holds an empty list; expected a list with a dictionary for each image"),
        ("none.json", "it holds an empty list; expected a list with a dictionary for each image"),
        ("script.pt", "it is a TorchScript model"),
    ):
        with pytest.raises(DSAError, match=f"{name}: {words}|{name}: expected .*{words}"):
            read_source(tmp_path / name)


# ---- a folder of maps ----


def a_map(path, part, size=(4, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_iuv(path.with_name("new.png"), np.full((*size, 3), part, np.uint8))
    path.with_name("new.png").rename(path)


def test_maps_are_found_in_links_and_not_in_hidden_folders(tmp_path):
    a_map(tmp_path / "elsewhere/b_IUV.PNG", 1)
    a_map(tmp_path / "maps/a_IUV.png", 2)
    for name in (".trash/c_IUV.png", "__MACOSX/d_IUV.png", "@eaDir/e_IUV.png", "._a_IUV.png"):
        a_map(tmp_path / "maps" / name, 3)
    (tmp_path / "maps/query").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "maps/query/round").symlink_to(tmp_path / "maps")
    found = read_source(tmp_path / "maps")
    assert [(each.file_name, each.people[0].chart().max()) for each in found] == [("a", 2), ("query/b", 1)]


def test_files_beside_the_maps_are_counted(tmp_path, caplog):
    for name in ("a_IUV.png", "b_IUV.png", "a_INDS.png", "a_INDS.PNG"):
        a_map(tmp_path / name, 1)
    (tmp_path / "a.jpg").touch()
    with caplog.at_level("WARNING", "dsareid"):
        assert [each.file_name for each in read_source(tmp_path)] == ["a", "b"]
        assert not caplog.messages
        a_map(tmp_path / "c.png", 1)
        a_map(tmp_path / "d.PNG", 1)
        (tmp_path / "e_IUV.jpg").touch()
        assert len(read_source(tmp_path)) == 2
    assert (
        "PNGs that are not called NAME_IUV.png, 2 in all, such as c.png, were not taken for maps"
        in caplog.text
    )
    assert "maps that are not PNGs, 1 in all, such as e_IUV.jpg, were not read" in caplog.text


def test_instances_are_no_maps(tmp_path):
    a_map(tmp_path / "a_INDS.png", 1)
    with pytest.raises(
        DSAError, match=r"no NAME_IUV.png or NAME.png .* \(1 other files, as a_INDS.png\); exp"
    ):
        read_source(tmp_path)
    a_map(tmp_path / "a.png", 1)
    assert [each.file_name for each in read_source(tmp_path)] == ["a"]


def test_two_maps_of_one_image(tmp_path):
    a_map(tmp_path / "a_IUV.png", 1)
    a_map(tmp_path / "a.png", 1)
    read_source(tmp_path)[0].people[0].chart()
    a_map(tmp_path / "a.png", 2)
    with pytest.raises(DSAError, match="a_IUV.png and .*a.png differ, and both may be the map"):
        read_source(tmp_path)[0].people[0].chart()
    a_map(tmp_path / "a.png", 200)  # the photograph
    assert read_source(tmp_path)[0].people[0].chart().max() == 1
    a_map(tmp_path / "a_IUV.PNG", 1)
    with pytest.raises(DSAError, match="a_IUV.PNG and a_IUV.png are maps of one image"):
        read_source(tmp_path)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(DSAError, match="no.pkl: cannot be read: No such file"):
        read_source(tmp_path / "no.pkl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DSAError, match="no NAME_IUV.png or NAME.png in this folder or below, which is empty"):
        read_source(tmp_path / "empty")


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_dumps(mimic, detection, tmp_path, legacy):
    path = mimic.save([entry([mimic.DensePoseChartResult(*detection[:2])])], tmp_path / "dump.pkl", legacy)
    whole = path.read_bytes()
    for length in (*range(1, len(whole) - 1, len(whole) // 23), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DSAError, match=re.escape(str(path))):
            only_person(read_source(path)).chart()
    for cut in (1, 100, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        with pytest.raises(DSAError, match="its end is missing; was it written and copied to the end"):
            read_source(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_flipped_bits_end_in_a_chart_or_in_an_error_of_ours(mimic, detection, tmp_path, legacy):
    path = mimic.save([entry([mimic.DensePoseChartResult(*detection[:2])])], tmp_path / "dump.pkl", legacy)
    whole = path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(150):
        spoilt = bytearray(whole)
        spoilt[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(spoilt)
        try:
            for found in read_source(path):
                for person in found.people:
                    person.chart()
        except DSAError:
            refused += 1
    assert refused > 20


def test_a_name_that_is_endless_to_print(tmp_path):
    """Lists within lists by reference: 40 levels in a small file, 2**40 elements as text."""
    bomb = []
    for _ in range(40):
        bomb = [bomb, bomb]
    path = tmp_path / "dump.pkl"
    torch.save([{"file_name": bomb, "pred_boxes_XYXY": [], "pred_densepose": []}], path)
    with pytest.raises(DSAError, match="file_name must be the name of an image"):
        read_source(path)


def test_what_is_half_written_is_no_map(tmp_path):
    write_iuv(tmp_path / "a.png", np.zeros((5, 4, 3), np.uint8))
    (tmp_path / ".a-unfinished-0.png").write_bytes(b"half")
    assert [found.file_name for found in read_source(tmp_path)] == ["a"]
