"""The synthetic data set of `dsareid synth`, in Market-1501's naming scheme, beside its synth.json."""

from pathlib import Path

from dsareid.data.layouts.base import Dataset, Found, Scan
from dsareid.data.layouts.market_naming import SCHEME, find_market_images, has_folders

SYNTH_RECORD = "synth.json"  # the settings of dsareid synth
DATASET = Dataset(
    name="synthetic",
    layout=f"{SCHEME}0001_c1s1_012345_00.jpg",
    citation="none: rendered by dsareid synth",
)


def recognise(root: Path, scan: Scan) -> bool:
    """Whether synth.json is beside the scheme's folders."""
    return has_folders(root) and (root / SYNTH_RECORD).exists()


def find(root: Path, scan: Scan, protocol: str) -> Found:
    """The images by a protocol; errors as of market_naming.find_market_images."""
    return find_market_images(DATASET, root, scan, protocol)
