"""Which queries have a match: a gallery image of the same person from another camera."""

from collections.abc import Iterable
from typing import NamedTuple

SAME_CAMERA_RULE = "the same-camera rule removes gallery images of the query's person and camera"
WITHOUT_CAMERAS = "list the images in data.csv without the column camera"


class Matches(NamedTuple):
    """How many queries have a match, and why the others have none."""

    queries: int
    matched: int
    own_camera: int  # queries whose person the gallery has from the query's own camera only
    absent: int  # queries whose person is not in the gallery

    def note(self, way_out: str = WITHOUT_CAMERAS) -> str:
        """A note, "3 of 24 queries have a match: ..."; empty if all have one.

        Args:
            way_out: how to switch the same-camera rule off.
        """
        if self.matched == self.queries:
            return ""
        why = []
        if self.absent:
            why.append(f"for {self.absent:,} the person is not in the gallery")
        if self.own_camera:
            why.append(
                f"for {self.own_camera:,} the gallery has images from the query's own camera only "
                f"({SAME_CAMERA_RULE}; to switch it off if cameras are not known, {way_out})"
            )
        some = f"{self.matched:,} of {self.queries:,} queries have a match"
        return f"{some if self.matched else 'no query has a match'}: {', '.join(why)}"


def count_matches(queries: Iterable[tuple[int, int]], gallery: Iterable[tuple[int, int]]) -> Matches:
    """Count the queries with a match, by identity and camera of each image."""
    cameras: dict[int, set[int]] = {}
    for identity, camera in gallery:
        cameras.setdefault(identity, set()).add(camera)
    listed = list(queries)
    absent = sum(identity not in cameras for identity, _ in listed)
    matched = sum(bool(cameras.get(identity, set()) - {camera}) for identity, camera in listed)
    return Matches(len(listed), matched, len(listed) - matched - absent, absent)
