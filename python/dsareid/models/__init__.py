"""The networks (section 3 of the paper), their losses, and the guide for other backbones.

Names load on first use: models.table and models.options, the choices for a network, import no torch.
"""

from typing import TYPE_CHECKING

from dsareid.ground.lazy import lazy_names

if TYPE_CHECKING:
    from dsareid.models.dsag import DSAGStream
    from dsareid.models.features import Features
    from dsareid.models.heads import Logits, Output
    from dsareid.models.mf import MFStream
    from dsareid.models.reid import DSAReID

__all__ = ["DSAGStream", "DSAReID", "Features", "Logits", "MFStream", "Output"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".dsag": ["DSAGStream"],
        ".features": ["Features"],
        ".heads": ["Logits", "Output"],
        ".mf": ["MFStream"],
        ".reid": ["DSAReID"],
    },
)
