"""Evaluation: ranking by distance, mAP and CMC, what chance and colour reach, rank lists.

Names load on use: `from dsareid.evaluation import rank` needs nothing of training.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsareid.evaluation.baselines import colour_histograms
    from dsareid.evaluation.distances import Distances, FeatureDistances
    from dsareid.evaluation.evaluate_run import EVALUATION_FILES, evaluate, format_table, table_row
    from dsareid.evaluation.ranking import Labels, Ranking, RankResult, chance, rank
    from dsareid.evaluation.rerank import k_reciprocal
    from dsareid.evaluation.run_features import SYMBOLS, Features, match

__all__ = [
    "EVALUATION_FILES",
    "SYMBOLS",
    "Distances",
    "FeatureDistances",
    "Features",
    "Labels",
    "RankResult",
    "Ranking",
    "chance",
    "colour_histograms",
    "evaluate",
    "format_table",
    "k_reciprocal",
    "match",
    "rank",
    "table_row",
]

_MODULES = {
    "baselines": ("colour_histograms",),
    "distances": ("Distances", "FeatureDistances"),
    "evaluate_run": ("EVALUATION_FILES", "evaluate", "format_table", "table_row"),
    "ranking": ("Labels", "RankResult", "Ranking", "chance", "rank"),
    "rerank": ("k_reciprocal",),
    "run_features": ("SYMBOLS", "Features", "match"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
