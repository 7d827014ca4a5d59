"""DensePose output as users bring it, and how it becomes IUV maps."""

from dsareid.densepose.convert import ConversionReport, convert
from dsareid.densepose.sources import Detections, Person, read_source

__all__ = ["Detections", "Person", "ConversionReport", "convert", "read_source"]
