"""dsareid warp"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.options import BoxOption, parse_box
from dsareid.ground.errors import DSAError
from dsareid.ground.files import atomic_path, check_writable


def command(
    files: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGE [IUV] ... OUT", help_behavior_hint="(required)"),
    ],
    box: BoxOption = None,
    size: int = 32,
    erode: int = 0,
    scale: int = 0,
) -> None:
    """Draw the 24 part images of a person as one labelled picture, from one photograph or several.

    In each part image U grows down the rows and V along the columns. Holes show as a grey checkerboard.

    Args:
        files: Photographs of one person, each followed by its classic NAME_IUV.png of the same size (Pillow
            sees R=V, G=U, B=I); without one the map is estimated, as by densepose estimate. The last file is
            the picture to write (.png). A cell that several photographs show gets the median of their
            colours.
        box: Picks one of several people in a single photograph; in pixels, the last two exclusive.
        size: Cells on each side of a part image, 1..256.
        erode: Pixels to leave out along the person's outline, where a map may cover some background.
        scale: Pixels on each side of a drawn cell; 0: as many as make a part at least 160 pixels wide.
    """
    from dsareid.densepose.pictures import draw_part_images
    from dsareid.densepose.textures import join_part_images, part_images

    given, out = _checked(files, size, scale, erode)
    images, maps = _with_maps(given)
    if len(images) == 1:
        colours, filled = part_images(images[0], maps[0], size, box=parse_box(box), erode=erode)
    elif box is not None:
        raise DSAError(f"--box picks a person in one photograph, but there are {len(images)}")
    else:
        colours, count = join_part_images(images, maps, size, erode=erode)
        filled = count > 0
    picture = draw_part_images(colours, filled, scale or -(-160 // size))
    with atomic_path(out) as temporary:
        picture.save(temporary)
    visible = int(filled.any((1, 2)).sum())
    where = "the box" if box else "the image" if len(images) == 1 else "every image"
    empty = f"; nobody is seen in {where}" if not visible and not erode else ""
    print(f"{out}: {visible} of 24 parts visible{_source(maps)}{empty}")


def _checked(files: tuple[Path, ...], size: int, scale: int, erode: int) -> tuple[list[Path], Path]:
    """The files to read and the picture to write, checked before any work."""
    from PIL import Image

    from dsareid.data.iuv import is_meant_as_map

    if len(files) < 2:
        raise DSAError(f"expected IMAGE [IUV] ... OUT, not {len(files)} file{'s' * (len(files) != 1)}")
    *given, out = files
    if not 1 <= size <= 256:
        raise DSAError(f"--size must be 1..256, not {size}")
    if not 0 <= scale <= 160:
        raise DSAError(f"--scale must be 0..160, not {scale}")
    if erode < 0:
        raise DSAError(f"--erode must be 0 or more, not {erode}")
    if Image.registered_extensions().get(out.suffix.lower()) not in Image.SAVE:
        raise DSAError(f"{out}: the name must end in .png or another image type")
    check_writable(out, given)
    if out.exists() and is_meant_as_map(out):
        raise DSAError(f"{out}: this is an IUV map, and would be overwritten: name the picture to write last")
    return given, out


def _with_maps(files: Iterable[Path]) -> tuple[list[Path], list[Path | None]]:
    """The photographs, and for each the map that follows it, or None."""
    from dsareid.data.iuv import is_meant_as_map

    images: list[Path] = []
    maps: list[Path | None] = []
    for file in files:
        if not is_meant_as_map(file):
            images.append(file)
            maps.append(None)
        elif not images or maps[-1]:
            raise DSAError(
                f"{file}: this looks like an IUV map (a channel has next to no numbers above 24, or the name "
                "ends in _IUV); name its photograph before it"
            )
        else:
            maps[-1] = file
    return images, maps


def _source(maps: list[Path | None]) -> str:
    """How the maps were obtained, for the printed line."""
    estimated = maps.count(None)
    if len(maps) == 1:
        return ", from an estimated map" if estimated else ""
    which = {0: "all maps given", len(maps): "all maps estimated"}.get(
        estimated, f"{estimated} maps estimated"
    )
    return f", joined from {len(maps)} photographs, {which}"
