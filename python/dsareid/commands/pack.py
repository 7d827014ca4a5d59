"""dsareid pack"""

from dsareid.commands.options import Flag, OutPath, RootPath, maps_maker


def command(
    root: RootPath,
    out: OutPath,
    height: int | None = None,
    width: int | None = None,
    protocol: str = "",
    skip_broken: Flag = False,
    estimate: Flag = False,
) -> None:
    """Decode a data set once into a store: arrays that --data takes in place of its folder.

    Train, eval and report do so by themselves, into ROOT/store-HxW. Interrupted runs resume on the next call.

    Args:
        root: The data set, with IUV maps in its folder iuv if a guide is to be trained.
        out: The store's folder; it is created.
        height: Rows of the stored images, with --width; default: those of the files, or 256 if their sizes
            differ.
        width: Columns of the stored images, with --height; default: those of the files, or 128 if their
            sizes differ.
        protocol: The protocol by which the images are split, as `dsareid data describe` lists them; default:
            the data set's.
        skip_broken: Skip images that cannot be read or are misnamed, and list them.
        estimate: First estimate the missing IUV maps, as densepose estimate ROOT does.
    """
    from dsareid.data.store.pack import pack
    from dsareid.data.store.reader import store_summary

    made = pack(
        root,
        out,
        height,
        width,
        protocol=protocol,
        skip_broken=skip_broken,
        make_maps=maps_maker(estimate),
    )
    print(store_summary(made))
