"""The networks (section 3 of the paper), their losses, and the guide for other backbones.

Names are loaded when they are used: models.options, what a network may be, needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsareid.models.dsag import DSAGStream
    from dsareid.models.features import Features
    from dsareid.models.heads import Logits, Output
    from dsareid.models.mf import MFStream
    from dsareid.models.reid import DSAReID

_HOMES = {
    "DSAGStream": "dsag",
    "DSAReID": "reid",
    "Features": "features",
    "Logits": "heads",
    "MFStream": "mf",
    "Output": "heads",
}

__all__ = ["DSAGStream", "DSAReID", "Features", "Logits", "MFStream", "Output"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dsareid.models.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
