"""dsareid pack"""

import tyro

from dsareid.commands.options import positional
from dsareid.data.store.pack import pack
from dsareid.data.store.reader import describe


def command(
    root: positional("ROOT"),
    out: positional("OUT"),
    height: int | None = None,
    width: int | None = None,
    protocol: str = "",
    skip_broken: tyro.conf.FlagCreatePairsOff[bool] = False,
) -> None:
    """Decode a data set once into a store: arrays that --data takes in place of its folder.

    Train, eval and report do so by themselves, into ROOT/store-HxW. A call that was interrupted
    is gone on with by the next one.

    Args:
        root: The data set, with the IUV maps in its folder iuv.
        out: The store's folder; it is created.
        height: Rows of the stored images, with --width. Those of the files unless given, or 256
            where the files are not of one size.
        width: Columns of the stored images, with --height; 128 where the files are not of one size.
        protocol: The protocol by which the images are split, as `dsareid data describe` lists them; the
            data set's default unless given.
        skip_broken: Leave out images that cannot be read or are misnamed, and list them.
    """
    print(describe(pack(root, out, height, width, protocol=protocol, skip_broken=skip_broken)))
