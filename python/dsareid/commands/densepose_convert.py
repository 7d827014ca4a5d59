"""dsareid densepose convert"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import DataOption, Flag

FIRST = 3  # names that are printed where there are more


def command(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")],
    data: DataOption = None,
    images: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    overwrite: Flag = False,
) -> None:
    """Write DensePose output as IUV maps: DST/query/NAME.png for ROOT/query/NAME.jpg, and so on.

    SRC is one of: a folder of NAME_IUV.png (or NAME.png) of the classic Detectron; a dump of detectron2's
    apply_net.py (.pkl), which is read without detectron2 and without running anything in it; the
    coco_densepose_predictions.pth of detectron2's evaluation; COCO results (.json).

    If an image has several people, uses the one whose box covers most of it. An image without a detection
    gets a map that is all background. Look at DST/contact_sheet.png afterwards. Interrupted runs resume on
    the next call; several calls for the parts of a data set add up.

    Args:
        source: DensePose output.
        out: The folder to write to, normally ROOT/iuv; it is created.
        data: The images' folder. Each file name of SRC is looked for in it by the end of its path.
            Without ROOT file names must exist as SRC has them.
        images: COCO annotations (.json) whose list `images` names the image_id of COCO results.
        overwrite: Write maps again that are there already.
    """
    from dsareid.densepose import convert

    report = convert(source, out, data, images=images, overwrite=overwrite)
    print(f"{out}: {_count(report.written, 'map')} written", end="")
    print(f", {report.kept:,} kept as they were (--overwrite writes them anew)" if report.kept else "")
    if report.several:
        print(f"several people in {_names(report.several)}: the one with the largest box was taken")
    if report.no_detection:
        listed = Path(out, "no_detection.txt")
        print(f"no detection in {_names(report.no_detection)}: all background, listed in {listed}")
    if report.outside:
        print(
            f"warning: boxes leave {_names(report.outside)}: was DensePose run on images of another size? "
            "They were cut off"
        )
    if report.not_found:
        print(f"warning: no image found for {_names(report.not_found, 'file name')} of {source}")
    if report.no_map:
        listed = Path(out, "no_map.txt")
        print(f"warning: no map yet for {_names(report.no_map)} of {data}, listed in {listed}")
    if report.sheet:
        print(f"look at {report.sheet} before you train: do the parts lie on the bodies?")


def _names(names: Sequence[str], what: str = "image") -> str:
    """How many, and the first of them."""
    more = ", ..." if len(names) > FIRST else ""
    return f"{_count(len(names), what)} ({', '.join(names[:FIRST])}{more})"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
