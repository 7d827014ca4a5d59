"""Evaluation: ranking by distance, mAP and CMC, what chance and colour reach, rank lists."""

from dsareid.evaluation.baselines import chance, colour_histograms
from dsareid.evaluation.evaluate_run import EVALUATION_FILES, evaluate, format_table, table_row
from dsareid.evaluation.ranking import (
    Distances,
    FeatureDistances,
    RankResult,
    rank,
    rank_distances,
    top_by_distances,
    top_matches,
)
from dsareid.evaluation.rerank import k_reciprocal
from dsareid.evaluation.run_features import SYMBOLS, Features, match

__all__ = [
    "EVALUATION_FILES",
    "SYMBOLS",
    "Distances",
    "FeatureDistances",
    "Features",
    "RankResult",
    "chance",
    "colour_histograms",
    "evaluate",
    "format_table",
    "k_reciprocal",
    "match",
    "rank",
    "rank_distances",
    "table_row",
    "top_by_distances",
    "top_matches",
]
