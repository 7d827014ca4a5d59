"""One's own data, named by Market-1501's scheme: an image's identity and camera are in its name.

ROOT/bounding_box_train/0001_c1.jpg, and query and bounding_box_test; see market_naming
"""

from pathlib import Path

from dsareid.data.layouts.base import OWN_DATA, Dataset, Found, Scan
from dsareid.data.layouts.market_naming import PROTOCOLS, SCHEME, find_market_images, has_folders

DATASET = Dataset(name=OWN_DATA, layout=f"{SCHEME}0001_c1.jpg (Market-1501's)", protocols=PROTOCOLS)


def recognise(root: Path, scan: Scan) -> bool:
    """Whether the scheme's folders are there, whatever is in them."""
    return has_folders(root)


def find(root: Path, scan: Scan, protocol: str) -> Found:
    """The images by a protocol; errors as of market_naming.find_market_images."""
    return find_market_images(DATASET, root, scan, protocol)
