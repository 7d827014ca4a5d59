"""Market-1501: file names as 0002_c1s1_000451_03.jpg, in the folders that market_naming describes."""

import re
from pathlib import Path

from dsareid.data.layouts.base import Dataset, Found, Scan
from dsareid.data.layouts.market_naming import (
    PROTOCOLS,
    SCHEME,
    expected_counts,
    find_market_images,
    has_names,
)

DATASET = Dataset(
    name="Market-1501",
    layout=f"{SCHEME}0002_c1s1_000451_03.jpg",
    citation="Zheng, Shen, Tian, Wang, Wang, Tian: Scalable Person Re-identification: A Benchmark, ICCV 2015",
    protocols=PROTOCOLS,
    expected=expected_counts((12_936, 751), (3_368, 750), (15_913, 750)),  # 19,732 with junk
)
_NAME = re.compile(r"-?\d+_c\d+s\d+_\d+_\d+\.")


def recognise(root: Path, scan: Scan) -> bool:
    """Whether all names are Market-1501's."""
    return has_names(root, scan, _NAME)


def find(root: Path, scan: Scan, protocol: str) -> Found:
    """The images by a protocol; errors as of market_naming.find_market_images."""
    return find_market_images(DATASET, root, scan, protocol)
