"""dsareid search"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import Flag, ModelPath, OtherNetwork, OtherOption


def command(
    model: ModelPath,
    query: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="QUERY")],
    gallery: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GALLERY")],
    count: int = 10,
    out: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE")] = None,
    false_match_rate: float | None = None,
    calibration: Annotated[Path | None, tyro.conf.arg(metavar="FEATURES")] = None,
    device: str = "auto",
    trust: Flag = False,
    other: OtherOption = OtherNetwork(),
) -> None:
    """List the gallery images that look most like the person in a query.

    Args:
        model: The folder that train wrote, or a file that export wrote; or another network: any .onnx file,
            timm:NAME or torchvision:NAME.
        query: An image, or a folder of images.
        gallery: A folder of images, or one that extract wrote with the same model.
        count: Images to list.
        out: A picture to write (.png): each query at the left, the images of its list to the right.
        false_match_rate: Answer "unknown" where nobody is near enough. So large a share of pairs of
            different people, such as 0.001, look as alike as what is accepted, says the calibration: in a
            gallery of 1,000 images, about one for each query.
        calibration: A folder of features of the same model that calibrate has learned from; default: the
            gallery, if it was.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        trust: Also load a .pt2 file. It can run code, so you must know where it comes from.
    """
    from dsareid.inference.search import PICTURED, check_picture, format_list, search, write_picture

    if out:
        check_picture(out, query)
    results = search(
        model,
        query,
        gallery,
        count,
        device,
        trust,
        false_match_rate=false_match_rate,
        calibration=calibration,
        facts=other.facts(),
    )
    print("\n\n".join(map(format_list, results)))
    if out:
        write_picture(results, out)
        print(f"picture: {out}" + (f", the first {PICTURED} queries" if len(results) > PICTURED else ""))
