"""Writing DensePose output as the IUV maps of a data set.

    DST/query/NAME.png          the map of ROOT/query/NAME.jpg, in the classic file's order
    DST/no_detection.txt        the images whose map is all background, as nobody was found in them
    DST/no_map.txt              the images that have no map yet, of the folders of ROOT that have some
    DST/contact_sheet.png       a sample, to look at

A file that is not there does not apply: nobody was missed, every image has its map.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dsareid.data.folders import image_names
from dsareid.data.images import SUFFIXES, image_size
from dsareid.data.iuv import read_iuv, write_iuv
from dsareid.densepose.charts import Box
from dsareid.densepose.pictures import write_contact_sheet
from dsareid.densepose.sources import Detections, Person, read_source
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, make_folder

JUNK = "-1_"  # how the names of Market-1501's junk images begin, which are never read
NO_DETECTION, NO_MAP, SHEET = "no_detection.txt", "no_map.txt", "contact_sheet.png"


@dataclass
class ConversionReport:
    """What became of a source. Images are named relative to ROOT, as query/NAME.jpg."""

    out: Path
    written: int = 0
    kept: int = 0  # maps that were there already
    several: list[str] = field(default_factory=list)  # more than one person meets the image
    no_detection: list[str] = field(default_factory=list)  # the map is all background
    outside: list[str] = field(default_factory=list)  # a box leaves the image by more than a pixel
    not_found: list[str] = field(default_factory=list)  # file names of the source without an image
    no_map: list[str] = field(default_factory=list)
    sheet: Path | None = None  # None: nobody was found in any image


class _Task(NamedTuple):
    """An image, and what was found in it."""

    image: Path
    name: str  # relative to ROOT
    out: Path
    people: list[Person]


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    data: str | os.PathLike | None = None,
    *,
    images: str | os.PathLike | None = None,
    overwrite: bool = False,
) -> ConversionReport:
    """Write the IUV map of every image that a source names, with a progress bar.

    If an image has several people, uses the one whose box covers most of the image, then the one with the
    higher score. An interrupted call leaves whole maps; the next call keeps them.

    Args:
        source: DensePose output in any form of read_source.
        out: the folder to write to, normally ROOT/iuv; it is created.
        data: ROOT, the images' folder. File names are found in it by the longest end of their path that
            fits. Without it they must exist as they are, and only their last folder is kept.
        images: COCO annotations that name the images of COCO results.
        overwrite: write maps again that are there already.

    Raises:
        DSAError: a source that is not as it must be, no image found or one that fits two file names or is
            fit by two, an image that cannot be read, a map of another size, a folder that is not writable.
    """
    out, root = Path(out), None if data is None else Path(data)
    detections = read_source(source, images)
    listed = [] if root is None else _list_images(root, out)
    report = ConversionReport(out)
    tasks = _find_images(Path(source), detections, root, listed, report)
    for folder in {task.out.parent for task in tasks}:
        make_folder(folder)
    shown = []
    try:
        for task in tqdm(tasks, desc="IUV maps", unit="image", leave=False, disable=None):
            if _convert_image(task, overwrite, report):
                shown.append(task)
    except KeyboardInterrupt as interrupt:
        done = report.written + report.kept
        raise KeyboardInterrupt(
            f"interrupted: {done:,} of {len(tasks):,} maps are in {out}; the same command resumes"
        ) from interrupt
    _write_lists(report, {task.name for task in tasks}, listed)
    if shown:
        report.sheet = out / SHEET
        write_contact_sheet(report.sheet, [(task.name, task.image, task.out) for task in shown])
    return report


def _convert_image(task: _Task, overwrite: bool, report: ConversionReport) -> bool:
    """Write the map of an image; returns whether there is somebody in it."""
    width, height = image_size(task.image)
    people = [(_covered(p.box, width, height), p.score, p) for p in task.people]
    people = [found for found in people if found[0] > 0]
    if len(people) > 1:
        report.several.append(task.name)
    if any(_leaves(person.box, width, height) for person in task.people):
        report.outside.append(task.name)
    if task.out.exists() and not overwrite:
        iuv = read_iuv(task.out)
        report.kept += 1
    else:
        iuv = np.zeros((height, width, 3), np.uint8)
        if people:
            _, _, person = max(people, key=lambda found: found[:2])
            _paste(iuv, person, task)
        write_iuv(task.out, iuv)
        report.written += 1
    found = bool(iuv[..., 0].any())
    if not found:
        report.no_detection.append(task.name)
    return found


def _covered(box: Box | None, width: int, height: int) -> float:
    """Pixels of the image inside a box."""
    if box is None:
        return width * height
    x0, y0, x1, y1 = box
    return max(min(x1, width) - max(x0, 0), 0) * max(min(y1, height) - max(y0, 0), 0)


def _leaves(box: Box | None, width: int, height: int) -> bool:
    return box is not None and (min(box[:2]) < -1 or box[2] > width + 1 or box[3] > height + 1)


def _paste(iuv: np.ndarray, person: Person, task: _Task) -> None:
    """Put a person's chart where its box is; what lies outside of the image is cut off."""
    chart = person.chart().transpose(1, 2, 0)  # [h, w, 3]
    (rows, columns), (height, width) = chart.shape[:2], iuv.shape[:2]
    if person.box is None and (rows, columns) != (height, width):
        raise DSAError(
            f"the map of {task.name} is {columns}x{rows}, but its image {task.image} is {width}x{height}"
        )
    x, y = (0, 0) if person.box is None else (int(person.box[0]), int(person.box[1]))
    left, top = max(x, 0), max(y, 0)
    part = chart[top - y : height - y, left - x : width - x]
    iuv[top : top + len(part), left : left + part.shape[1]] = part


# ---- which image a file name means ----


def _list_images(root: Path, out: Path) -> list[str]:
    """The images of a data set relative to its root, as query/NAME.jpg; maps are not."""
    if not root.is_dir():
        raise DSAError(f"`data={root}`: {'not a folder' if root.exists() else 'no such folder'}")
    apart = {out.absolute(), (root / "iuv").absolute()}
    names = []
    for folder, below, files in os.walk(root):
        below[:] = sorted(x for x in below if x[0] != "." and Path(folder, x).absolute() not in apart)
        images = (Path(folder, x) for x in image_names(files))
        names += [x.relative_to(root).as_posix() for x in images if not x.stem.endswith(("_IUV", "_INDS"))]
    names = [name for name in names if name.isprintable()]  # others no source can name
    if not names:
        raise DSAError(f"`data={root}`: no images in it (expected *.jpg or *.png)")
    return names


def _find_images(
    source: Path, detections: list[Detections], root: Path | None, listed: list[str], report: ConversionReport
) -> list[_Task]:
    """A task for each image that the source names; names without an image go to the report."""
    by_stem: dict[str, list[str]] = {}
    for name in listed:
        by_stem.setdefault(_parts(name)[-1], []).append(name)
    if root is None and source.is_dir():
        raise DSAError(f"{source}: a folder of maps needs `data=ROOT`, the folder of their images")
    tasks: dict[Path, _Task] = {}
    named: dict[Path, str] = {}
    for found in detections:
        match = found.file_name if root is None else _match(found.file_name, root, by_stem, source)
        if match is None or (root is None and not os.path.isfile(match)):
            report.not_found.append(found.file_name)
            continue
        image = Path(match) if root is None else root / match
        name = os.path.join(*os.path.abspath(image).split(os.sep)[-2:]) if root is None else match
        out = (report.out / name).with_suffix(".png")
        if out in tasks:
            raise DSAError(f"{source}: {named[out]} and {found.file_name} would both be written as {out}")
        tasks[out], named[out] = _Task(image, name, out, found.people), found.file_name
    if not tasks:
        where = "exists" if root is None else f"is an image below {root}"
        hint = "; give `data=ROOT`, the folder of the images" if root is None else ""
        example = f", as {report.not_found[0]}" if report.not_found else ""
        raise DSAError(f"{source}: none of its {len(detections)} file names{example}, {where}{hint}")
    return list(tasks.values())


def _match(file_name: str, root: Path, by_stem: dict[str, list[str]], source: Path) -> str | None:
    """The image whose path has the longest end in common with a file name; None where there is none."""
    parts, base = _parts(file_name), root.absolute()
    ends = {name: _common_end(parts, _parts((base / name).as_posix())) for name in by_stem.get(parts[-1], ())}
    best = [name for name, length in ends.items() if length == max(ends.values())]
    if len(best) > 1:
        raise DSAError(
            f"{source}: {file_name} may be {best[0]} or {best[1]} of {root}; run DensePose on each folder "
            "separately, and convert its output with `data=ROOT/FOLDER` into DST/FOLDER"
        )
    return best[0] if best else None


def _parts(file_name: str) -> tuple[str, ...]:
    """The folders and the name without an image's suffix, of a path of any system."""
    stem, suffix = os.path.splitext(file_name.replace("\\", "/"))
    path = stem if suffix.lower() in SUFFIXES else stem + suffix
    return PurePosixPath(path).parts or ("",)


def _common_end(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[-1 - length] == other[-1 - length]:
        length += 1
    return length


# ---- lists ----


def _write_lists(report: ConversionReport, converted: set[str], listed: list[str]) -> None:
    """Both lists; a data set may come in several sources, so what they said of other images stays."""
    path = report.out / NO_DETECTION
    try:
        before = path.read_text().splitlines()
    except FileNotFoundError:
        before = []
    except (OSError, ValueError) as error:
        raise DSAError(f"cannot read {path}: {error}") from error
    _write_list(path, {*report.no_detection, *(name for name in before if name not in converted)})
    mapped = {name for name in listed if _has_map(report.out, name)}
    begun = {_top(name) for name in mapped}  # Market-1501's gt_bbox and images need maps only for some uses
    report.no_map = [
        name
        for name in listed
        if name not in mapped and _top(name) in begun and not os.path.basename(name).startswith(JUNK)
    ]
    _write_list(report.out / NO_MAP, report.no_map)


def _has_map(out: Path, name: str) -> bool:
    stem = os.path.splitext(name)[0]
    return (out / f"{stem}.png").exists() or (out / f"{stem}_IUV.png").exists()


def _top(name: str) -> str:
    """The folder of the root in which an image is, itself or further down."""
    return name.partition("/")[0] if "/" in name else ""


def _write_list(path: Path, names: Iterable[str]) -> None:
    """A name on each line; no file where there is none."""
    if not names:
        path.unlink(missing_ok=True)
        return
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in sorted(names)))
