"""dsareid warp"""

from pathlib import Path
from typing import Annotated

import tyro

from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, check_writable


def command(
    image: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")],
    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[IUV] OUT")],
    box: Annotated[str | None, tyro.conf.arg(metavar="X0,Y0,X1,Y1")] = None,
    size: int = 32,
    scale: int = 0,
) -> None:
    """Draw the 24 part images of a photograph as one labelled picture.

    Down the rows of a part U grows, along its columns V. Holes show as a grey checkerboard.

    Args:
        image: The photograph.
        files: Its classic NAME_IUV.png (Pillow sees R=V, G=U, B=I), of the same size; without it the map is
            estimated, as by densepose estimate. Then the picture to write (.png).
        box: In pixels, the last two exclusive: picks one of several people.
        size: Cells on each side of a part image, 1..256.
        scale: Pixels that a cell becomes on each side; 0 makes a part at least 160 wide.
    """
    from PIL import Image

    from dsareid.densepose.pictures import draw_part_images
    from dsareid.densepose.textures import part_images

    if len(files) not in (1, 2):
        raise DSAError(f"expected IMAGE [IUV] OUT, not {1 + len(files)} files")
    *maps, out = files
    if not 1 <= size <= 256:
        raise DSAError(f"--size must be 1..256, not {size}")
    if not 0 <= scale <= 160:
        raise DSAError(f"--scale must be 0..160, not {scale}")
    if Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise DSAError(f"{out}: the name must end in .png or another image type")
    check_writable(out, [image, *maps])
    colours, filled = part_images(image, maps[0] if maps else None, size, box=_parse_box(box))
    picture = draw_part_images(colours, filled, scale or -(-160 // size))
    with atomic_path(out) as temporary:
        picture.save(temporary)
    visible = int(filled.any((1, 2)).sum())
    where = "the box" if box else "the image"
    empty = "" if visible else f"; the IUV map is all background in {where}"
    how = "" if maps else ", by an estimated map"
    print(f"{out}: {visible} of 24 parts visible{how}{empty}")


def _parse_box(text: str | None) -> tuple[int, int, int, int] | None:
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = map(int, text.split(","))
    except ValueError as error:
        raise DSAError(f"--box must be x0,y0,x1,y1 in whole pixels, not {text!r}") from error
    return x0, y0, x1, y1
