"""dsareid data extract"""

from dsareid.commands.options import OutPath, RootPath
from dsareid.ground.errors import logger


def command(root: RootPath, out: OutPath) -> None:
    """Convert CUHK03's MATLAB files to image files: two data sets in Market-1501's layout.

    Args:
        root: The folder with cuhk-03.mat (or cuhk03_release/cuhk-03.mat) and the two files
            cuhk03_new_protocol_config_labeled.mat and cuhk03_new_protocol_config_detected.mat.
        out: The folder to create; the two data sets are its folders labeled and detected.
    """
    from dsareid.data.layouts import list_data
    from dsareid.data.layouts.cuhk03_matlab import write_image_files

    for folder in write_image_files(root, out):
        listing = list_data(folder)
        print(f"{folder}: {len(listing.entries):,} images; give it to --data")
        for note in listing.notes:
            logger.warning(note)
