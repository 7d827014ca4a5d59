"""Writing the images of CUHK03's MATLAB files as image files in Market-1501's layout (CUHK03-NP).

ROOT/cuhk-03.mat, or ROOT/cuhk03_release/cuhk-03.mat        HDF5
    labeled, detected: 5 cells, one a pair of cameras; each a table of persons x 10 shots, of which
    1..5 are view 1 and 6..10 view 2; a shot is uint8 [H, W, 3], or empty
ROOT/cuhk03_new_protocol_config_{labeled,detected}.mat      MATLAB 5
    filelist: 1_001_2_06.png is pair 1, person 1, view 2, shot 6; labels, camId: the same images'
    train_idx, query_idx, gallery_idx: the images of each split, by their numbers in filelist, from 1

OUT/labeled/query/0003_c1_22.png    identity 3, camera 1, number 22 in filelist
OUT/detected                        the same
"""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image
from tqdm import tqdm

from dsareid.data.images import MOST_PIXELS
from dsareid.data.layouts.base import GALLERY, QUERY, TRAIN
from dsareid.data.layouts.cuhk03 import KINDS, MATLAB_FILES
from dsareid.data.matlab import read_matlab
from dsareid.ground.errors import DSAError, logger
from dsareid.ground.files import make_folder, unfinished_folder

_ORIGIN = "github.com/zhunzhong07/person-re-ranking"
PROTOCOL_FILE = "cuhk03_new_protocol_config_{}.mat"
PAIRS, SHOTS = 5, 10
_NAME = re.compile(r"([1-5])_(\d{3})_([12])_(\d{2})\.png")
_INDICES = {"train_idx": TRAIN, "query_idx": QUERY, "gallery_idx": GALLERY}
_PER_IMAGE = ("filelist", "labels", "camId")

_Cell = tuple[int, int, int]  # pair, person, shot, each from 1


class _Shot(NamedTuple):
    """An image of a config."""

    cell: _Cell
    view: int  # 1 or 2
    label: int


def write_image_files(root: str | os.PathLike, out: str | os.PathLike) -> list[Path]:
    """Write the images of CUHK03's .mat files as PNG files, by the new protocol (767/700).

    Until all is written, the files are in a temporary folder beside `out`, which is removed if anything
    goes wrong.

    Returns:
        The folders that are data sets, OUT/labeled and OUT/detected.

    Raises:
        DSAError: a file that is missing, unreadable or without the expected contents; files that do not
            belong together; `out` holds something, or cannot be written.
    """
    root, out = Path(root), Path(out)
    mat = _find(root, *MATLAB_FILES)
    configs = {kind: _find(root, PROTOCOL_FILE.format(kind)) for kind in KINDS}
    if os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise DSAError(f"{out}: expected a new or empty folder, but something is there")
    plans = {kind: _read_config(path) for kind, path in configs.items()}
    total = sum(len(plan) for plan in plans.values())
    make_folder(out.parent)
    with (
        _opened(mat) as file,
        unfinished_folder(out) as folder,
        tqdm(total=total, desc="extracting", unit="image", leave=False, disable=None) as progress,
    ):
        for kind, plan in plans.items():
            cells = _cells(file, kind)
            if unused := len(cells.keys() - {shot.cell for shot in plan.values()}):
                logger.warning(f"{mat}: {unused:,} of its {kind} images are in no split")
            for split in _INDICES.values():
                (folder / kind / split).mkdir(parents=True)
            for name, shot in plan.items():
                if shot.cell not in cells:
                    where = "pair {}, person {}, shot {}".format(*shot.cell)
                    raise DSAError(
                        f"{configs[kind]}: names {where}, but {mat} has no such image in {kind}: the two do "
                        "not belong together"
                    )
                _write(_pixels(file, cells[shot.cell]), folder / kind / name)
                progress.update()
    return [out / kind for kind in plans]


def _find(root: Path, *names: str) -> Path:
    for name in names:
        if (root / name).is_file():
            return root / name
    whole = ", ".join([MATLAB_FILES[0], *(PROTOCOL_FILE.format(kind) for kind in KINDS)])
    raise DSAError(f"{root / names[0]}: no such file; CUHK03 is {whole} ({_ORIGIN} has the last two)")


# ---- the config: MATLAB 5 ----


def _read_config(path: Path) -> dict[str, _Shot]:
    """The images of a config, by the names of the files to write."""
    config = read_matlab(path, [*_INDICES, *_PER_IMAGE])
    if missing := sorted({*_INDICES, *_PER_IMAGE} - config.keys()):
        found = ", ".join(config) or "nothing"
        raise DSAError(f"{path}: expected {', '.join(missing)} in it too, but it holds {found}")
    shots = _shots(path, config)
    plan: dict[str, _Shot] = {}
    labels: dict[str, set[int]] = {}
    for key, split in _INDICES.items():
        indices = _indices(path, config, key, len(shots))
        chosen = [shots[index - 1] for index in indices]
        labels[key] = {shot.label for shot in chosen}
        names = [f"{split}/{s.label:04d}_c{s.view}_{index}.png" for s, index in zip(chosen, indices)]
        plan |= dict(zip(names, chosen))
    if both := labels["train_idx"] & (labels["query_idx"] | labels["gallery_idx"]):
        raise DSAError(f"{path}: training and test identities must not overlap, but {min(both)} is in both")
    return plan


def _shots(path: Path, config: Mapping) -> list[_Shot]:
    """The images in the order of filelist; labels and camId must say the same as its names."""
    try:
        names = [str(np.ravel(cell)[0]) for cell in np.ravel(config["filelist"])]
        labels, views = ([int(x) for x in np.ravel(config[key])] for key in ("labels", "camId"))
    except (IndexError, TypeError, ValueError) as error:
        raise DSAError(f"{path}: filelist must be names, labels and camId numbers: {error}") from error
    if not len(names) == len(labels) == len(views):
        sizes = f"{len(names):,}, {len(labels):,} and {len(views):,}"
        raise DSAError(f"{path}: filelist, labels and camId must be of one length, not {sizes}")
    shots: list[_Shot] = []
    label_of: dict[tuple[int, int], int] = {}
    for name, label, view in zip(names, labels, views):
        match = _NAME.fullmatch(name)
        if not match:
            raise DSAError(f"{path}: filelist: expected names like 1_001_2_06.png, not {name!r}")
        pair, person, named_view, shot = map(int, match.groups())
        if not (1 <= shot <= SHOTS and view == named_view == (1 if shot <= SHOTS // 2 else 2)):
            raise DSAError(f"{path}: {name}: its shot and its view do not agree with camId {view}")
        if label_of.setdefault((pair, person), label) != label:
            raise DSAError(
                f"{path}: {name}: its label is {label}, but before it was {label_of[pair, person]}"
            )
        shots.append(_Shot((pair, person, shot), view, label))
    if len(set(label_of.values())) != len(label_of):
        raise DSAError(f"{path}: labels: two persons of filelist have the same label")
    return shots


def _indices(path: Path, config: Mapping, key: str, count: int) -> list[int]:
    """One split's numbers in filelist, from 1."""
    found = np.ravel(config[key])
    if not len(found):
        raise DSAError(f"{path}: {key} is empty: no images for {_INDICES[key]}")
    whole = found.dtype.kind in "iuf" and bool(np.all(found == found.round()))
    if not whole or not 1 <= found.min() <= found.max() <= count or len(set(found.tolist())) != len(found):
        raise DSAError(f"{path}: {key} must be whole numbers 1..{count}, each once (filelist has {count})")
    return found.astype(int).tolist()


# ---- the images: HDF5 ----


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except Exception as error:  # h5py raises many kinds for what is damaged
        raise DSAError(f"{path}: not readable as a MATLAB 7.3 file (HDF5): {error}") from error
    with file:
        yield file


def _cells(file: h5py.File, kind: str) -> dict[_Cell, h5py.Reference]:
    """Where the images of a kind are; empty cells are left out."""
    try:
        found = sorted(file)
    except Exception as error:  # h5py raises many kinds for what is damaged
        raise DSAError(f"{file.filename}: cannot be read: {error}") from error
    if kind not in found:
        content = ", ".join(found) or "nothing"
        raise DSAError(f"{file.filename}: expected {' and '.join(KINDS)} in it, but it holds {content}")
    cells = {}
    try:
        for pair, table in enumerate(np.ravel(_values(file[kind])), 1):
            for (shot, person), cell in np.ndenumerate(_values(file[table])):  # MATLAB's axes are reversed
                if cell and file[cell].ndim == 3:
                    cells[pair, person + 1, shot + 1] = cell
    except Exception as error:
        raise DSAError(
            f"{file.filename}: {kind}: expected {PAIRS} cells, each a table of persons x {SHOTS} images: "
            f"{error}"
        ) from error
    return cells


def _values(dataset: h5py.Dataset) -> np.ndarray:
    """All values; ValueError if they claim more bytes than an image may have, as a tiny file can."""
    if dataset.nbytes > 3 * MOST_PIXELS:
        raise ValueError(f"{dataset.name} claims to have {dataset.nbytes:,} bytes")
    return dataset[()]


def _pixels(file: h5py.File, cell: h5py.Reference) -> np.ndarray:
    """An image, uint8 [H, W, 3]."""
    try:
        dataset = file[cell]
        name, pixels = dataset.name, _values(dataset).T
    except Exception as error:
        raise DSAError(f"{file.filename}: an image cannot be read: {error}") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DSAError(
            f"{file.filename}: {name}: an image must be uint8 [H, W, 3], not {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    return pixels


# ---- writing ----


def _write(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)
