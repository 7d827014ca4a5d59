"""dsareid data describe"""

from dsareid.commands.options import RootPath


def command(root: RootPath, protocol: str = "") -> None:
    """Print what a folder holds: the data set, its protocols, and its image counts beside the expected ones.

    Args:
        root: The data set.
        protocol: The protocol by which the images are split; default: the data set's.
    """
    from dsareid.data.layouts import list_data
    from dsareid.data.layouts.summary import listing_summary

    print(listing_summary(list_data(root, protocol)))
