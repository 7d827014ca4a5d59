"""The data set on disk."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsareid.data.iuv import read_iuv
from dsareid.ground.errors import DSAError
from dsareid.synth import DIFFICULTIES, SynthConfig, dataset, generate, image_count

SMALL = SynthConfig(identities=5, images=4, height=48, width=24, seed=3, processes=1)
NAME = re.compile(r"(\d{4})_c([1-6])s1_(\d{6})_(\d{2,})\.jpg")


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "set"
    generate(out, SMALL)
    return out


def shots(root: Path, split: str) -> list[tuple[int, int]]:
    """Identity and camera of each image."""
    names = [NAME.fullmatch(path.name) for path in (root / split).iterdir()]
    return [(int(name[1]), int(name[2])) for name in names]


def test_layout(made):
    images = sorted(p.relative_to(made) for p in made.rglob("*.jpg"))
    maps = sorted(p.relative_to(made / "iuv") for p in made.rglob("*.png"))
    assert [p.with_suffix("") for p in images] == [p.with_suffix("") for p in maps]
    assert len(images) == image_count(SMALL) == 5 * 4 + 1 * 2
    assert {p.parts[0] for p in images} == {"bounding_box_train", "query", "bounding_box_test"}
    record = json.loads((made / "synth.json").read_text())
    assert record["synthetic"] is True and record["identities"] == 5


def test_images_and_maps_fit(made):
    persons = 0
    for path in made.rglob("*.jpg"):
        with Image.open(path) as image:
            assert image.size == (24, 48) and image.mode == "RGB"
        iuv = read_iuv((made / "iuv" / path.relative_to(made)).with_suffix(".png"))
        assert iuv.shape == (48, 24, 3)
        persons += iuv[..., 0].any()
    assert persons > 10


def test_identities_are_consecutive_and_split_in_halves(made):
    train = {pid for pid, _ in shots(made, "bounding_box_train")}
    query = {pid for pid, _ in shots(made, "query")}
    gallery = {pid for pid, _ in shots(made, "bounding_box_test")}
    assert train == {1, 2} and query == {3, 4, 5} and gallery == {0, 3, 4, 5}


@pytest.mark.parametrize("images", [2, 3, 6, 7, 13])
def test_every_query_has_a_match_in_another_camera(images):
    config = replace(SMALL, identities=9, images=images)
    cameras = defaultdict(lambda: defaultdict(list))
    names = []
    for person in range(dataset.people_count(config)):
        for shot in dataset.plan_shots(config, person):
            cameras[shot.split][int(shot.stem[:4])].append(shot.camera)
            names.append(shot.stem)
    assert len(names) == len(set(names)) == image_count(config)
    assert sorted(cameras["query"]) == [5, 6, 7, 8, 9]
    for identity, seen in cameras["query"].items():
        assert len(set(seen)) == len(seen)  # one query per camera
        for camera in seen:
            assert set(cameras["bounding_box_test"][identity]) - {camera}


def in_fresh_python(code: str, out: Path) -> str:
    """Run code in an interpreter that has not loaded torch, where processes are forked."""
    preamble = f"""
import os, signal, sys
from dsareid.ground.errors import DSAError
from dsareid.synth import SynthConfig, dataset, generate
assert dataset._start_method() == "fork"
out, config = {str(out)!r}, {replace(SMALL, processes=2)!r}
"""
    command = [sys.executable, "-c", preamble + code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_same_files_with_any_number_of_processes(made, tmp_path, monkeypatch, method):
    out = tmp_path / "set"
    if method == "fork":
        in_fresh_python("generate(out, config)", out)
    else:
        monkeypatch.setattr(dataset, "_start_method", lambda: method)
        generate(out, replace(SMALL, processes=2))
    assert contents(out) == contents(made)


def test_the_seed_changes_the_pictures(made, tmp_path):
    generate(tmp_path / "set", replace(SMALL, identities=2, seed=4))
    first, other = (sorted(p.rglob("0001_*_00.jpg"))[0] for p in (made, tmp_path / "set"))
    assert first.read_bytes() != other.read_bytes()


def test_exact_maps_differ_in_faults_only(made, tmp_path):
    generate(tmp_path / "set", replace(SMALL, iuv="exact"))
    exact, faulty = contents(tmp_path / "set"), contents(made)
    assert exact.keys() == faulty.keys()
    assert all(exact[name] == faulty[name] for name in exact if name.endswith(".jpg"))
    assert any(exact[name] != faulty[name] for name in exact if name.endswith(".png"))


def test_same_configuration_is_not_made_again(made, caplog):
    before = (made / "synth.json").stat().st_mtime_ns
    caplog.set_level("INFO", "dsareid")
    generate(made, replace(SMALL, processes=2))
    assert (made / "synth.json").stat().st_mtime_ns == before
    assert "already holds" in caplog.text


def test_an_empty_folder_is_filled(tmp_path):
    out = tmp_path / "empty"
    out.mkdir()
    generate(out, replace(SMALL, identities=2, images=2))
    assert len(list(out.rglob("*.jpg"))) == 2 * 2 + 2


def test_other_contents_are_refused(made, tmp_path):
    with pytest.raises(DSAError, match="another synthetic data set.*seed 3, not 8"):
        generate(made, replace(SMALL, seed=8))
    (tmp_path / "holiday.jpg").write_text("mine")
    with pytest.raises(DSAError, match="new or empty folder"):
        generate(tmp_path, SMALL)
    with pytest.raises(DSAError, match="is a file"):
        generate(tmp_path / "holiday.jpg", SMALL)
    assert (tmp_path / "holiday.jpg").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("identities", 1, "2..9999"),
        ("identities", 10_000, "2..9999"),
        ("images", 1, "at least 2"),
        ("height", 15, "16..4096"),
        ("width", 0, "16..4096"),
        ("seed", -1, "at least 0"),
        ("processes", -2, "at least 0"),
        ("difficulty", "brutal", "easy, default, hard"),
    ],
)
def test_values_out_of_range(tmp_path, name, value, expected):
    with pytest.raises(DSAError, match=f"`{name}` must be .*{expected}, not '?{value}"):
        generate(tmp_path / "set", replace(SMALL, **{name: value}))
    assert not any(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DSAError, match="set.*No space left on device"):
        generate(tmp_path / "set", SMALL)
    assert not any(tmp_path.iterdir())


def test_a_killed_process_is_one_clear_error(tmp_path):
    code = """
dataset.render = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
try:
    generate(out, config)
except DSAError as error:
    print(error)
"""
    assert "was killed" in in_fresh_python(code, tmp_path / "set")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 300), (300, 16)])
def test_unusual_sizes(tmp_path, height, width):
    config = replace(SMALL, identities=2, images=2, height=height, width=width, difficulty="hard")
    generate(tmp_path / "set", config)
    assert read_iuv(next(tmp_path.rglob("*.png"))).shape == (height, width, 3)


INTERRUPTED = """
import signal, sys
from dsareid.synth import SynthConfig, dataset, generate
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
dataset._start_method = lambda: sys.argv[2]
if __name__ == "__main__":
    generate(sys.argv[1], SynthConfig(identities=2000, images=4, processes=2))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_interrupt_leaves_nothing(tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    out = tmp_path / "out" / "set"
    process = subprocess.Popen(
        [sys.executable, script, out, method],
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal would make
    )
    until = time.monotonic() + 120
    while not list(out.parent.rglob("*.png")) and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT
    assert messages.count("Traceback") == 1, messages  # the parent's own
    assert not any(out.parent.iterdir())


def test_difficulties_grow():
    easy, default, hard = (DIFFICULTIES[name] for name in ("easy", "default", "hard"))
    assert easy.family_size == 1 and easy.occluder_rate == easy.cut_legs_rate == 0
    for name in ("family_size", "cast", "occluder_rate", "shift", "missing_part_rate"):
        assert getattr(easy, name) < getattr(default, name) < getattr(hard, name)


def test_families_share_clothes_but_nobody_is_twice():
    config = replace(SMALL, identities=8)
    people = [dataset.make_person(config, person) for person in range(8)]
    assert people[0].clothes.pattern == people[3].clothes.pattern
    assert np.allclose(people[0].clothes.top, people[3].clothes.top, atol=0.2)
    assert not np.allclose(people[0].shape, people[3].shape)
    assert not np.array_equal(people[0].logo_blocks, people[3].logo_blocks)
    easy = [dataset.make_person(replace(config, difficulty="easy"), p) for p in range(8)]
    assert not np.allclose(easy[0].clothes.top, easy[3].clothes.top)
