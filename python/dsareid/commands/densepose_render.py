"""dsareid densepose render"""

from pathlib import Path
from typing import Annotated, Literal

import tyro

from dsareid.commands.options import Flag


def command(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DST")],
    style: Literal["viton", "magicanimate", "uv", "parts"],
    jpeg: Flag = False,
    overwrite: Flag = False,
) -> None:
    """Draw IUV maps as the pictures and masks that other networks take as input.

    viton: the parts in colours on black, for try-on (VITON-HD's image-densepose). magicanimate: the parts in
    other colours on purple, for animation. uv: NAME_U.png and NAME_V.png. parts: NAME.npy, masks of eight
    parts of the body for BPBReID, float32 [8, H/4, W/4].

    Args:
        source: A folder of maps, NAME.png or NAME_IUV.png; a data set that has maps; the maps of a video.
        out: The folder to write to, NAME.png for each map; it is created. With the maps of a
            video it may be a video (.mp4).
        style: What to draw.
        jpeg: Write NAME.jpg, for programs that ask for this name; a JPEG is not exact.
        overwrite: Also replace files that are there already.
    """
    from dsareid.densepose.render import render_maps

    found = render_maps(source, out, style, jpeg=jpeg, overwrite=overwrite)
    print(f"{out}: {found.files:,} file{'s' * (found.files != 1)}, drawn of {found.maps:,} maps")
