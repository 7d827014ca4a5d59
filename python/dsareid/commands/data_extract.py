"""dsareid data extract"""

import sys

from dsareid.commands.options import positional
from dsareid.data.layouts import list_data
from dsareid.data.layouts.cuhk03_matlab import extract


def command(root: positional("ROOT"), out: positional("OUT")) -> None:
    """Write CUHK03, which comes as MATLAB files, as image files: two data sets in Market-1501's layout.

    Args:
        root: The folder with cuhk-03.mat (or cuhk03_release/cuhk-03.mat) and the two files
            cuhk03_new_protocol_config_labeled.mat and cuhk03_new_protocol_config_detected.mat.
        out: The folder to create, for labeled and detected.
    """
    for folder in extract(root, out):
        listing = list_data(folder)
        print(f"{folder}: {len(listing.entries):,} images; give it to --data")
        for note in listing.notes:
            print(note, file=sys.stderr)
