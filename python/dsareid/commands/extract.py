"""dsareid extract"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import FileOption, Flag, ModelPath, OtherNetwork, OtherOption, OutPath
from dsareid.ground.errors import DSAError


def command(
    model: ModelPath,
    images: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")],
    out: OutPath,
    batch_size: int = 64,
    device: str = "auto",
    skip_broken: Flag = False,
    trust: Flag = False,
    boxes: FileOption = None,
    maps: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None,
    camera: str | None = None,
    other: OtherOption = OtherNetwork(),
) -> None:
    """Write the features of a folder of images: OUT/features.npy, a row for each line of OUT/images.csv.

    An interrupted call resumes on the next one. Several processes share the work:
    torchrun --nproc-per-node N -m dsareid extract ...

    With --boxes the rows are people who were followed through a video: the mean of each track.

    Args:
        model: The folder that train wrote, or a file that export wrote; or another network: any .onnx file,
            timm:NAME or torchvision:NAME.
        images: The folder of images, with all folders below, such as query or bounding_box_test of a data
            set. Identities and cameras come from the data set, or else from names like
            0002_c1s1_000451_03.jpg. With --boxes a video, or a folder of its frames.
        out: The folder to create.
        batch_size: Images at a time.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        skip_broken: Skip images that cannot be read, and list them in OUT/skipped.txt.
        trust: Also load a .pt2 file. It can run code, so you must know where it comes from.
        boxes: The boxes of tracks: a MOT file (frame,track,left,top,width,height), or the folder of labels
            that YOLO's tracker wrote.
        maps: With --boxes: IUV maps of the frames, as densepose estimate writes them. Crops that show more of
            a person count more.
        camera: With --boxes: the word for the column camera.
    """
    from dsareid.ground.distributed import rank_and_world
    from dsareid.inference.extract import extract
    from dsareid.inference.extract_tracks import extract_tracks
    from dsareid.inference.extraction import ExtractSettings
    from dsareid.inference.feature_folder import SKIPPED

    if not boxes and (maps or camera):
        raise DSAError("`maps` and `camera` are for tracks: give `boxes` as well")
    settings: ExtractSettings = {
        "batch_size": batch_size,
        "device": device,
        "skip_broken": skip_broken,
        "trust": trust,
        "facts": other.facts(),
    }
    if boxes:
        extracted = extract_tracks(model, images, boxes, out, maps=maps, camera=camera, **settings)
    else:
        extracted = extract(model, images, out, **settings)
    if rank_and_world()[0]:
        return
    done, what = "already done: " if extracted.already else "", "tracks, " if boxes else ""
    size = f"{extracted.images:,} x {extracted.dimension}"
    print(f"{out}: {done}{what}{size} features of model {extracted.model}")
    if extracted.skipped:
        count = len(extracted.skipped)
        print(
            f"{count:,} {'crop' if boxes else 'image'}{'s' * (count > 1)} skipped, listed in {out / SKIPPED}:"
        )
        print("\n".join(extracted.skipped[:10] + ["..."] * (len(extracted.skipped) > 10)))
