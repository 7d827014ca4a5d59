"""dsareid gallery remove"""

from dsareid.commands.gallery_options import GalleryName, RowOptions, RowsOption


def command(gallery: GalleryName, rows: RowsOption = RowOptions()) -> None:
    """Remove rows from a gallery, and see that they are gone.

    Rows must fit all that is given. The pictures themselves stay where they are.

    Args:
        gallery: A folder whose name ends in .db, or a server's address, http://HOST:PORT/NAME.
    """
    from dsareid.gallery.summary import remove_rows

    print(f"{gallery}: {remove_rows(gallery, rows.filter()):,} rows removed")
