"""Evaluation: ranking by distance, mAP and CMC, what chance and colour reach, rank lists."""

from dsareid.evaluation.baselines import chance, colour_histograms
from dsareid.evaluation.evaluate_run import EVALUATION_FILES, evaluate, format_table
from dsareid.evaluation.extract import SYMBOLS, Features, match
from dsareid.evaluation.ranking import RankResult, rank, rank_distances, top_matches

__all__ = [
    "EVALUATION_FILES",
    "SYMBOLS",
    "Features",
    "RankResult",
    "chance",
    "colour_histograms",
    "evaluate",
    "format_table",
    "match",
    "rank",
    "rank_distances",
    "top_matches",
]
