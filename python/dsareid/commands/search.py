"""dsareid search"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import Flag, ModelPath


def command(
    model: ModelPath,
    query: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="QUERY")],
    gallery: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="GALLERY")],
    count: int = 10,
    out: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE")] = None,
    device: str = "auto",
    trust: Flag = False,
) -> None:
    """List the gallery images that look most like the person in a query.

    Args:
        model: The folder that train wrote, or a file that export wrote.
        query: An image, or a folder of images.
        gallery: A folder of images, or one that extract wrote with the same model.
        count: Images to list.
        out: A picture to write (.png): each query at the left, the images of its list to the right.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        trust: Also load a .pt2 file. It can run code, so you must know where it comes from.
    """
    from dsareid.inference.search import PICTURED, check_picture, format_list, search, write_picture

    if out:
        check_picture(out, query)
    results = search(model, query, gallery, count, device, trust)
    print("\n\n".join(map(format_list, results)))
    if out:
        write_picture(results, out)
        print(f"picture: {out}" + (f", the first {PICTURED} queries" if len(results) > PICTURED else ""))
