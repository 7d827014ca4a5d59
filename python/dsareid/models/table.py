"""The table of models, and the features that images are matched by. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ModelName = Literal["dsa", "dsa-global", "dsa-local", "two-branch", "baseline", "dsap"]
Streams = Literal["both", "mf", "dsag"]
Branches = Literal["both", "global", "local"]


@dataclass(frozen=True)
class Model:
    """A model that can be trained."""

    title: str
    """The name in tables."""
    about: str
    """A description in one line."""
    streams: Streams
    branches: Branches
    unguided: ModelName | None = None
    """The same model without its guide, if there is one."""


MODELS: Mapping[ModelName, Model] = {
    "dsa": Model(
        "DSA-reID",
        "DSA-reID: both streams in training, the MF-Stream alone for matching",
        "both",
        "both",
        "two-branch",
    ),
    "dsa-global": Model("dsa-global", "DSA-reID with global branches only", "both", "global", "baseline"),
    "dsa-local": Model("dsa-local", "DSA-reID with local branches only", "both", "local"),
    "two-branch": Model("two-branch", "the MF-Stream alone (two branches)", "mf", "both"),
    "baseline": Model("baseline", "ResNet-50 with a global feature (baseline)", "mf", "global"),
    "dsap": Model("DSAP-images alone", "the DSAG-Stream alone, on DSAP-images", "dsag", "both"),
}
"""The models that can be trained, by name."""

MatchedBy = Literal[
    "mf",
    "mf-global",
    "mf-local",
    "fused",
    "fused-global",
    "fused-local",
    "guide",
    "guide-global",
    "guide-local",
]
"""The features that images are matched by: the MF-Stream's, both streams' fused, or the DSAG-Stream's."""

SYMBOLS: Mapping[MatchedBy, str] = {
    "mf": "f",
    "mf-global": "f_G",
    "mf-local": "f_L",
    "fused": "z",
    "fused-global": "z_G",
    "fused-local": "z_L",
    "guide": "d",
    "guide-global": "d_G",
    "guide-local": "d_L",
}
"""The paper's symbol for each."""
