"""CUHK03 by its new protocol (CUHK03-NP): names as 0003_c1_21.png, in the folders of market_naming.

File names do not tell its two kinds apart: the name of the root does, `labeled` or `detected`. CUHK03 is
distributed as MATLAB files; cuhk03_matlab writes the images that are in them.
"""

import re
from pathlib import Path

from dsareid.data.layouts.base import Count, Dataset, Found, Scan
from dsareid.data.layouts.market_naming import SCHEME, expected_counts, find_market_images, has_names

MATLAB_FILES = ("cuhk-03.mat", "cuhk03_release/cuhk-03.mat")  # either, as distributed
_NAME = re.compile(r"\d{4}_c[12]_\d+\.")


def _dataset(kind: str, boxes: str, expected: dict[str, Count]) -> Dataset:
    return Dataset(
        name=f"CUHK03 {kind}",
        layout=f"{SCHEME}0003_c1_21.png (CUHK03-NP)",
        citation=(
            "Li, Zhao, Xiao, Wang: DeepReID: Deep Filter Pairing Neural Network for Person "
            "Re-identification, CVPR 2014; protocol: Zhong, Zheng, Cao, Li: Re-ranking Person "
            "Re-identification with k-reciprocal Encoding, CVPR 2017"
        ),
        protocols={"": f"single query, the new protocol (767/700); {boxes}"},
        expected=expected,
    )


KINDS = {
    "labeled": _dataset(
        "labeled", "boxes drawn by hand", expected_counts((7_368, 767), (1_400, 700), (5_328, 700))
    ),
    "detected": _dataset(
        "detected", "boxes of a detector", expected_counts((7_365, 767), (1_400, 700), (5_332, 700))
    ),
}


def recognise(root: Path, scan: Scan) -> bool:
    """Whether the root has the name of one of the kinds and all file names are CUHK03-NP's."""
    return _kind(root) in KINDS and has_names(root, scan, _NAME)


def find(root: Path, scan: Scan, protocol: str) -> Found:
    """The images by a protocol; errors as of market_naming.find_market_images."""
    return find_market_images(KINDS[_kind(root)], root, scan, protocol)


def _kind(root: Path) -> str:
    return root.resolve().name.lower()
