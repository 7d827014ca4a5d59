"""dsareid gallery serve"""

import os
from pathlib import Path
from typing import Annotated

import tyro

from dsareid.commands.gallery_options import GalleryName
from dsareid.commands.options import FileOption, Flag, OtherNetwork, OtherOption
from dsareid.ground.errors import DSAError

PASSWORD = "DSAREID_GALLERY_PASSWORD"


def command(
    gallery: GalleryName,
    model: Annotated[Path, tyro.conf.arg(metavar="MODEL")],
    host: str = "127.0.0.1",
    port: int = 7860,
    password_file: FileOption = None,
    calibration: Annotated[Path | None, tyro.conf.arg(metavar="FEATURES")] = None,
    parts: Flag = False,
    device: str = "auto",
    trust: Flag = False,
    other: OtherOption = OtherNetwork(),
) -> None:
    """Show a page to search a gallery with: drop a picture, filter, click on what is found.

    Other commands may use the gallery meanwhile: they go through this one. The page talks to nobody else.

    Args:
        gallery: A folder whose name ends in .db, or a server's address, http://HOST:PORT/NAME.
        model: The network that made the gallery's vectors.
        host: Who can reach the page. 127.0.0.1: this machine alone; 0.0.0.0: everybody, who need the password
            then. The page is not encrypted: put a proxy with TLS before it.
        port: The page's port; 0: any that is free.
        password_file: A file with the password, for any user name; default: that in the environment variable
            DSAREID_GALLERY_PASSWORD.
        calibration: A folder of features of the same model that calibrate has learned from: shows scores, and
            answers "unknown".
        parts: Show part images, by maps that BodyPix estimates; its weights are downloaded once if they are
            not there.
        device: auto (CUDA if there is one), cpu, cuda or cuda:N.
        trust: Also load a .pt2 file. It can run code, so you must know where it comes from.
    """
    from dsareid.gallery.serve import serve_gallery

    serve_gallery(
        gallery,
        str(model),
        host=host,
        port=port,
        password=_password(password_file),
        calibration=calibration,
        parts=parts,
        device=device,
        trust=trust,
        facts=other.facts(),
    )


def _password(file: Path | None) -> str | None:
    """The password; None if there is none. DSAError if the file is empty or cannot be read."""
    if file is None:
        return os.environ.get(PASSWORD) or None
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DSAError(f"{file}: no password can be read: {error}") from error
    if not text:
        raise DSAError(f"{file}: expected a password, but the file is empty")
    return text
