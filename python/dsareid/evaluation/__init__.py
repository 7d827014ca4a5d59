"""Evaluation: ranking by distance, mAP and CMC, what chance and colour reach, rank lists."""

from dsareid.evaluation.baselines import chance, colour_histograms
from dsareid.evaluation.evaluate_run import EVALUATION_FILES, evaluate, format_table
from dsareid.evaluation.ranking import RankResult, rank, top_matches

__all__ = [
    "EVALUATION_FILES",
    "RankResult",
    "chance",
    "colour_histograms",
    "evaluate",
    "format_table",
    "rank",
    "top_matches",
]
