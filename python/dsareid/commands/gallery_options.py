"""The arguments that several commands of a gallery take."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dsareid.ground.errors import DSAError

if TYPE_CHECKING:
    from dsareid.gallery.search import GalleryFilter

GalleryName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="GALLERY")]
ModelOption = Annotated[Path | None, tyro.conf.arg(metavar="MODEL")]
Words = Annotated[tuple[str, ...], tyro.conf.arg(metavar="WORD ...")]
DAY = 24 * 60 * 60


def parse_parameters(words: tuple[str, ...], name: str) -> dict[str, int]:
    """The numbers in words such as M=16; DSAError if they are something else."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value.isdecimal() and len(value) < 10):
            raise DSAError(f"`{name}` must be NAME=NUMBER, such as M=16, not {word!r}")
        found[key] = int(value)
    return found


@dataclass
class RowOptions:
    """Which rows; what is not given leaves all."""

    person: Words = ()
    """Of these people."""
    camera: Words = ()
    """Of these cameras."""
    not_camera: Words = ()
    """Not of these cameras."""
    track: Words = ()
    """Of these tracks."""
    file: Words = ()
    """Of these pictures."""
    tag: Words = ()
    """With all of these tags."""
    after: Annotated[str | None, tyro.conf.arg(metavar="TIME")] = None
    """Not before this time, such as 2026-11-30T20:15; rows without a time are left out."""
    before: Annotated[str | None, tyro.conf.arg(metavar="TIME")] = None
    """Before this time."""
    older_than: Annotated[float | None, tyro.conf.arg(metavar="DAYS")] = None
    """Added so many days ago or more."""

    def filter(self) -> "GalleryFilter":
        """The filter. DSAError if a time is none."""
        from dsareid.gallery.add import parse_time
        from dsareid.gallery.search import GalleryFilter

        if self.older_than is not None and not 0 <= self.older_than < 1e6:
            raise DSAError(f"`older_than` must be a number of days, not {self.older_than}")
        return GalleryFilter(
            cameras=self.camera,
            other_cameras=self.not_camera,
            people=self.person,
            tracks=self.track,
            files=tuple(map(os.path.abspath, self.file)),
            tags=self.tag,
            after=parse_time(self.after or "", "`after`"),
            before=parse_time(self.before or "", "`before`"),
            added_before=None if self.older_than is None else int(time.time() - self.older_than * DAY) + 1,
        )


RowsOption = Annotated[RowOptions, tyro.conf.OmitArgPrefixes]
