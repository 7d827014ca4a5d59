"""dsareid gallery info"""

from dsareid.commands.gallery_options import GalleryName


def command(gallery: GalleryName) -> None:
    """Say what a gallery holds: rows, people, cameras, times, and which model made its vectors.

    Args:
        gallery: A folder whose name ends in .db, or a server's address, http://HOST:PORT/NAME.
    """
    from dsareid.gallery.search import format_time
    from dsareid.gallery.summary import summarise
    from dsareid.ground.files import readable_size

    found = summarise(gallery)
    info, size = found.info, "" if found.size is None else f", {readable_size(found.size)}"
    parameters = "".join(f" {name}={value}" for name, value in info.parameters.items())
    print(f"{gallery}: {found.rows:,} rows of {info.dimension} numbers, {info.precision}{size}")
    print(f"model {info.model}: {info.features}")
    print(f"index {info.index}{parameters}{' (exact)' if info.index == 'FLAT' else ''}")
    unknown = f"; of {found.unknown:,} rows nobody knows whose" if found.unknown else ""
    print(f"{found.people:,} people{unknown}; {found.tracks:,} tracks")
    cameras = ", ".join(f"{name or 'not known'} {rows:,}" for name, rows in found.cameras.items())
    print(f"rows of each camera: {cameras or 'none'}")
    if found.times:
        print(f"from {format_time(found.times[0])} to {format_time(found.times[1])}")
