"""Evaluation: ranking by distance, mAP and CMC, rank lists, and the baselines of chance and colour.

Names load on first use: `from dsareid.evaluation import rank` imports no training code.
"""

from typing import TYPE_CHECKING

from dsareid.ground.lazy import lazy_names

if TYPE_CHECKING:
    from dsareid.evaluation.baselines import colour_histograms
    from dsareid.evaluation.distances import Distances, FeatureDistances
    from dsareid.evaluation.evaluate_run import evaluate
    from dsareid.evaluation.positives import Labels
    from dsareid.evaluation.ranking import Ranking, RankResult, chance, rank
    from dsareid.evaluation.rerank import k_reciprocal
    from dsareid.evaluation.run_features import match

__all__ = [
    "Distances",
    "FeatureDistances",
    "Labels",
    "RankResult",
    "Ranking",
    "chance",
    "colour_histograms",
    "evaluate",
    "k_reciprocal",
    "match",
    "rank",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        ".baselines": ["colour_histograms"],
        ".distances": ["Distances", "FeatureDistances"],
        ".evaluate_run": ["evaluate"],
        ".positives": ["Labels"],
        ".ranking": ["RankResult", "Ranking", "chance", "rank"],
        ".rerank": ["k_reciprocal"],
        ".run_features": ["match"],
    },
)
