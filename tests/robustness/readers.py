"""Every reader of files that come from outside: a small valid file for each, and how it is read.

tests/robustness/fuzz.py damages them; a read may end in a result or in a DSAError, and in nothing else.
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cuhk03_files
import mutate
import numpy as np
import torch
from coco_files import coco
from detectron2_files import Mimic
from PIL import ExifTags, Image
from scipy.io import savemat
from tfjs_files import SHARD, write_bodypix

from dsareid.data.folders import find_images
from dsareid.data.images import image_size, read_image
from dsareid.data.iuv import read_iuv, read_symmetry, write_iuv
from dsareid.data.labels import image_labels
from dsareid.data.layouts import cuhk03_matlab as cuhk03
from dsareid.data.layouts import list_data
from dsareid.data.layouts.summary import listing_summary
from dsareid.data.store.format import HEADER, VERSION
from dsareid.data.store.pack import pack
from dsareid.data.store.reader import open_store, verify
from dsareid.data.store.writer import JOURNAL
from dsareid.densepose import Person, compare_maps, convert, read_source
from dsareid.densepose.estimators.tfjs import GraphModel, read_graph, read_weights
from dsareid.densepose.lists import SEVERAL, update_people
from dsareid.densepose.people import choose_person
from dsareid.engine.learner import Learner
from dsareid.inference.feature_folder import open_features, write_features
from dsareid.models.options import NetworkConfig
from dsareid.report.results import group_results
from dsareid.runs.config import TrainConfig, load_config
from dsareid.runs.folder import Position, RunFolder, load_run
from dsareid.runs.log import read_log
from dsareid.runs.network import build_model, load_initial_weights
from dsareid.runs.records import Answer, EvaluatedAt, Evaluation, RankList, Row, format_table


class Reader(NamedTuple):
    """A way of reading, and a valid file for it."""

    make: Callable[[Path], None]
    """Writes what is read into an empty folder."""
    read: Callable[[Path], object]
    """Reads it; DSAError where it is not as it must be."""
    files: tuple[str, ...]
    """Those that are damaged, one at a time."""
    mutators: tuple[mutate.Mutator, ...] = (mutate.raw,)
    slow: bool = False
    """Takes long for each input, so that it gets a twentieth of the share of another one."""

    def made(self, folder: Path) -> dict[str, bytes]:
        """Make the valid files; the contents of those that are damaged."""
        self.make(folder)
        return {file: (folder / file).read_bytes() for file in self.files}


# ---- images ----


def _pixels(height: int = 24, width: int = 16) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 7 % 256, x * 11 % 256, (x + y) * 5 % 256], axis=2).astype(np.uint8)


def _iuv(height: int = 24, width: int = 16) -> np.ndarray:
    iuv = _pixels(height, width)
    iuv[..., 0] %= 25
    return iuv


def _image(name: str, mode: str = "RGB", **options) -> Reader:
    def make(folder: Path) -> None:
        Image.fromarray(_pixels()).convert(mode).save(folder / name, **options)

    def read(folder: Path) -> None:
        size = image_size(folder / name)
        if read_image(folder / name).shape[1::-1] != size:
            raise AssertionError(f"its header says {size}, but its pixels are of another size")

    mutators = (mutate.raw, mutate.png) if name.endswith("png") else (mutate.raw,)
    return Reader(make, read, (name,), mutators)


def _sideways() -> Image.Exif:
    """EXIF data of a picture that is to be turned."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def _make_symmetry(folder: Path) -> None:
    tables = np.empty((1, 24), object)
    for k in range(24):
        tables[0, k] = np.zeros((256, 256), np.uint8)
    content = {"U_transforms": tables, "V_transforms": tables}
    savemat(folder / "a.mat", content, do_compression=True)


# ---- data sets ----


def _make_person(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(_pixels()).save(root / name)


def _make_listed(folder: Path) -> None:
    rows = ["file,identity,split,camera"]
    for k, split in enumerate(["train", "train", "query", "gallery"]):
        _make_person(folder, f"some/{k}.png")
        rows.append(f"some/{k}.png,person {k // 2},{split},{k % 3}")
    (folder / "data.csv").write_text("\n".join(rows) + "\n")


_NAMES = {
    "market": [
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "query/0005_c1s1_000001_00.jpg",
        "bounding_box_test/0005_c2s1_000001_00.jpg",
        "bounding_box_test/-1_c2s1_000001_00.jpg",
        "iuv/query/0005_c1s1_000001_00.png",
    ],
    "cuhk01": [f"campus/{k:04d}00{shot}.png" for k in (1, 2, 3, 4, 5, 500) for shot in (1, 3)],
    "own": ["train/anna/1.jpg", "query/bert/hall_c1.jpg", "gallery/bert/c2_17.jpg", "iuv/train/anna/1.png"],
}


def _names(layout: str) -> Reader:
    """The names of files; the mutated file is the list of them, which becomes a folder."""

    def make(folder: Path) -> None:
        (folder / "names").write_text("\n".join(_NAMES[layout]))

    def read(folder: Path) -> None:
        root = folder / "root"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for line in (folder / "names").read_bytes().split(b"\n"):
            name = line.decode(errors="surrogateescape")
            if ".." in name or name.startswith("/"):
                continue
            with contextlib.suppress(OSError, ValueError):  # no name of a file
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).touch()
        files, _ = find_images(root)
        image_labels(root, files)
        listing_summary(list_data(root)).encode("utf-8", "surrogateescape")

    return Reader(make, read, ("names",), (mutate.raw, mutate.text))


def _make_cuhk03(folder: Path) -> None:
    (folder / "root").mkdir()
    cuhk03_files.write_images(folder / "root/cuhk-03.mat")
    for kind in cuhk03_files.KINDS:
        savemat(
            folder / "root" / cuhk03_files.CONFIG.format(kind), cuhk03_files.config(), do_compression=True
        )


def _read_cuhk03(folder: Path) -> None:
    shutil.rmtree(folder / "out", ignore_errors=True)
    cuhk03.write_image_files(folder / "root", folder / "out")


def _make_store(folder: Path) -> None:
    for k, split in enumerate(["bounding_box_train", "query", "bounding_box_test"]):
        name = f"{k:04d}_c{k + 1}s1_000001_00.png"
        _make_person(folder, f"data/{split}/{name}")
        (folder / f"data/iuv/{split}").mkdir(parents=True)
        write_iuv(folder / f"data/iuv/{split}/{name}", _iuv())
    pack(folder / "data", folder / "store")
    shutil.rmtree(folder / "data")


def _read_store(folder: Path) -> None:
    store = open_store(folder / "store")
    store.select("query", iuv=False)
    verify(store)


def _signed_header(data: bytes, rng: random.Random) -> bytes:
    """store.json changed, its checksum made right again."""
    content = json.loads(mutate.json_text(data, rng))
    if not isinstance(content, dict):
        return json.dumps(content).encode()
    content.pop("checksum", None)
    line = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps(content | {"checksum": hashlib.sha256(line.encode()).hexdigest()}).encode()


def _make_journal(folder: Path) -> None:
    """A store that is half packed."""
    _make_person(folder, "data/query/0001_c1s1_000001_00.png")
    pack(folder / "data", folder / "out")
    source = json.loads((folder / "out" / HEADER).read_text())["source"]
    key = {"version": VERSION, "source": source, "height": 24, "width": 16, "chunk": 512}
    (folder / "out").rename(folder / "partial")
    lines = [key, {"chunk": 0, "skipped": []}]
    (folder / "partial" / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))


def _read_journal(folder: Path) -> None:
    for name in ("out", ".out.partial"):
        shutil.rmtree(folder / name, ignore_errors=True)
    shutil.copytree(folder / "partial", folder / ".out.partial")
    pack(folder / "data", folder / "out", skip_broken=True)


# ---- DensePose ----


def _dump(name: str, legacy: bool, kind: str) -> Reader:
    def make(folder: Path) -> None:
        mimic = Mimic()
        labels, uv = torch.from_numpy(_iuv(5, 4)[..., 0].astype(np.int64)), torch.rand(2, 5, 4)
        if kind == "floats":
            charts = [mimic.DensePoseChartResult(labels, uv)]
        else:
            quantised = torch.from_numpy(_iuv(5, 4).transpose(2, 0, 1).copy())
            charts = [mimic.DensePoseChartResultQuantized(quantised)]
        entry = {
            "file_name": "a.jpg",
            "scores": torch.tensor([0.9]),
            "pred_densepose": charts,
            "pred_boxes_XYXY": torch.tensor([[2.0, 3.0, 6.0, 8.0]]),
        }
        mimic.save([entry, {"file_name": "b.jpg"}], folder / name, legacy)

    return Reader(make, _source(name), (name,), (mutate.raw,) if legacy else (mutate.raw, mutate.zipped))


def _source(name: str, images: str | None = None) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        for found in read_source(folder / name, images and folder / images):
            for person in found.people:
                person.chart()

    return read


def _make_coco(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(_iuv(5, 4)).save(buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode()
    result = {
        "image_id": 7,
        "category_id": 1,
        "bbox": [2.0, 3.0, 4.0, 5.0],
        "score": 0.5,
        "densepose": {"uv_shape": [3, 5, 4], "uv_data": data},
    }
    (folder / "results.json").write_text(json.dumps([result, result | {"image_id": 8}]))
    images = [{"id": key, "file_name": f"{key}.jpg"} for key in (7, 8)]
    (folder / "images.json").write_text(json.dumps({"images": images}))


def _make_converted(folder: Path, scale: int = 1) -> None:
    """COCO results that tell the sizes of their images, as DensePose saw them, and these."""
    _make_coco(folder)
    size = {"width": 16 * scale, "height": 24 * scale}
    images = [{"id": key, "file_name": f"{key}.png", **size} for key in (7, 8)]
    (folder / "images.json").write_text(json.dumps({"images": images}))
    (folder / "data").mkdir()
    for image in images:
        Image.fromarray(_pixels()).save(folder / "data" / image["file_name"])


def _convert(scale: str | None) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        shutil.rmtree(folder / "iuv", ignore_errors=True)
        convert(
            folder / "results.json",
            folder / "iuv",
            folder / "data",
            images=folder / "images.json",
            scale=scale,
        )

    return read


def _make_maps(folder: Path) -> None:
    for name in ("a_IUV.png", "a.png"):
        write_iuv(folder / name, _iuv())


def _make_people(folder: Path) -> None:
    people = [Person((1.0, 2.0, 9.0, 20.0), score, lambda: None) for score in (0.9, None)]
    update_people(folder / SEVERAL, {"query/a.jpg": choose_person(people, (16, 24), 0.5)}, ())


# ---- runs and weights ----

_NETWORK = NetworkConfig(width=1 / 32, head_width=1 / 32, depths=(1, 1, 1, 1), classifier="batchnorm")


def _make_run(folder: Path) -> None:
    run = folder / "run"
    run.mkdir()
    config = TrainConfig(
        data=folder / "data",
        out=run,
        height=32,
        width=32,
        dsap_size=8,
        weights="none",
        network=_NETWORK,
        device="cpu",
        model="baseline",
    )
    state = Learner(config, 3, torch.device("cpu")).state_dict()
    RunFolder(run).write_config(config)
    RunFolder(run).write_checkpoint(state, Position(), 3, {"images": 3})


def _read_run(folder: Path) -> None:
    load_run(folder / "run", "cpu")


def _weights(name: str) -> Reader:
    def make(folder: Path) -> None:
        from safetensors.torch import save_file

        state = {name: value.contiguous() for name, value in _network().mf.trunk.state_dict().items()}
        if name.endswith("safetensors"):
            save_file(state, folder / name)
        else:
            torch.save(state, folder / name, _use_new_zipfile_serialization="legacy" not in name)

    structured = {"a.safetensors": (mutate.safetensors,), "a.pth": (mutate.zipped,)}.get(name, ())
    return Reader(
        make,
        lambda folder: load_initial_weights(_network(), str(folder / name)),
        (name,),
        (mutate.raw, *structured),
    )


def _network():
    config = TrainConfig(data=Path("data"), out=Path("out"), network=_NETWORK, model="two-branch")
    return build_model(config, 3)


# ---- reports ----


def _make_report(folder: Path) -> None:
    run = RunFolder(folder / "run")
    run.path.mkdir()
    run.write_config(TrainConfig(data=Path("nowhere"), out=run.path, height=48, width=32, epochs=3))
    row = Row(name="DSA-reID", mAP=0.5, mINP=0.2, tpr=[0.3, 0.2, 0.1], cmc=[0.5] * 10)
    answer = Answer(name="bounding_box_test/a.jpg", identity="1", camera="2", distance=0.5, right=True)
    ranked = RankList(query="query/a.jpg", identity="1", camera="1", ap=0.5, gallery=[answer])
    plain = Evaluation(
        data="nowhere",
        dataset="own data",
        protocol="",
        synthetic=False,
        features="mf",
        reranked=False,
        model="dsa",
        checkpoint=EvaluatedAt(epoch=1, step=2),
        queries=1,
        skipped=0,
        gallery=2,
        rows=[row],
        baselines=[row],
        rank_lists=[ranked],
    )
    for features in ("mf", "fused"):
        run.write_evaluation(plain.model_copy(update={"features": features}), {})
    log = [{"step": k, "loss": 3.0 / k, "learning_rate": 0.1, "accuracy/f": 0.1} for k in (1, 2, 3)]
    run.log.write_text("".join(json.dumps(line) + "\n" for line in log))


def _read_report(folder: Path) -> None:
    run = RunFolder(folder / "run")
    read_log(run.log)
    for results in group_results(run.evaluations()):
        format_table(results.rows)


def _write_report(folder: Path) -> None:
    from dsareid.report import write_report

    write_report(folder / "run")


def _read_graph(folder: Path) -> None:
    graph = read_graph(folder / _GRAPH)
    nodes = {node.name: node for node in graph.modelTopology.node}
    GraphModel(nodes, read_weights(graph, folder), ["float_segments", "float_part_offsets"])


def _make_points(folder: Path) -> None:
    (folder / "maps").mkdir()
    write_iuv(folder / "maps/a.png", np.full((130, 70, 3), 2, np.uint8))
    mask = np.zeros((256, 256), bool)
    mask[60:200, 30:90] = True
    (folder / "coco.json").write_text(json.dumps(coco([mask])))


def _make_synth(folder: Path) -> None:
    from dsareid.synth.dataset import RECORD, SynthConfig, _record

    (folder / "out").mkdir()
    (folder / "out" / RECORD).write_text(json.dumps(_record(SynthConfig())))


def _read_synth(folder: Path) -> None:
    from dsareid.synth.dataset import SynthConfig, generate

    generate(folder / "out", SynthConfig())  # it is there already, or something else is


def _make_features(folder: Path) -> None:
    features = np.random.default_rng(0).random((3, 4), dtype=np.float32)
    names = [f"000{k}_c1s1_000001_00.jpg" for k in range(3)]
    ids = ["anna", -1, None]
    write_features(folder / "features", features, names, model="a model", images="images", ids=ids)


def _exported(name: str, *structured: mutate.Mutator) -> Reader:
    """What dsareid export writes."""

    def make(folder: Path) -> None:
        from dsareid.inference.export import export

        _make_run(folder)
        export(folder / "run", folder / name)

    def read(folder: Path) -> None:
        from dsareid.inference.embedder import embed

        embed(folder / name, "cpu")

    return Reader(make, read, (name,), (mutate.raw, *structured), slow=True)


_CONFIG = cuhk03.PROTOCOL_FILE.format("labeled")
_ARRAYS = tuple(f"store/{name}.npy" for name in ("images", "iuv", "ids", "names", "split"))
_JSON = (mutate.raw, mutate.json_text)
_REPORT = (
    "run/config.json",
    "run/evaluation.json",
    "run/evaluation-fused.json",
    "run/log.jsonl",
)

_GRAPH = "model-stride16.json"
READERS: dict[str, Reader] = {
    "png": _image("a.png"),
    "png, palette": _image("a.png", "P"),
    "png, grey": _image("a.png", "L"),
    "jpeg": _image("a.jpg"),
    **{f"{name}, turned": _image(f"a.{name}", exif=_sideways()) for name in ("jpg", "png", "tif", "webp")},
    "jpeg, progressive": _image("a.jpg", progressive=True, quality=90),
    "bmp": _image("a.bmp"),
    "tiff": _image("a.tif", compression="tiff_lzw"),
    "webp": _image("a.webp"),
    "ppm": _image("a.ppm"),
    "iuv": Reader(
        lambda folder: write_iuv(folder / "a.png", _iuv()),
        lambda folder: read_iuv(folder / "a.png"),
        ("a.png",),
        (mutate.raw, mutate.png),
    ),
    "symmetry": Reader(
        _make_symmetry,
        lambda folder: read_symmetry(folder / "a.mat"),
        ("a.mat",),
        (mutate.raw, mutate.mat5),
        slow=True,
    ),
    "data.csv": Reader(
        _make_listed,
        lambda folder: listing_summary(list_data(folder)),
        ("data.csv",),
        (mutate.raw, mutate.text),
    ),
    **{f"names, {layout}": _names(layout) for layout in _NAMES},
    "cuhk03 config": Reader(_make_cuhk03, _read_cuhk03, (f"root/{_CONFIG}",), (mutate.raw, mutate.mat5)),
    "cuhk03 images": Reader(_make_cuhk03, _read_cuhk03, ("root/cuhk-03.mat",)),
    "store header": Reader(
        _make_store, _read_store, (f"store/{HEADER}",), (mutate.raw, mutate.json_text, _signed_header)
    ),
    "store arrays": Reader(_make_store, _read_store, _ARRAYS),
    "journal": Reader(
        _make_journal, _read_journal, (f"partial/{JOURNAL}",), (mutate.raw, mutate.json_lines), slow=True
    ),
    "dump": _dump("dump.pkl", False, "floats"),
    "dump, quantised": _dump("dump.pkl", False, "quantised"),
    "dump, legacy": _dump("dump.pkl", True, "floats"),
    "coco": Reader(
        _make_coco, _source("results.json", "images.json"), ("results.json", "images.json"), _JSON
    ),
    "convert": Reader(_make_converted, _convert(None), ("results.json", "images.json"), _JSON, slow=True),
    "convert, scaled": Reader(
        lambda folder: _make_converted(folder, scale=2),
        _convert("2"),
        ("results.json", "images.json"),
        _JSON,
        slow=True,
    ),
    "folder of maps": Reader(_make_maps, _source(""), ("a_IUV.png", "a.png"), (mutate.raw, mutate.png)),
    "several_people.csv": Reader(
        _make_people,
        lambda folder: update_people(folder / SEVERAL, {}, ("query/b.jpg",)),
        (SEVERAL,),
        (mutate.raw, mutate.text),
    ),
    "config": Reader(
        _make_run, lambda folder: load_config(folder / "run/config.json"), ("run/config.json",), _JSON
    ),
    "run": Reader(_make_run, _read_run, ("run/config.json",), _JSON, slow=True),
    "checkpoint": Reader(
        _make_run, _read_run, ("run/checkpoint.pt",), (mutate.raw, mutate.zipped), slow=True
    ),
    "weights .pth": _weights("a.pth"),
    "weights, legacy": _weights("legacy.pth"),
    "weights .safetensors": _weights("a.safetensors"),
    "report files": Reader(_make_report, _read_report, _REPORT, (mutate.raw, mutate.json_lines)),
    "report": Reader(_make_report, _write_report, _REPORT, (mutate.json_lines,), slow=True),
    "graph": Reader(write_bodypix, _read_graph, (_GRAPH,), (mutate.raw, mutate.json_text)),
    "graph's weights": Reader(write_bodypix, _read_graph, (SHARD,), (mutate.raw,)),
    "marked points": Reader(
        _make_points,
        lambda folder: compare_maps(folder / "maps", folder / "coco.json"),
        ("coco.json",),
        _JSON,
    ),
    "synth.json": Reader(_make_synth, _read_synth, ("out/synth.json",), _JSON),
    "features": Reader(
        _make_features,
        lambda folder: open_features(folder / "features"),
        ("features/features.json", "features/features.npy", "features/images.csv"),
        (mutate.raw, mutate.text),
    ),
    "model .safetensors": _exported("a.safetensors", mutate.safetensors),
    "model .onnx": _exported("a.onnx"),
}


def _planted(fault: Callable[[], object]) -> Reader:
    return Reader(lambda folder: (folder / "a").write_bytes(b"a"), lambda folder: fault(), ("a",))


# Faults, to see that each is noticed.
PLANTED = {
    "planted error": _planted(lambda: {}["a"]),
    "planted crash": _planted(os.abort),
    "planted hang": _planted(lambda: time.sleep(1000)),
    "planted memory": _planted(lambda: bytearray(b"a") * (11 << 27)),
}


def find(name: str) -> Reader:
    return READERS[name] if name in READERS else PLANTED[name]
