"""IUV maps: reading, writing and mirroring them.

In memory an IUV map is always uint8 [H, W, 3] in the order I, U, V. In a file it is in the order
of the classic Detectron output, which OpenCV wrote as B, G, R = I, U, V: Pillow and everything
else that reads R, G, B sees V, U, I.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dsareid.data.images import decode_image, read_image, turned
from dsareid.data.map_notes import MapNote, is_of, note_in
from dsareid.data.matlab import read_matlab
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path

MAP_END, INSTANCES_END = "_IUV", "_INDS"  # the ends of the classic Detectron's names, before .png
_SMALL = 30  # the largest part index, 24, and room for what lossy compression changes


def read_iuv(path: str | os.PathLike) -> np.ndarray:
    """Read a classic NAME_IUV.png as uint8 [H, W, 3] in the order I, U, V.

    Raises:
        DSAError: the file is missing, truncated, not an 8-bit RGB image, claims more than images.MOST_PIXELS,
            or has a part above 24.
    """
    return _read_noted(path)[0]


def _read_noted(path: str | os.PathLike) -> tuple[np.ndarray, MapNote | None]:
    image = decode_image(path, "an IUV map")
    if image.mode != "RGB":
        raise DSAError(f"{path}: an IUV map is an 8-bit RGB image (R=V, G=U, B=I), not mode {image.mode}")
    iuv = np.ascontiguousarray(np.asarray(image)[..., ::-1])
    if iuv[..., 0].max() > 24:
        hint = ""
        if iuv[..., 2].max() <= 24:
            hint = "; its red channel holds 0..24: the file is in the order I,U,V and must be V,U,I"
        raise DSAError(
            f"{path}: the part index I (blue channel) must be 0..24, found {iuv[..., 0].max()}{hint}"
        )
    return iuv, note_in(image.info)


def is_meant_as_map(path: str | os.PathLike) -> bool:
    """Whether a picture is an IUV map, right or wrong, rather than a photograph.

    It is called NAME_IUV, or nearly all numbers of one of its channels are as small as a part index, even
    after lossy compression. A photograph of that kind would be nearly black.

    Raises:
        DSAError: as read_image.
    """
    if os.path.splitext(path)[0].endswith(MAP_END):
        return True
    return bool((np.percentile(read_image(path), 98, axis=(0, 1)) <= _SMALL).any())


def write_iuv(path: str | os.PathLike, iuv: np.ndarray, note: MapNote | None = None) -> None:
    """Write uint8 [H, W, 3] in the order I, U, V as a classic NAME_IUV.png, with a note as its comment.

    Raises:
        ValueError: the array is not uint8 [H, W, 3].
        DSAError: the file cannot be written.
    """
    if iuv.dtype != np.uint8 or iuv.ndim != 3 or iuv.shape[2] != 3:
        raise ValueError(f"iuv must be uint8 [H, W, 3], not {iuv.dtype} {list(iuv.shape)}")
    with atomic_path(path) as temporary:
        comment = PngInfo()
        if note:
            comment.add_text("Comment", json.dumps(note._asdict()))
        Image.fromarray(np.ascontiguousarray(iuv[..., ::-1])).save(temporary, pnginfo=comment)


def write_instances(path: Path, instances: np.ndarray) -> None:
    """Write uint8 [H, W], whose pixel it is, beside a map, to instances_path.

    Raises:
        DSAError: the file cannot be written.
    """
    with atomic_path(instances_path(path)) as temporary:
        Image.fromarray(instances).save(temporary)


def instances_path(path: Path) -> Path:
    """NAME_INDS.png beside a map, NAME_IUV.png or NAME.png."""
    return path.with_name(f"{path.stem.removesuffix(MAP_END)}{INSTANCES_END}.png")


def read_pair(image_path: str | os.PathLike, iuv_path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Read an image and its IUV map, both uint8 [H, W, 3].

    Raises:
        DSAError: as read_image and read_iuv; also if the two sizes differ, or the map was estimated from
            another picture.
    """
    image = read_image(image_path)
    iuv, note = _read_noted(iuv_path)
    if note and not is_of(note, image_path):
        raise DSAError(
            f"{iuv_path}: estimated before {image_path} was changed; run dsareid densepose estimate again"
        )
    if image.shape != iuv.shape:
        raise DSAError(
            f"{iuv_path}: the IUV map is {iuv.shape[1]}x{iuv.shape[0]}{turned(iuv_path)}, "
            f"but its image {image_path} is {image.shape[1]}x{image.shape[0]}{turned(image_path)}"
        )
    return image, iuv


def flip_iuv(iuv: np.ndarray, tables: np.ndarray | None = None) -> np.ndarray:
    """The IUV map of the mirrored image: left and right parts change places, with their coordinates.

    Args:
        iuv: uint8 [H, W, 3] in the order I, U, V.
        tables: as read_symmetry returns them. Default: the closed form, which `dsa_ext.assemble_batch` uses
            too: 255 - U in hands, feet and head, 255 - V in the torso; U and V of the limbs stay, because
            their charts are mirror images already.

    Returns:
        uint8 [H, W, 3], a new array; the background keeps its U and V.

    Raises:
        ValueError: the array is not uint8 [H, W, 3], or has a part above 24.
    """
    from dsa_ext.parts import TWIN  # reading needs neither torch nor the compiled part

    if iuv.dtype != np.uint8 or iuv.ndim != 3 or iuv.shape[2] != 3:
        raise ValueError(f"iuv must be uint8 [H, W, 3], not {iuv.dtype} {list(iuv.shape)}")
    if iuv.size and iuv[..., 0].max() > 24:
        raise ValueError(f"iuv must hold I = 0..24 in its first plane, found {iuv[..., 0].max()}")
    tables = _closed_form() if tables is None else tables
    flipped = iuv[:, ::-1].copy()
    body = flipped[..., 0] > 0
    part, u, v = flipped[body].T  # [N] each
    part = part - 1
    u_of, v_of = tables
    flipped[body] = np.stack([np.array(TWIN, np.uint8)[part], u_of[part, v, u], v_of[part, v, u]], axis=1)
    return flipped


def read_symmetry(path: str | os.PathLike) -> np.ndarray:
    """Read DensePose's UV_symmetry_transforms.mat, for flip_iuv.

    Returns:
        uint8 [2, 24, 256, 256], what U and V become, indexed by the part before the flip minus 1, then V,
        then U. The closed form replaces NaNs, which the file may have where a chart has no points.

    Raises:
        DSAError: the file is missing or not a MATLAB file, or a table is not as expected.
    """
    keys = ("U_transforms", "V_transforms")
    try:
        cells = read_matlab(path, keys)
    except FileNotFoundError as error:
        raise DSAError(f"{path}: no such file (UV_symmetry_transforms.mat was expected)") from error
    found = [_symmetry_tables(path, key, cells.get(key)) for key in keys]
    tables = np.stack(found)  # [2, 24, 256, 256]
    known = np.isfinite(tables)
    return np.where(known, np.round(255 * np.where(known, tables, 0)), _closed_form()).astype(np.uint8)


def _symmetry_tables(path: str | os.PathLike, key: str, cells: np.ndarray | None) -> np.ndarray:
    """The 24 tables of one key as float64 [24, 256, 256], checked."""
    if cells is None:
        raise DSAError(f"{path}: {key} is missing; expected DensePose's UV_symmetry_transforms.mat")
    tables = list(cells.flat) if cells.dtype == object else []
    if len(tables) != 24 or any(
        np.shape(table) != (256, 256) or np.asarray(table).dtype.kind not in "fiu" for table in tables
    ):
        raise DSAError(f"{path}: {key} must be a 1x24 cell of 256x256 tables of numbers")
    numbers = np.array(tables, np.float64)
    if np.any((numbers < -0.01) | (numbers > 1.01)):  # False for NaN
        raise DSAError(
            f"{path}: {key} must hold numbers 0..1, found {np.nanmin(numbers):g}..{np.nanmax(numbers):g}"
        )
    return np.clip(numbers, 0, 1)


@functools.cache
def _closed_form() -> np.ndarray:
    """The tables of read_symmetry without the file: the coordinate itself, or 255 minus it."""
    from dsa_ext.parts import FLIP_U, FLIP_V

    v, u = np.mgrid[:256, :256].astype(np.uint8)
    return np.stack(
        [
            [255 - u if flips else u for flips in FLIP_U],
            [255 - v if flips else v for flips in FLIP_V],
        ]
    )
