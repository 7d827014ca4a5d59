"""dsareid densepose estimate"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from dsareid.commands.options import BoxOption, FileOption, Flag, parse_box

if TYPE_CHECKING:
    from dsareid.densepose import EstimationReport, VideoReport
    from dsareid.densepose.estimators import EstimatorSettings


def command(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    out: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DST]")] = None,
    model: FileOption = None,
    rows: int | None = None,
    detect: Flag = False,
    boxes: FileOption = None,
    bfloat16: Flag = False,
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    box: BoxOption = None,
    smooth: Flag = False,
    quality: Literal["default", "best"] | None = None,
    people: Literal["one", "all"] | None = None,
    protocol: str = "",
    device: str = "auto",
    overwrite: Flag = False,
) -> None:
    """Estimate IUV maps from pictures alone: with BodyPix, or with a model of DensePose without detectron2.

    Look at DST/contact_sheet.png afterwards. Interrupted runs resume on the next call. Several processes
    share the work: torchrun --nproc-per-node N -m dsareid densepose estimate ...

    Args:
        source: A data set's root, another folder of pictures with all folders below, one picture, or a video.
        out: The folder of the maps; default: SRC/iuv, or a folder in the user's cache if SRC is not
            writable. For one picture the file of its map; default: NAME_IUV.png. For a video the folder in
            which maps/000000.png and so on go; default: NAME_IUV.
        model: Use DensePose R-CNN instead of BodyPix, with the weights in FILE: a chart model of detectron2's
            zoo (.pkl), of a training with detectron2 (.pth), or inside its TorchScript (.pt), which is not
            run. Each picture is a crop of one person then.
        rows: With --model: how many rows a crop has when the network sees it; default: 320.
        detect: With --model: pictures are photographs, in which the model finds people.
        boxes: With --model: pictures are photographs, whose people FILE tells: a table (.csv) with columns
            image,x0,y0,x1,y1 and perhaps score, in pixels; or COCO's annotations (.json).
        bfloat16: With --model: compute in bfloat16, for a GPU or a processor that has it: faster, and maps
            differ a little.
        weights: The folder of BodyPix's weights (model-stride16.json, group1-shard1of1.bin); default: that of
            the environment variable DSAREID_BODYPIX, or the user's cache, to which they are downloaded once.
        quality: With BodyPix: best looks at each picture in five sizes instead of two, which takes three to
            four times as long.
        box: With a video: where the person to follow is in the first frame, in pixels; default: whoever has
            most pixels.
        smooth: With a video: also write steadier maps, smoothed/000000.png and so on, and say how much maps
            flicker where the picture does not change.
        people: one: only the largest and most central person of each picture; all: everybody, and
            NAME_INDS.png beside a map says whose pixel it is. Default: one in a data set and of crops, all
            elsewhere. With a video: one, who is followed from frame to frame, or all.
        protocol: Protocol by which a data set's images are listed, such as multi-query; default: the data
            set's.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        overwrite: Also replace maps that were made with other settings, or not estimated at all.
    """
    from dsareid.data.video import is_video
    from dsareid.ground.distributed import rank_and_world
    from dsareid.ground.errors import DSAError

    settings: EstimatorSettings = {
        "model": model,
        "rows": rows,
        "detect": detect,
        "bfloat16": bfloat16,
        "weights": weights,
        "device": device,
        "quality": quality,
    }
    if is_video(source):
        from dsareid.densepose.video_maps import estimate_video

        if boxes or protocol:
            raise DSAError(
                f"{source}: {'--boxes' if boxes else '--protocol'} is for pictures, not for a video"
            )
        whom = people or "one"
        _print(
            estimate_video(
                source, out, people=whom, box=parse_box(box), smooth=smooth, overwrite=overwrite, **settings
            )
        )
        return
    from dsareid.densepose.estimate import estimate_maps

    if smooth or box:
        raise DSAError(f"{source}: {'--smooth' if smooth else '--box'} is for a video")
    report = estimate_maps(
        source, out, boxes=boxes, people=people, protocol=protocol, overwrite=overwrite, **settings
    )
    if rank_and_world()[0]:
        return
    _print(report)
    if report.unreadable:
        first = next(iter(report.unreadable.values()))
        raise DSAError(f"{len(report.unreadable):,} pictures cannot be read and have no map: {first}")


def _print(report: "EstimationReport | VideoReport") -> None:
    from dsareid.commands.main import with_flags
    from dsareid.ground.errors import quoted

    print("\n".join(map(with_flags, report.lines())))
    if report.sheet:
        print(f"look at {quoted(report.sheet)} before you use the maps: do the parts lie on the bodies?")
