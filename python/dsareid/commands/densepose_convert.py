"""dsareid densepose convert"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dsareid.commands.options import DataOption, FileOption, Flag
from dsareid.ground.errors import quoted

if TYPE_CHECKING:  # --help needs none of it
    from dsareid.densepose import ConversionReport

FIRST = 3  # names that are printed of a longer list


def command(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")],
    data: DataOption = None,
    images: FileOption = None,
    min_score: Annotated[float, tyro.conf.arg(metavar="SCORE")] = 0.5,
    scale: Annotated[str | None, tyro.conf.arg(metavar="S")] = None,
    overwrite: Flag = False,
) -> None:
    """Write DensePose output as IUV maps: DST/query/NAME.png for ROOT/query/NAME.jpg, and so on.

    SRC is one of: a folder of NAME_IUV.png (or NAME.png) of the classic Detectron; a dump of detectron2's
    apply_net.py (.pkl), which is read without detectron2 and without running anything in it; the
    coco_densepose_predictions.pth of detectron2's evaluation; COCO results (.json).

    If an image has several people, uses the one whose box covers most of it, among those whose score is at
    least --min-score; DST/several_people.csv lists all of them. An image without a detection gets a map that
    is all background. Look at DST/contact_sheet.png afterwards. Interrupted runs resume on the next call. A
    data set may be converted in several calls, one for each SRC.

    Args:
        source: DensePose output.
        out: The folder to write to, normally ROOT/iuv; it is created.
        data: The images' folder. A file name of SRC means the image that shares the longest end of its path;
            if other names of SRC share a folder with their images, it must, too. Without ROOT the file names
            of SRC must exist as they are.
        images: COCO annotations (.json) whose list `images` gives the file name of each image_id in COCO
            results.
        min_score: The least score, 0 to 1, of the person to use. If nobody in an image reaches it, the person
            with the best score is used. In a SRC without scores everybody reaches it.
        scale: The size of the images that DensePose was run on: 0.5 if it was half of yours, 128x256 if all
            had this width and height; default: the size of yours. Maps get the size of your images. A SRC
            whose boxes or maps contradict the size is refused, but --scale 1 takes boxes as they are.
        overwrite: Rewrite maps that exist already.
    """
    from dsareid.densepose import convert

    report = convert(source, out, data, images=images, min_score=min_score, scale=scale, overwrite=overwrite)
    print(f"{out}: {_count(report.written, 'map')} written", end="")
    print(f", {report.kept:,} kept as they were (--overwrite rewrites them)" if report.kept else "")
    _print_people(report, min_score)
    _print_warnings(report, source, data)
    if report.sheet:
        sheet = quoted(report.sheet)
        print(f"look at {sheet} before you train: do the parts lie on the bodies?")


def _print_people(report: "ConversionReport", min_score: float) -> None:
    listed = f"listed in {quoted(report.out / 'several_people.csv')}"
    if report.several:
        among = f", among those with a score of {min_score:g} or more" if report.scored else ""
        print(
            f"several people in {_names(report.several)}: the one with the largest box was taken{among}; "
            f"{listed}"
        )
    if report.refused:
        print(f"{_count(report.refused, 'detection')} refused for a score below {min_score:g}")
    if report.below:
        print(
            f"warning: no score of {min_score:g} or more in {_names(report.below)}: the best was taken; "
            f"{listed}"
        )
    path = quoted(report.out / "no_detection.txt")
    if report.empty:
        print(
            f"warning: the map is empty although somebody was detected in {_names(report.empty)}: no part of "
            f"that person lies in the image, or an empty map was kept; listed in {path}"
        )
    if report.no_detection:
        print(f"no detection in {_names(report.no_detection)}: all background, listed in {path}")


def _print_warnings(report: "ConversionReport", source: Path, data: Path | None) -> None:
    if report.differing:
        print(
            f"warning: {source} now gives other maps than were kept for {_names(report.differing)}: were "
            "they made with another SRC, --min-score or --scale? --overwrite rewrites them"
        )
    if report.outside:
        print(
            f"warning: boxes reach beyond {_names(report.outside)}: was DensePose run on images of another "
            "size (--scale)? They were cut off"
        )
    if report.turned:
        print(f"turned upright by EXIF: {_names(report.turned)}; their maps must be of the upright pictures")
    if report.shared:
        print(
            f"warning: another image has the same map as {_names(report.shared)}, because their names differ "
            "only in the suffix: rename one of them"
        )
    if report.not_found:
        print(f"warning: no image found for {_names(report.not_found, 'file name')} of {source}")
    if report.by_last_part:
        print(
            f"found by file name alone: {_names(report.by_last_part)}; their folders match none in {source}"
        )
    if report.no_map:
        path = quoted(report.out / "no_map.txt")
        print(f"warning: no map yet for {_names(report.no_map)} of {data}, listed in {path}")


def _names(names: Sequence[str], what: str = "image") -> str:
    """The number of names, and the first of them."""
    more = ", ..." if len(names) > FIRST else ""
    return f"{_count(len(names), what)} ({', '.join(names[:FIRST])}{more})"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
