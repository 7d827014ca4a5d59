"""DensePose output of any form and its conversion to IUV maps, and maps estimated from pictures alone.

The modules that estimate are loaded on first use: converting does not need their network.
"""

from typing import TYPE_CHECKING

from dsareid.densepose.convert import ConversionReport, convert
from dsareid.densepose.sources import Detections, Person, read_source
from dsareid.ground.lazy import lazy_names

if TYPE_CHECKING:
    from dsareid.densepose.compare import Comparison, compare_maps
    from dsareid.densepose.estimate import EstimationReport, estimate_maps, estimate_missing
    from dsareid.densepose.estimators import EstimatedMap, MapEstimator, load_estimator
    from dsareid.densepose.render import Rendering, drawer, render_maps
    from dsareid.densepose.video_maps import VideoReport, estimate_video

__all__ = [
    "Comparison",
    "ConversionReport",
    "Detections",
    "EstimatedMap",
    "EstimationReport",
    "MapEstimator",
    "Person",
    "Rendering",
    "VideoReport",
    "compare_maps",
    "convert",
    "drawer",
    "estimate_maps",
    "estimate_missing",
    "estimate_video",
    "load_estimator",
    "read_source",
    "render_maps",
]

__getattr__, _ = lazy_names(
    __name__,
    {
        ".compare": ["Comparison", "compare_maps"],
        ".estimate": ["EstimationReport", "estimate_maps", "estimate_missing"],
        ".video_maps": ["VideoReport", "estimate_video"],
        ".estimators": ["EstimatedMap", "MapEstimator", "load_estimator"],
        ".render": ["Rendering", "drawer", "render_maps"],
    },
)


def __dir__() -> list[str]:
    return sorted(__all__)
