"""A synthetic data set on disk: Market-1501's folders, with an IUV map beside every image.

    OUT/bounding_box_train/0001_c3s1_045210_00.jpg   and query/, bounding_box_test/
    OUT/iuv/bounding_box_train/0001_c3s1_045210_00.png   and so on
    OUT/synth.json   the settings that it was made with

Identities 1..N//2 are for training, the rest for the test. The images of an identity cycle through the
min(6, images) cameras that see it. A test identity's first image from each of the first half of its
cameras is a query, all others are gallery, so that each query has a match in another camera. The
gallery also has ceil(N / 5) people whom no query shows, with two images each and identity 0.
"""

import contextlib
import functools
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dsareid.data.iuv import write_iuv
from dsareid.data.layouts.base import GALLERY, QUERY, SPLITS, TRAIN
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import make_folder, unfinished_folder
from dsareid.ground.machine import cores, end_with_parent
from dsareid.synth.config import DIFFICULTIES, Difficulty, SynthConfig
from dsareid.synth.noise import add_faults
from dsareid.synth.person import SyntheticPerson, dress, look_alike, random_person
from dsareid.synth.render import render
from dsareid.synth.scene import CAMERAS, Camera, random_camera

VERSION = 1  # of the pictures: it grows if the same seed comes to give other pictures
RECORD = "synth.json"
DISTRACTOR_IMAGES = 2

# The first number after the seed says what the random numbers are for.
_FOR_CAMERA, _FOR_FAMILY, _FOR_PERSON, _FOR_SHADE, _FOR_CAMERAS_SEEN, _FOR_IMAGE = range(6)


@dataclass(frozen=True)
class Shot:
    """One image to be made."""

    split: str
    camera: int  # 0..5
    stem: str  # file name without suffix


def generate(out: str | os.PathLike, config: SynthConfig) -> None:
    """Render a synthetic data set into the folder `out`.

    The same configuration gives the same files, byte for byte, whatever the number of processes.
    Does nothing if `out` already holds this data set. Until all is written, the files are in a
    temporary folder beside `out`, which is removed if anything goes wrong.

    Raises:
        DSAError: a value of the configuration is out of range, `out` holds something else, or it
            cannot be written.
    """
    config.check()
    out = Path(out).resolve()
    if _is_finished(out, config):
        logger.info("%s already holds this synthetic data set", out)
        return
    make_folder(out.parent)
    with unfinished_folder(out) as folder:
        for split in SPLITS:
            make_folder(folder / split)
            make_folder(folder / "iuv" / split)
        _render_all(folder, config)
        (folder / RECORD).write_text(json.dumps(_record(config), indent=2) + "\n")


def people_count(config: SynthConfig) -> int:
    """People in the data set: the identities, then the distractors."""
    return config.identities + distractor_count(config)


def distractor_count(config: SynthConfig) -> int:
    """People of the gallery whom no query shows: one for every five identities, rounded up."""
    return -(-config.identities // 5)


def image_count(config: SynthConfig) -> int:
    """Images in the data set, all splits together."""
    return config.identities * config.images + distractor_count(config) * DISTRACTOR_IMAGES


def plan_shots(config: SynthConfig, person: int) -> list[Shot]:
    """The images of one person, 0..people_count(config) - 1."""
    rng = np.random.default_rng([config.seed, _FOR_CAMERAS_SEEN, person])
    is_distractor = person >= config.identities
    count = DISTRACTOR_IMAGES if is_distractor else config.images
    cameras = rng.permutation(CAMERAS)[: min(CAMERAS, count)]
    shots = []
    for k in range(count):
        if is_distractor:
            split = GALLERY
        elif person < config.identities // 2:
            split = TRAIN
        else:
            split = QUERY if k < len(cameras) // 2 else GALLERY
        camera = int(cameras[k % len(cameras)])
        number = k + (person - config.identities) * DISTRACTOR_IMAGES if is_distractor else k
        identity = 0 if is_distractor else person + 1
        frame = rng.integers(1, 120_000)
        stem = f"{identity:04d}_c{camera + 1}s1_{frame:06d}_{number:02d}"
        shots.append(Shot(split, camera, stem))
    return shots


def make_person(config: SynthConfig, person: int) -> SyntheticPerson:
    """A person of the data set, by number. Distractors look like the families of test identities."""
    size = DIFFICULTIES[config.difficulty].family_size
    individual = random_person(np.random.default_rng([config.seed, _FOR_PERSON, person]))
    if size == 1:
        return individual
    like = person
    if person >= config.identities:  # spread over the families of the test
        test = config.identities - config.identities // 2
        like = config.identities // 2 + (person - config.identities) * size % test
    family = random_person(np.random.default_rng([config.seed, _FOR_FAMILY, like // size]))
    rng = np.random.default_rng([config.seed, _FOR_SHADE, person])
    return look_alike(individual, family, rng)


def _render_person(folder: Path, config: SynthConfig, person: int) -> int:
    """Render all images of one person; returns how many."""
    difficulty = config.settings
    cameras = _cameras(config.seed, difficulty)
    dressed = dress(make_person(config, person))
    shots = plan_shots(config, person)
    for k, shot in enumerate(shots):
        rng = np.random.default_rng([config.seed, _FOR_IMAGE, person, k])
        size = (config.height, config.width)
        image, iuv = render(dressed, cameras[shot.camera], difficulty, size, rng)
        quality = int(rng.integers(75, 95))
        if config.iuv != "exact":
            iuv = add_faults(iuv, difficulty, rng)
        image.save(folder / shot.split / f"{shot.stem}.jpg", quality=quality)
        write_iuv(folder / "iuv" / shot.split / f"{shot.stem}.png", iuv)
    return len(shots)


@functools.cache
def _cameras(seed: int, difficulty: Difficulty) -> list[Camera]:
    return [
        random_camera(difficulty, np.random.default_rng([seed, _FOR_CAMERA, index]))
        for index in range(CAMERAS)
    ]


def _render_all(folder: Path, config: SynthConfig) -> None:
    people = range(people_count(config))
    processes = min(config.processes or cores(), len(people))
    with contextlib.ExitStack() as stack:
        workers = stack.enter_context(_workers(processes)) if processes > 1 else None
        bar = stack.enter_context(
            tqdm(total=image_count(config), desc="synthetic images", unit="image", disable=None)
        )
        if workers is None:
            for person in people:
                bar.update(_render_person(folder, config, person))
            return
        tasks = [workers.submit(_render_person, folder, config, person) for person in people]
        for task in as_completed(tasks):
            bar.update(task.result())


@contextlib.contextmanager
def _workers(processes: int) -> Iterator[Executor]:
    """A pool of processes. In the end, or on a failure, work that has not begun is cancelled."""
    context = multiprocessing.get_context(_start_method())
    executor = ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    try:
        yield executor
    except BrokenProcessPool as error:
        raise DSAError(
            "a rendering process was killed; perhaps memory ran out: try fewer `processes`"
        ) from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_method() -> str:
    """fork, which starts at once, unless torch is loaded, whose threads may hold locks."""
    may_fork = sys.platform == "linux" and "torch" not in sys.modules
    return "fork" if may_fork else "spawn"


def _start_worker() -> None:
    """Ignore Ctrl-C, which reaches every process of a terminal: the parent alone acts on it."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_finished(out: Path, config: SynthConfig) -> bool:
    """Whether `out` holds this data set already; raises DSAError if it holds anything else."""
    if not out.exists():
        return False
    if not out.is_dir():
        raise DSAError(f"{out}: expected a new or empty folder, but it is a file")
    if not any(out.iterdir()):
        return False
    try:
        found = json.loads((out / RECORD).read_text())
    except (OSError, ValueError, RecursionError):
        raise DSAError(
            f"{out}: expected a new or empty folder, but it holds files that are not a finished "
            "synthetic data set"
        ) from None
    wanted = _record(config)
    if found != wanted:
        raise DSAError(
            f"{out}: expected a new or empty folder, but it holds another synthetic data set "
            f"({_differences(found, wanted)})"
        )
    return True


def _record(config: SynthConfig) -> dict:
    """The content of synth.json: everything that decides what the files hold."""
    settings = asdict(config)
    del settings["processes"]
    return {"synthetic": True, "version": VERSION, **settings, "image_count": image_count(config)}


def _differences(found: object, wanted: dict) -> str:
    if not isinstance(found, dict):
        return f"its {RECORD} is not an object"
    different = [
        f"{name} {found.get(name)}, not {value}"
        for name, value in wanted.items()
        if found.get(name) != value and name != "image_count"
    ]
    return ", ".join(different) or "its image count differs"
