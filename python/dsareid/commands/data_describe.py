"""dsareid data describe"""

from dsareid.commands.options import positional
from dsareid.data.layouts import list_data
from dsareid.data.layouts.base import describe


def command(root: positional("ROOT"), protocol: str = "") -> None:
    """Say what a folder holds: which data set, by which protocols, and its images beside the expected ones.

    Args:
        root: The data set.
        protocol: The protocol by which the images are split; the data set's default unless given.
    """
    print(describe(list_data(root, protocol)))
