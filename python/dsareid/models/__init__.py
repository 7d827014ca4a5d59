"""The networks (section 3 of the paper)."""

from dsareid.models.dsag import DSAGStream
from dsareid.models.features import Features
from dsareid.models.heads import Logits, Output
from dsareid.models.mf import MFStream
from dsareid.models.reid import Baseline, DSAReID, TwoBranch

__all__ = [
    "Baseline",
    "DSAGStream",
    "DSAReID",
    "Features",
    "Logits",
    "MFStream",
    "Output",
    "TwoBranch",
]
