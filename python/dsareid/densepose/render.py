"""Maps as the pictures and masks that other networks take as input.

viton         parts in OpenCV's colours PARULA on black: try-on (VITON-HD's image-densepose, IDM-VTON)
magicanimate  parts in VIRIDIS, the background in its first colour: animation (MagicAnimate)
uv            NAME_U.png and NAME_V.png, U and V in PARULA on black
parts         NAME.npy, masks of eight parts of the body: BPBReID and its relatives

The colours are those of detectron2's visualisers dp_segm, dp_u and dp_v with alpha=1 on such a background;
studies/rcnn compares them. They come from OpenCV: other libraries' VIRIDIS differs by one here and there.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dsa_ext.parts import GROUPS
from dsareid.data.video import is_video, write_video
from dsareid.densepose.map_folder import VIDEO, VideoRecord, find_maps, one_map
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, make_folder, read_json
from dsareid.ground.machine import on_threads

if TYPE_CHECKING:
    from types import ModuleType

Style = Literal["viton", "magicanimate", "uv", "parts"]
CELL = 4  # pixels of a side of a map that are one number of a mask: BPBReID's features are as coarse
_QUALITY = 95  # of a JPEG


class Rendering(NamedTuple):
    """How much render_maps drew."""

    maps: int
    files: int


def render_maps(
    source: str | os.PathLike,
    out: str | os.PathLike,
    style: Style,
    *,
    jpeg: bool = False,
    overwrite: bool = False,
) -> Rendering:
    """Draw every map of a folder in a style, with a progress bar.

    Args:
        source: a folder of maps, a data set that has maps, or one map.
        out: the folder to write to, which is created; or a video (.mp4), for maps of a video and a style of
            one picture a map.
        style: see the module.
        jpeg: write pictures as NAME.jpg, with the losses of a JPEG, because some programs ask for that name.
        overwrite: replace files that are there already.

    Raises:
        DSAError: no map, one that cannot be read, OpenCV is missing, a folder in which the pictures would be
            taken for maps, files that are there already, a folder that is not writable; for a video also maps
            of no video or of several sizes, and PyAV is missing.
        ValueError: a style that does not exist.
    """
    source, out = Path(source), Path(out)
    draw = drawer(style)
    if jpeg and (style == "parts" or is_video(out)):
        raise DSAError(f"`jpeg` is for pictures, not for {'masks' if style == 'parts' else 'a video'}")
    if is_video(out):
        return _draw_video(source, out, style, draw, overwrite)
    place, maps = one_map(source) if source.is_file() else find_maps(source)
    _check_place(source, place, out)
    suffix = ".npy" if style == "parts" else ".jpg" if jpeg else ".png"
    ends = ("_U", "_V") if style == "uv" else ("",)
    there = [path for name in maps for path in _targets(out, name, ends, suffix) if os.path.lexists(path)]
    if there and not overwrite:
        raise DSAError(
            f"{len(there):,} files are there already, the first {there[0]}; `overwrite` replaces them"
        )
    for parent in {(out / name).parent for name in maps}:
        make_folder(parent)

    def run(name: str) -> None:
        drawn = draw(maps[name].chart().transpose(1, 2, 0))
        for path, pixels in zip(_targets(out, name, ends, suffix), drawn, strict=True):
            _write(path, pixels)

    for _ in _with_progress(on_threads(run, list(maps)), len(maps)):
        pass
    return Rendering(len(maps), len(maps) * len(ends))


def _check_place(source: Path, place: Path, out: Path) -> None:
    folder, base = Path(os.path.realpath(out)), Path(os.path.realpath(place))
    if folder == base or (source.is_dir() and folder.is_relative_to(base)):
        raise DSAError(f"{out}: lies in {place}, where pictures would be taken for maps; choose another")
    if folder == Path(os.path.realpath(source)) or (base.name == "iuv" and folder == base.parent):
        raise DSAError(f"{out}: pictures would lie among those that the maps are of; choose another folder")


def _draw_video(
    source: Path, out: Path, style: Style, draw: Callable[[np.ndarray], list[np.ndarray]], overwrite: bool
) -> Rendering:
    if style not in ("viton", "magicanimate"):
        raise DSAError(f"{out}: `style={style}` is not one picture a map; choose a folder")
    if out.exists() and not overwrite:
        raise DSAError(f"{out}: is there already; `overwrite` replaces it")
    place, maps = find_maps(source)
    try:
        record = read_json(place.parent / VIDEO, VideoRecord)
    except OSError as error:
        raise DSAError(f"{source}: holds no maps of a video: {place.parent / VIDEO} is missing") from error
    if len(maps) != record.frames:
        raise DSAError(
            f"{place}: {len(maps):,} maps of a video of {record.frames:,} frames; dsareid densepose estimate "
            "makes the others"
        )
    rate = record.frame_rate()
    drawn = on_threads(lambda name: draw(maps[name].chart().transpose(1, 2, 0))[0], sorted(maps))
    write_video(out, _of_one_size(_with_progress(drawn, len(maps)), source), rate)
    return Rendering(len(maps), 1)


def _of_one_size(pictures: Iterator[np.ndarray], source: Path) -> Iterator[np.ndarray]:
    first: tuple[int, ...] = ()
    for picture in pictures:
        first = first or picture.shape
        if picture.shape != first:
            raise DSAError(
                f"{source}: maps of several sizes, {list(first[:2])} and {list(picture.shape[:2])}"
            )
        yield picture


def drawer(style: Style) -> Callable[[np.ndarray], list[np.ndarray]]:
    """The function of a style, from a map, uint8 [H, W, 3] in the order I, U, V, to what is written of it.

    That is a picture, uint8 [H, W, 3] RGB; for uv two of them; for parts float32 [8, ceil(H/4), ceil(W/4)]:
    of each cell the share of pixels that the part has, in the order of dsa_ext.parts.BODY_NAMES.

    Raises:
        DSAError: OpenCV is missing.
        ValueError: a style that does not exist.
    """
    if style not in get_args(Style):
        raise ValueError(f"style must be one of {', '.join(get_args(Style))}, not {style!r}")
    if style == "parts":
        return lambda iuv: [part_masks(iuv)]
    cv2 = _opencv()
    name = "VIRIDIS" if style == "magicanimate" else "PARULA"
    numbers = np.arange(256, dtype=np.uint8)[None]
    colours = cv2.applyColorMap(numbers, getattr(cv2, f"COLORMAP_{name}"))[0, :, ::-1]  # [256, 3] RGB
    if style == "uv":
        return lambda iuv: [np.where(iuv[..., :1] > 0, colours[iuv[..., k]], 0) for k in (1, 2)]
    of_parts = colours[(np.arange(25, dtype=np.float32) * (255 / 24)).astype(np.uint8)]  # [25, 3]
    if style == "viton":
        of_parts[0] = 0
    return lambda iuv: [of_parts[iuv[..., 0]]]


def part_masks(iuv: np.ndarray) -> np.ndarray:
    """Masks of the eight parts of the body: uint8 [H, W, 3] in the order I, U, V -> float32 [8, h, w].

    A number is the share of a cell's pixels that the part has. A cell is CELL x CELL pixels, so that h is
    ceil(H / CELL); at the right and lower edge it may have fewer.
    """
    group = np.array([-1, *GROUPS[8]])[iuv[..., 0]]  # [H, W]
    masks = torch.from_numpy(group == np.arange(8)[:, None, None]).float()
    pooled = torch.nn.functional.avg_pool2d(masks, CELL, ceil_mode=True, count_include_pad=False)
    return pooled.numpy()


def _opencv() -> "ModuleType":
    try:
        import cv2
    except ImportError as error:
        raise DSAError(f"OpenCV is missing: pip install opencv-python-headless ({error})") from error
    return cv2


def _targets(out: Path, name: str, ends: tuple[str, ...], suffix: str) -> list[Path]:
    return [out / f"{name}{end}{suffix}" for end in ends]


def _write(path: Path, drawn: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, drawn)
        else:
            Image.fromarray(drawn).save(temporary, quality=_QUALITY, subsampling=0)


def _with_progress(found: Iterator, count: int) -> Iterator:
    return iter(tqdm(found, "drawing", count, unit="map", leave=False, disable=None))
